"""Many small networks in one call, and the standardisation around them."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lfiw_ope.checks import choice

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": nn.functional.elu,
    "gelu": nn.functional.gelu,
    "leaky_relu": nn.functional.leaky_relu,
}
"""Each as torch's module of that name computes it by default."""


class BatchedMLP(nn.Module):
    """E fully connected networks of one shape, evaluated by one `baddbmm` a layer.

    Every parameter leads with the E axis, so a member is a slice, and stacking two nets is a
    concatenation. The last layer is always float32: under bf16 autocast the hidden products,
    nearly all of the work, are fast, and outputs keep their precision.

    Args:
        members: E.
        sizes: entries of the input, each hidden layer and the output.
        activation: between layers: a name in `ACTIVATIONS`.
        generator: draws the initial weights, U(±1/√fan_in) as `nn.Linear` does; without one they
            are zero, for weights that are about to be loaded.
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        activation: str,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        choice("activation", activation, tuple(ACTIVATIONS))
        self.sizes = tuple(sizes)
        self.members = members
        self.activation = activation
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(self.sizes):
            for parameters, shape in (
                (self.weights, (members, fan_in, fan_out)),
                (self.biases, (members, 1, fan_out)),
            ):
                values = torch.zeros(shape, dtype=torch.float32)
                if generator is not None:
                    limit = 1.0 / math.sqrt(fan_in)
                    values.uniform_(-limit, limit, generator=generator)
                parameters.append(nn.Parameter(values))

    def forward(self, x: Tensor) -> Tensor:
        """`[E, B, in] -> [E, B, out]`; rows `[B, in]` go to every network: `[E, B, out]` too."""
        return self.last(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """What the last layer sees, `[E, B, H]`: the last hidden layer, or the input itself."""
        act = ACTIVATIONS[self.activation]
        hidden = list(zip(self.weights[:-1], self.biases[:-1], strict=True))
        if x.dim() == 2 and hidden:
            # Shared rows: one product for all networks' first layers, and no copies of the rows.
            weight, bias = hidden.pop(0)
            wide = torch.addmm(bias.flatten(), x, weight.transpose(0, 1).flatten(1))
            x = act(wide.view(len(x), self.members, -1).transpose(0, 1))
        elif x.dim() == 2:
            x = x.expand(self.members, -1, -1)
        for weight, bias in hidden:
            x = act(torch.baddbmm(bias, x, weight))
        return x

    def last(self, x: Tensor) -> Tensor:
        """The last layer, from what `hidden` gives."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.baddbmm(self.biases[-1], x.float(), self.weights[-1])


class Standardiser(nn.Module):
    """x ↦ (x − mean) / scale, with the mean and standard deviation of the data.

    An entry that never varies keeps scale 1: dividing by its rounding noise would blow it up.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    @classmethod
    def of(cls, rows: Tensor) -> "Standardiser":
        """From rows `[R, D]`. Moments in float64: float32 sums of 1e6 rows lose digits."""
        wide = rows.double()
        mean, scale = wide.mean(0), wide.std(0, correction=0)
        floor = 1e-6 * wide.abs().amax(0).clamp_min(1e-6)
        scale = torch.where(scale > floor, scale, torch.ones_like(scale))
        return cls(mean.float(), scale.float())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale

    def inverse(self, z: Tensor) -> Tensor:
        return z * self.scale + self.mean

"""Many small networks in one call, and the standardisation around them."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lfiw_ope.checks import choice

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


class BatchedMLP(nn.Module):
    """E fully connected networks of one shape, evaluated by one `baddbmm` a layer.

    Every parameter leads with the E axis, so a member is a slice, and stacking two nets is a
    concatenation. The last layer is always float32: under bf16 autocast the hidden products,
    nearly all of the work, are fast, and outputs keep their precision.

    Args:
        members: E.
        sizes: entries of the input, each hidden layer and the output.
        activation: between layers: "silu", "tanh" or "relu".
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
    def of(cls, chunks: Iterable[Tensor]) -> "Standardiser":
        """From rows `[R, D]`, given in chunks, so that they need not be in memory together.

        Moments are float64, merged chunk by chunk (Chan et al. 1983): float32 sums of 1e6 rows
        lose digits.
        """
        count = 0
        mean = squares = largest = torch.zeros((), dtype=torch.float64)
        for chunk in chunks:
            rows = chunk.double()
            new, total = len(rows), count + len(rows)
            shift = rows.mean(0) - mean
            squares = squares + (rows - rows.mean(0)).square().sum(0)
            squares = squares + shift.square() * (count * new / total)
            mean, count = mean + shift * (new / total), total
            largest = torch.maximum(largest.to(rows.device), rows.abs().amax(0))
        scale = (squares / count).sqrt()
        scale = torch.where(scale > 1e-6 * largest.clamp_min(1e-6), scale, torch.ones_like(scale))
        return cls(mean.float(), scale.float())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale

    def inverse(self, z: Tensor) -> Tensor:
        return z * self.scale + self.mean

"""Many small networks in one call, their matrix products, and standardisation."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lfiw_ope.core.validation import choice

LARGE = 1 << 24
"""Multiplications of a layer's product, for each thread, from which one network after the other is
faster than layer by layer through all of them: 256 rows by a layer of 256 × 256. A network's
weights and rows then stay in the cache from one layer to the next, where those of many do not.
Below it, starting a product for each costs more (`experiments/benchmark_networks.py`)."""


def turns(
    members: int, rows: int, width: int, device: torch.device, dtype: torch.dtype
) -> list[slice]:
    """Which networks go through their layers together: all of them, or one after the other.

    Args:
        members: E, the networks.
        rows: of each.
        width: of their widest layer.
        device: where the networks are.
        dtype: of the hidden products. Those of bfloat16 have other kernels, and go together.
    """
    alone = device.type == "cpu" and dtype == torch.float32
    if alone and rows * width * width >= LARGE * torch.get_num_threads():
        return [slice(one, one + 1) for one in range(members)]
    return [slice(None)]


def affine(bias: Tensor, rows: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """`rows @ weight + bias` into `out`, for each of the leading axis.

    Float32 products of a batch are dealt to a CPU's threads whole: five to two threads leave one
    of them idle for a sixth of the time. Where they do not come out even, each is a product of its
    own, which all threads share.
    """
    threads = torch.get_num_threads()
    uneven = len(out) % threads != 0 and len(out) < 4 * threads
    if out.device.type != "cpu" or out.dtype != torch.float32 or not uneven:
        return torch.baddbmm(bias, rows, weight, out=out)
    for one in range(len(out)):
        torch.addmm(bias[one, 0], rows[one], weight[one], out=out[one])
    return out


class RectifiedLayers(torch.autograd.Function):
    """`[E, B, in] -> [E, B, out]` through affine layers with max(0, ·) between them.

    A rectifier and its derivative need the layer's output alone, so that both can be taken in
    place: half as many large buffers as autograd's own steps allocate, which are dear because the
    system hands them out page by page every time. Hidden products are of the type `dtype`, the
    last one is float32. There is no second derivative.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, *layers: Tensor) -> Tensor:
        """`layers` are the weights and then the biases of each layer."""
        weights, biases = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        used = [*(weight.to(dtype) for weight in weights[:-1]), weights[-1]]
        added = [*(bias.to(dtype) for bias in biases[:-1]), biases[-1]]
        members, rows = x.shape[:2]
        widths = [weight.shape[2] for weight in weights]
        kept = [x.to(dtype)]
        kept += [kept[0].new_empty(members, rows, width) for width in widths[:-1]]
        output = x.new_empty(members, rows, widths[-1], dtype=torch.float32)
        ctx.turns = turns(members, rows, max(widths), x.device, dtype)
        for some in ctx.turns:
            for layer, hidden in enumerate(kept[1:]):
                below, weight = kept[layer][some], used[layer][some]
                affine(added[layer][some], below, weight, hidden[some]).relu_()
            # A product with a few columns: as one with a few rows it is three times as fast.
            last = used[-1][some].transpose(1, 2)
            product = torch.bmm(last, kept[-1][some].float().transpose(1, 2)).transpose(1, 2)
            torch.add(product, added[-1][some], out=output[some])
        ctx.save_for_backward(*kept, *used)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved: Sequence[Tensor] = ctx.saved_tensors
        count = len(saved) // 2
        kept, weights = saved[:count], saved[count:]
        output = gradients[0].contiguous()
        to_weights = [torch.empty_like(weight) for weight in weights]
        to_biases = [output.new_empty(len(output), 1, weight.shape[2]) for weight in weights]
        to_input = None
        if ctx.needs_input_grad[0]:
            to_input = torch.empty_like(kept[0], dtype=torch.float32)
        for some in ctx.turns:
            gradient = output[some]
            for layer in reversed(range(count)):
                below, weight = kept[layer][some], weights[layer][some]
                to_biases[layer][some] = gradient.float().sum(1, keepdim=True)
                if layer == count - 1:
                    few = torch.bmm(gradient.transpose(1, 2), below.float())
                    to_weights[layer][some] = few.transpose(1, 2)
                else:
                    torch.bmm(below.transpose(1, 2), gradient, out=to_weights[layer][some])
                if layer > 0:
                    gradient = torch.bmm(gradient, weight.transpose(1, 2)).to(below.dtype)
                    torch.ops.aten.threshold_backward.grad_input(
                        gradient, below, 0, grad_input=gradient
                    )
                elif to_input is not None:
                    to_input[some] = torch.bmm(gradient, weight.transpose(1, 2))
        return to_input, None, *(found.float() for found in to_weights), *to_biases


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": nn.functional.elu,
    "gelu": nn.functional.gelu,
    "leaky_relu": nn.functional.leaky_relu,
}
"""Each as torch's module of that name computes it by default."""


def _tanh_(x: Tensor) -> Tensor:
    """tanh x = 2 σ(2x) − 1. On a CPU it is three times as fast as torch's, to 1e-7 of 1."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
    return x.tanh_()


_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": partial(nn.functional.silu, inplace=True),
    "tanh": _tanh_,
    "relu": torch.relu_,
    "elu": partial(nn.functional.elu, inplace=True),
    "gelu": lambda x: x.copy_(nn.functional.gelu(x)),
    "leaky_relu": partial(nn.functional.leaky_relu, inplace=True),
}

BLOCK_BYTES = {"cpu": 3 << 19, "cuda": 1 << 28}
"""What a block of hidden activations takes where no gradient is wanted: on a CPU it stays in the
cache, which at 1e5 rows is twice as fast as passing over memory layer by layer."""


class _FewColumns(torch.autograd.Function):
    """`[E, B, W] @ [E, W, out]` for a small out, as (weightᵀ @ hiddenᵀ)ᵀ.

    CPU libraries are three times slower at a product with a few columns than at one with a few
    rows. The backward pass is written out for the same reason, and so that the hidden layers'
    gradient is laid out as they are: activations are slow at mixed layouts.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return torch.bmm(weight.transpose(1, 2), hidden.transpose(1, 2)).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        hidden, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        to_weight = torch.bmm(gradient.transpose(1, 2), hidden).transpose(1, 2)
        return torch.bmm(gradient, weight.transpose(1, 2)), to_weight.contiguous()


class BatchedMLP(nn.Module):
    """E fully connected networks of one shape, evaluated by one batched product a layer.

    Every parameter leads with the E axis, so a member is a slice, and stacking two nets is a
    concatenation. The last layer is always float32: under bf16 autocast the hidden products,
    nearly all of the work, are fast, and outputs keep their precision.

    Where no gradient is wanted, rows go through all layers in blocks, in buffers that are used
    again; results differ from the other path by rounding alone.

    Args:
        members: E.
        sizes: entries of the input, each hidden layer and the output.
        activation: between layers: a name in `ACTIVATIONS`.
        generator: draws the initial weights, U(±1/√fan_in) as `nn.Linear` does; without one they
            are zero, for weights that are about to be loaded.
        layer_norm: normalise each hidden layer over its units before the activation (Ba et al.
            2016), without learned gain and shift.
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        activation: str,
        generator: torch.Generator | None = None,
        *,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        choice("activation", activation, tuple(ACTIVATIONS))
        self.sizes = tuple(sizes)
        self.layer_norm = layer_norm
        self.members = members
        self.activation = activation
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        self._converted: tuple[list[Any], list[tuple[Tensor, Tensor]]] | None = None
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

    def member(self, number: int) -> "BatchedMLP":
        """One network alone, its parameters views of these: for use, not for training."""
        one = BatchedMLP(1, self.sizes, self.activation, layer_norm=self.layer_norm)
        one.requires_grad_(False)
        for own, every in zip(one.parameters(), self.parameters(), strict=True):
            own.data = every.data[number : number + 1]
        return one

    def forward(self, x: Tensor) -> Tensor:
        """`[E, B, in] -> [E, B, out]`; rows `[B, in]` go to every network: `[E, B, out]` too."""
        if not torch.is_grad_enabled():
            return self._in_blocks(x)
        if self.activation == "relu" and not self.layer_norm:
            return self._rectified(x)
        return self.last(self.hidden(x))

    def _rectified(self, x: Tensor) -> Tensor:
        self._converted = None
        kind = x.device.type
        low = torch.is_autocast_enabled(kind) and len(self.weights) > 1
        dtype = torch.get_autocast_dtype(kind) if low else self.weights[0].dtype
        rows = x if x.dim() == 3 else x.expand(self.members, -1, -1)
        with torch.autocast(kind, enabled=False):
            output: Tensor = RectifiedLayers.apply(  # type: ignore[no-untyped-call]
                rows, dtype, *self.weights, *self.biases
            )
        return output

    def hidden(self, x: Tensor) -> Tensor:
        """What the last layer sees, `[E, B, H]`: the last hidden layer, or the input itself."""
        self._converted = None  # what is trained in low precision changes without a trace
        act = ACTIVATIONS[self.activation]
        x = x if x.dim() == 3 else x.expand(self.members, -1, -1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = act(self._normalised(torch.baddbmm(bias, x, weight)))
        return x

    def _normalised(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:]) if self.layer_norm else x

    def last(self, x: Tensor) -> Tensor:
        """The last layer, from what `hidden` gives."""
        with torch.autocast(x.device.type, enabled=False):
            product = _FewColumns.apply(x.float(), self.weights[-1])  # type: ignore[no-untyped-call]
            output: Tensor = product + self.biases[-1]
            return output

    def _in_blocks(self, rows: Tensor) -> Tensor:
        rows = rows if rows.dim() == 3 else rows.expand(self.members, -1, -1)
        kind = rows.device.type
        low = torch.is_autocast_enabled(kind) and len(self.weights) > 1
        dtype = torch.get_autocast_dtype(kind) if low else self.weights[0].dtype
        layers, act = self._cast(dtype), _IN_PLACE[self.activation]
        count, width = rows.shape[1], max(self.sizes[1:])
        together = turns(self.members, count, width, rows.device, dtype)
        networks = self.members // len(together)
        most = max(64, BLOCK_BYTES.get(kind, 1 << 28) // (networks * width * dtype.itemsize))
        block = math.ceil(count / max(1, math.ceil(count / most)))  # of even size
        output = rows.new_empty((self.members, count, self.sizes[-1]), dtype=torch.float32)
        size = networks * block * width
        buffers = [rows.new_empty(size, dtype=dtype) for _ in range(2)]
        wide = rows.new_empty(size if dtype != torch.float32 else 0, dtype=torch.float32)
        last, last_bias = self.weights[-1].transpose(1, 2), self.biases[-1]
        with torch.autocast(kind, enabled=False):
            for some in together:
                own = [(weight[some], bias[some]) for weight, bias in layers]
                for start in range(0, count, max(1, block)):
                    hidden = rows[some, start : start + block].to(dtype)
                    for i, (weight, bias) in enumerate(own):
                        out = _shaped(buffers[i % 2], (networks, hidden.shape[1], weight.shape[2]))
                        hidden = act(self._normalised(affine(bias, hidden, weight, out)))
                    if dtype != torch.float32:
                        hidden = _shaped(wide, hidden.shape).copy_(hidden)
                    # A product with few rows: see _FewColumns.
                    product = torch.bmm(last[some], hidden.transpose(1, 2)).transpose(1, 2)
                    torch.add(product, last_bias[some], out=output[some, start : start + block])
        return output

    def _cast(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Hidden layers in another type; frozen ones are converted once, until they change."""
        # A slice of a ParameterList is a new one, which costs as much as a small product.
        pairs = list(zip(self.weights, self.biases, strict=True))[:-1]
        if not pairs or dtype == pairs[0][0].dtype:
            return pairs
        # A fused optimiser changes weights without a trace in their version: only weights that
        # nothing trains can be told to be the same, and a pass with gradients forgets them.
        frozen = not any(p.requires_grad or p.is_inference() for pair in pairs for p in pair)
        state = [dtype, *((p.data_ptr(), p._version) for pair in pairs for p in pair if frozen)]
        if not frozen or self._converted is None or self._converted[0] != state:
            self._converted = state, [(w.to(dtype), b.to(dtype)) for w, b in pairs]
        return self._converted[1]


def _shaped(buffer: Tensor, shape: Sequence[int]) -> Tensor:
    """The first entries of a buffer, in this shape."""
    return buffer[: math.prod(shape)].view(*shape)


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
    def of_chunks(cls, chunks: Iterable[Tensor]) -> "Standardiser":
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

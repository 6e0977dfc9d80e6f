"""All layers of rectified networks as one step of autograd."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lfiw_ope.nn.products import affine, turns


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

"""All layers of rectified networks as one step of autograd."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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
        hidden, kept = x.to(dtype), []
        used = [weight.to(dtype) for weight in weights[:-1]]
        for weight, bias in zip(used, biases[:-1], strict=True):
            kept.append(hidden)
            hidden = torch.baddbmm(bias.to(dtype), hidden, weight).relu_()
        kept.append(hidden)
        ctx.save_for_backward(*kept, *used, weights[-1])
        # A product with a few columns: as one with a few rows it is three times as fast.
        product = torch.bmm(weights[-1].transpose(1, 2), hidden.float().transpose(1, 2))
        return product.transpose(1, 2) + biases[-1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved: Sequence[Tensor] = ctx.saved_tensors
        count = len(saved) // 2
        kept, weights = saved[:count], saved[count:]
        gradient = gradients[0].contiguous()
        to_weights, to_biases = [], []
        for layer in reversed(range(count)):
            below = kept[layer]
            if layer == count - 1:
                few = torch.bmm(gradient.transpose(1, 2), below.float())
                to_weights.append(few.transpose(1, 2).contiguous())
            else:
                to_weights.append(torch.bmm(below.transpose(1, 2), gradient).float())
            to_biases.append(gradient.float().sum(1, keepdim=True))
            if layer > 0:
                gradient = torch.bmm(gradient, weights[layer].transpose(1, 2)).to(below.dtype)
                torch.ops.aten.threshold_backward.grad_input(
                    gradient, below, 0, grad_input=gradient
                )
        to_input = None
        if ctx.needs_input_grad[0]:
            to_input = torch.bmm(gradient, weights[0].transpose(1, 2)).float()
        return to_input, None, *reversed(to_weights), *reversed(to_biases)

"""PyTorch's AdamW, without what constructing `torch.optim.AdamW` brings along."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw


class AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019), bit for bit `torch.optim.AdamW`'s.

    The update is PyTorch's own fused one, called as a function. Constructing the class imports
    `torch._dynamo`, and sympy with it: two seconds of every process that trains anything, as long
    as PyTorch itself takes, for a compiler that is not used here.

    Args:
        parameters: floats, that are trained.
        learning_rate: at the start; an attribute, to be changed between two steps.
        weight_decay: decoupled.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self._mean = [torch.zeros_like(p) for p in self.parameters]
        self._square = [torch.zeros_like(p) for p in self.parameters]
        self._steps = [
            torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters
        ]

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters that have a gradient by it."""
        gradients = {i: g for i, p in enumerate(self.parameters) if (g := p.grad) is not None}
        moved = gradients.keys()
        adamw(
            [self.parameters[i] for i in moved],
            list(gradients.values()),
            [self._mean[i] for i in moved],
            [self._square[i] for i in moved],
            [],
            [self._steps[i] for i in moved],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def state(self) -> dict[str, list[Tensor]]:
        """What a later step depends on besides the parameters and the settings."""
        return {"mean": self._mean, "square": self._square, "steps": self._steps}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another of the same parameters."""
        for name, mine in self.state().items():
            for kept, saved in zip(mine, state[name], strict=True):
                kept.copy_(saved)

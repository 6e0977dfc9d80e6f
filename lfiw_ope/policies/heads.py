"""What the last layer of a policy network means: the distribution over actions."""

import math
from collections.abc import Sequence
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from lfiw_ope.errors import PolicyError

NO_DENSITY = (
    "A deterministic policy has no density; use estimators that simulate (LFIW, ModelBased), or "
    "load the policy with deterministic=False."
)


class Head(Protocol):
    """A distribution over actions, for P policies, from network outputs `[..., n, A]`."""

    @property
    def name(self) -> str: ...

    def propose(self, output: Tensor, noise: torch.Generator | None) -> Tensor:
        """A draw, or the mode where `noise` is None, before any clipping."""
        ...

    def execute(self, proposed: Tensor) -> Tensor: ...

    def log_prob(self, output: Tensor, proposed: Tensor) -> Tensor: ...

    def stack(self, others: Sequence[Self]) -> Self: ...


class GaussianHead(nn.Module):
    """N(output, σ²) with σ the same at every state, clipped to the action bounds on execution.

    Args:
        log_std: `[P, A]`, log σ.
        low: `[P, A]`, lower action bounds, -inf where there are none.
        high: `[P, A]`, upper action bounds.

    Raises:
        PolicyError: if the shapes disagree.
    """

    name = "gaussian"
    log_std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, log_std: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__()
        if not log_std.shape == low.shape == high.shape:
            raise PolicyError(
                f"log_std, low and high have shapes {tuple(log_std.shape)}, {tuple(low.shape)} "
                f"and {tuple(high.shape)}; all must be one entry for each policy and action entry."
            )
        self.register_buffer("log_std", log_std.detach().clone().float())
        self.register_buffer("low", low.detach().clone().float())
        self.register_buffer("high", high.detach().clone().float())

    def propose(self, output: Tensor, noise: torch.Generator | None) -> Tensor:
        if noise is None:
            return output
        # Drawn for the n axis alone: policies of a stack share the noise (see lfiw_ope.types).
        draw = torch.randn(
            output.shape[-2:], generator=noise, device=output.device, dtype=output.dtype
        )
        return output + _per_row(self.log_std.exp(), output) * draw

    def execute(self, proposed: Tensor) -> Tensor:
        return torch.clamp(proposed, _per_row(self.low, proposed), _per_row(self.high, proposed))

    def log_prob(self, output: Tensor, proposed: Tensor) -> Tensor:
        log_std = _per_row(self.log_std, output)
        z = (proposed - output) * torch.exp(-log_std)
        return (-0.5 * z.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(-1)

    def stack(self, others: Sequence["GaussianHead"]) -> "GaussianHead":
        every = (self, *others)
        return GaussianHead(
            torch.cat([one.log_std for one in every]),
            torch.cat([one.low for one in every]),
            torch.cat([one.high for one in every]),
        )


class CategoricalHead(nn.Module):
    """softmax(output) over A discrete actions; actions are one-hot."""

    name = "categorical"

    def propose(self, output: Tensor, noise: torch.Generator | None) -> Tensor:
        if noise is None:
            chosen = output.argmax(-1)
        else:
            uniform = torch.rand(
                output.shape[-2:-1], generator=noise, device=output.device, dtype=output.dtype
            )
            levels = output.softmax(-1).cumsum(-1)
            below = (levels < uniform[:, None] * levels[..., -1:]).sum(-1)
            chosen = below.clamp_max(output.shape[-1] - 1)
        return nn.functional.one_hot(chosen, output.shape[-1]).to(output.dtype)

    def execute(self, proposed: Tensor) -> Tensor:
        return proposed

    def log_prob(self, output: Tensor, proposed: Tensor) -> Tensor:
        return torch.where(proposed > 0, output.log_softmax(-1), 0.0).sum(-1)

    def stack(self, others: Sequence["CategoricalHead"]) -> "CategoricalHead":  # noqa: ARG002
        return self


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    """`[P, A]` in a shape that meets `[P, n, A]`, or `[n, A]` of a single policy."""
    return values[:, None] if like.dim() == 3 else values

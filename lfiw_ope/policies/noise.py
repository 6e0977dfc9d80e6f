"""Continuous heads beside the plain Gaussian: those of SAC, TQC, TD3, DDPG, ARS and of gSDE."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lfiw_ope.errors import PolicyError
from lfiw_ope.policies.heads import (
    CategoricalHead,
    ContinuousHead,
    GaussianHead,
    GreedyHead,
    Output,
    per_row,
)

LOG_STD_RANGE = (-20.0, 2.0)
"""Where SAC keeps log σ (Haarnoja et al. 2018, and stable-baselines3)."""

SDE_VARIANCE_FLOOR = 1e-6
"""What stable-baselines3 adds to gSDE's variance."""


class SquashedGaussianHead(ContinuousHead):
    """tanh(N(μ, σ²)) rescaled to the bounds, with (μ, log σ) the 2A outputs: SAC and TQC.

    Haarnoja et al., *Soft Actor-Critic*, 2018, appendix C. log σ is kept in [-20, 2].

    Args:
        low: `[P, A]`, lower action bounds.
        high: `[P, A]`, upper action bounds.
    """

    name = "squashed_gaussian"
    outputs_per_entry = 2

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__(low, high, squashed=True)

    def moments(self, output: Output) -> tuple[Tensor, Tensor]:
        mean, log_std = output.value.chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD_RANGE)


class ConditionalGaussianHead(ContinuousHead):
    """N(μ, σ²), clipped, with (μ, log σ) the 2A outputs: a normal distribution at every state.

    log σ is kept in [-20, 20], where neither σ nor 1/σ² leaves float32.

    Args:
        low: `[P, A]`, lower action bounds, -inf where there are none.
        high: `[P, A]`, upper action bounds.
    """

    name = "conditional_gaussian"
    outputs_per_entry = 2

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__(low, high, squashed=False)

    def moments(self, output: Output) -> tuple[Tensor, Tensor]:
        mean, log_std = output.value.chunk(2, -1)
        return mean, log_std.clamp(-20.0, 20.0)


class StateDependentHead(ContinuousHead):
    """N(output, diag(h² Σ²)), with h the last hidden layer: gSDE (Raffin et al. 2020).

    Generalised state-dependent exploration draws a noise matrix W ~ N(0, Σ²) and adds h W.
    stable-baselines3 keeps one W for several steps, so its noise is correlated in time; here every
    step draws anew. At one state and step the two distributions are the same, and the
    log-probability is stable-baselines3's own: that of a step, not of a path.

    Args:
        std: `[P, L, A]`, Σ.
        mean_limit: `[P, 1]`, the output is clipped to ± this; inf where it is not.
        low: `[P, A]`, lower action bounds.
        high: `[P, A]`, upper action bounds.
        squashed: a tanh in place of clipping.
    """

    reads_latent = True
    name = "state_dependent"
    std: Tensor
    mean_limit: Tensor

    def __init__(
        self, std: Tensor, mean_limit: Tensor, low: Tensor, high: Tensor, *, squashed: bool
    ) -> None:
        super().__init__(low, high, squashed=squashed, std=std, mean_limit=mean_limit)

    def moments(self, output: Output) -> tuple[Tensor, Tensor]:
        if output.latent is None:
            raise PolicyError("gSDE needs the network's last hidden layer, which is not shown.")
        limit = per_row(self.mean_limit, output.value)
        squares = self.std.square()
        variance = output.latent.square() @ (squares if output.latent.dim() == 3 else squares[0])
        log_std = 0.5 * torch.log(variance + SDE_VARIANCE_FLOOR)
        return torch.clamp(output.value, -limit, limit), log_std

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "squashed": self.squashed}


class DeterministicHead(ContinuousHead):
    """The output itself, clipped or squashed, without noise: TD3, DDPG and ARS.

    Args:
        low: `[P, A]`, lower action bounds, -inf where there are none.
        high: `[P, A]`, upper action bounds.
        squashed: a tanh, rescaled to the bounds, in place of clipping.
    """

    name = "deterministic"
    noisy = False

    def __init__(self, low: Tensor, high: Tensor, *, squashed: bool) -> None:
        super().__init__(low, high, squashed=squashed)

    def moments(self, output: Output) -> tuple[Tensor, Tensor]:
        return output.value, torch.full_like(output.value, -torch.inf)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "squashed": self.squashed}


HEADS: dict[str, Callable[..., ContinuousHead | CategoricalHead]] = {
    head.name: head
    for head in (
        GaussianHead,
        CategoricalHead,
        GreedyHead,
        SquashedGaussianHead,
        ConditionalGaussianHead,
        StateDependentHead,
        DeterministicHead,
    )
}
"""By the name that an actor's file gives."""

"""Importance weights from log-ratios: pure functions, in log space, same length in and out.

The log-ratio of step t of rollout i is ℓ_it = log p(s', r | s, a) / p_θ(s', r | s, a). Time is the
last axis, rollouts the one before it. After a rollout has ended its log-ratios are 0, so its weight
stays frozen and it stays in every later normalisation. Grover et al. (2019) give the trajectory,
first-H and stepwise forms; Robert and Casella (2004), section 3.3, self-normalisation.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lfiw_ope.checks import choice, whole
from lfiw_ope.errors import DivergedError


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """Which weights an estimate uses.

    Attributes:
        form: "uniform" is the plain model; "trajectory" weighs a rollout's return by the product
            of its ratios; "stepwise" weighs the reward at t by the product up to and including t.
        first: H, ratios of the first H steps only; None is all of them. With exact ratios the
            target is then "true dynamics for H steps, the model afterwards", not the true value.
        conditional: divide each ratio by its mean over K draws of the model at the same (s, a).
        self_normalised: divide by the sum of the weights and not by their number.
    """

    form: Literal["uniform", "trajectory", "stepwise"] = "trajectory"
    first: int | None = None
    conditional: bool = False
    self_normalised: bool = True

    def __post_init__(self) -> None:
        choice("form", self.form, ("uniform", "trajectory", "stepwise"))
        if self.first is not None:
            whole("first", self.first, least=0)

    @property
    def label(self) -> str:
        """A short name for tables, such as "c-LFIW first 80"."""
        if self.form == "uniform":
            return "model"
        parts = ["c-" * self.conditional + ("LFIW" if self.form == "trajectory" else "stepwise")]
        if self.first is not None:
            parts.append(f"first {self.first}")
        if not self.self_normalised:
            parts.append("unnormalised")
        return " ".join(parts)


def require_finite(log_weight: Tensor, what: str) -> Tensor:
    """The argument, or an error: a weight that is not finite is never dropped in silence.

    Raises:
        DivergedError: if an entry is NaN or infinite; it says how many.
    """
    bad = int((~log_weight.isfinite()).sum())
    if bad:
        raise DivergedError(
            f"{bad} of {log_weight.numel()} {what} are not finite; the model or the classifier "
            "left the numbers it was trained on, so fit with more data or a lower learning rate."
        )
    return log_weight


def cumulate(log_ratio: Tensor, first: int | None = None) -> Tensor:
    """log W_it = Σ_{u ≤ t, u < H} ℓ_iu, `[..., n, T] -> [..., n, T]`."""
    if first is not None:
        step = torch.arange(log_ratio.shape[-1], device=log_ratio.device)
        log_ratio = torch.where(step < first, log_ratio, 0.0)
    # float64: float32 running sums of a few hundred steps lose the digits that weights differ in.
    return log_ratio.double().cumsum(-1)


def self_normalise(log_weight: Tensor, dim: int = -1) -> Tensor:
    """log of W_i / Σ_j W_j along `dim`, same shape."""
    return log_weight - torch.logsumexp(log_weight, dim, keepdim=True)


def effective_sample_size(log_weight: Tensor, dim: int = -1) -> Tensor:
    """(Σ W)² / Σ W² along `dim`: 1 when one rollout has all the weight, n when all are equal.

    Kong (1992). It does not say that weights are right, only how many rollouts carry them.
    """
    total = torch.logsumexp(log_weight, dim)
    return torch.exp(2.0 * total - torch.logsumexp(2.0 * log_weight, dim))


def conditional_normalise(log_ratios: Tensor) -> Tensor:
    """log of w_1 / mean(w_1 .. w_K): the ratio over its own mean at the same (s, a).

    E_{p_θ}[w | s, a] = 1 holds for an exact ratio where p ≪ p_θ. A learned one drifts from it off
    the data; dividing by the mean over the model's draws takes that drift away. The rollout's own
    draw is one of the K, which makes every factor at most K and the bias O(1/K); a mean of fresh
    draws alone would multiply by E[1 / mean] > 1 at each step.

    Args:
        log_ratios: `[K, ...]`, of K draws at the same (s, a), the rollout's own first.
    """
    # Relative to the own draw: subtracting two large logs would lose the digits of a small one.
    return math.log(log_ratios.shape[0]) - torch.logsumexp(log_ratios - log_ratios[0], 0)


LEAST_ESS_FOR_A_STANDARD_ERROR = 10.0
"""Below it the delta method says nothing: at an ESS of 1 it gives 0, a false certainty."""


@dataclass(frozen=True)
class WeightedValue:
    """A weighted mean of simulated returns, for one policy.

    Attributes:
        value: the estimate.
        mc_standard_error: its standard error from simulation noise only (delta method where
            self-normalised); None where fewer than `LEAST_ESS_FOR_A_STANDARD_ERROR` effective
            rollouts carry the weights.
        log_weights: `[n]`, normalised to sum to 1, at the last step.
        ess_by_step: `[T]`, effective sample size of the weights that meet the reward at t.
    """

    value: float
    mc_standard_error: float | None
    log_weights: Tensor
    ess_by_step: Tensor


def weigh(rewards: Tensor, log_ratio: Tensor, weighting: Weighting) -> WeightedValue:
    """The weighted value of n rollouts.

    trajectory: v = Σ_i W_iT G_i / Σ_i W_iT          (G_i the return)
    stepwise:   v = Σ_t (Σ_i W_it ρ_it / Σ_i W_it)    (ρ_it the discounted reward)

    with n for the sums of weights where not self-normalised.

    Args:
        rewards: `[n, T]`, discounted, 0 after the end.
        log_ratio: `[n, T]`, 0 after the end; conditionally normalised if the weighting says so.
        weighting: the form.

    Raises:
        DivergedError: if a log-ratio or a reward is not finite.
    """
    require_finite(rewards, "simulated rewards")
    rewards = rewards.double()
    n = rewards.shape[-2]
    if weighting.form == "uniform":
        log_weight = torch.zeros_like(rewards)
    else:
        require_finite(log_ratio, "log-ratios")
        log_weight = cumulate(log_ratio, weighting.first)
    normalised = self_normalise(log_weight, dim=-2)
    ess = effective_sample_size(log_weight, dim=-2)
    share = normalised.exp() if weighting.self_normalised else log_weight.exp() / n
    if weighting.form == "stepwise":
        term = rewards
    else:  # every reward meets the weight of the whole trajectory
        term = rewards.sum(-1, keepdim=True)
        share, ess = share[..., -1:], ess[..., -1:].expand(rewards.shape[-1])
    centre = (share * term).sum(-2, keepdim=True)
    value = centre.sum()
    if weighting.self_normalised:
        influence = (share * (term - centre)).sum(-1)
    else:
        influence = (share * term).sum(-1) - value / n
    error = math.sqrt(float(influence.square().sum()) * n / max(n - 1, 1))
    if not (math.isfinite(float(value)) and math.isfinite(error)):
        raise DivergedError(
            f"The weights of {weighting.label} overflow: the largest has a logarithm of "
            f"{float(log_weight.max()):.0f}; use a self-normalised form."
        )
    uniform = weighting.form == "uniform"
    known = uniform or float(ess.min()) >= LEAST_ESS_FOR_A_STANDARD_ERROR
    return WeightedValue(float(value), error if known else None, normalised[:, -1], ess)

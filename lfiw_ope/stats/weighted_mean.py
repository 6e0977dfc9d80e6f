"""The weighted value of one policy's rollouts, or of logged episodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lfiw_ope.core.errors import DataError, DivergedError
from lfiw_ope.stats.intervals import RatioSums
from lfiw_ope.stats.weighting import Weighting, shape
from lfiw_ope.stats.weights import effective_sample_size, require_finite, self_normalise

LEAST_ESS_FOR_A_STANDARD_ERROR = 10.0
"""Below it the delta method says nothing: at an ESS of 1 it gives 0, a false certainty."""


@dataclass(frozen=True, kw_only=True)
class WeightedValue:
    """A weighted mean of simulated or logged returns, for one policy.

    Attributes:
        value: the estimate.
        mc_standard_error: its standard error over rollouts, or logged episodes (delta method where
            self-normalised; H, α and standings taken as given): of rollouts that is simulation
            noise only. None where fewer than `LEAST_ESS_FOR_A_STANDARD_ERROR` effective ones carry
            weights that differ.
        log_weights: `[n]`, normalised to sum to 1, at the last step; −∞ for a weight of 0, and for
            an episode that was cut short.
        ess_by_step: `[T]`, effective sample size of the weights that meet the reward at t.
        raw_ess: the smallest of them before H was chosen by it, tempering and smoothing.
        influence: `[n]`, what each rollout adds to the estimate's deviation; the standard error is
            the root of the sum of their squares.
        exponent: α that tempering came to, the smallest over steps; None without tempering.
        first: H; None for all steps.
        pareto_k: k̂, the largest over steps; None without smoothing, or where no tail could be
            fitted.
        clipped_share: of the ratios, those put on a bound; None without clipping.
        sums: what the value is a function of, by rollout or episode; None where not asked for.
    """

    value: float
    mc_standard_error: float | None
    log_weights: Tensor
    ess_by_step: Tensor
    raw_ess: float
    influence: Tensor
    exponent: float | None = None
    first: int | None = None
    pareto_k: float | None = None
    clipped_share: float | None = None
    sums: RatioSums | None = field(default=None, repr=False, compare=False)


def weigh(
    rewards: Tensor,
    log_ratio: Tensor,
    weighting: Weighting,
    *,
    standing: Tensor | None = None,
    zeros: bool = False,
    keep_sums: bool = False,
) -> WeightedValue:
    """The weighted value of n rollouts, or of N logged episodes.

    trajectory: v = Σ_i W_iT G_i / Σ_i W_iT          (G_i the return)
    stepwise:   v = Σ_t (Σ_i W_it ρ_it / Σ_i W_it)    (ρ_it the discounted reward)

    with n for the sums of weights where not self-normalised.

    Args:
        rewards: `[n, T]`, discounted, 0 after the end.
        log_ratio: `[n, T]`, 0 after the end; conditionally normalised if the weighting says so.
        weighting: the form. Its candidates were chosen in the rollouts.
        standing: `[n, T]`, what each episode counts at each step, of sum n, where logs were cut
            short: 0 from there on (`lfiw_ope.data.censoring`). It multiplies every weight, after
            all that the form does to weights; that of whole returns by the last step's. None where
            nothing was cut.
        zeros: whether a log-ratio may be −∞, a ratio of 0, as that of a policy which never takes a
            logged action. A learned ratio that says so has diverged.
        keep_sums: whether to give `WeightedValue.sums`, twice as large as the rewards.

    Raises:
        DivergedError: if a log-ratio or a reward is not finite, or weights overflow.
        DataError: if the shapes differ, or self-normalised weights are all 0.
        ConfigError: if there are too few rollouts for the form.
        MissingDependencyError: if Pareto smoothing is asked for without arviz-stats.
    """
    require_finite(rewards, "simulated rewards")
    if rewards.shape != log_ratio.shape:
        raise DataError(
            f"Rewards have the shape {list(rewards.shape)} and log-ratios {list(log_ratio.shape)}; "
            "both must be [n, T], of the same rollouts."
        )
    stepwise = weighting.form == "stepwise"
    rewards = rewards.double()
    standing = torch.ones_like(rewards) if standing is None else standing
    standing = standing if stepwise else standing[:, -1:]
    seen = standing > 0
    shaped = shape(log_ratio, weighting, standing, zeros=zeros)
    log_weight = shaped.log_weight + standing.log()
    normalised = _normalised(log_weight, needed=weighting.self_normalised)
    equal = standing / len(rewards)
    share = normalised.exp() if weighting.self_normalised else log_weight.exp() / len(rewards)
    term = rewards if stepwise else rewards.sum(1, keepdim=True)
    centre = (share * term).sum(0, keepdim=True)
    value = float(centre.sum())
    over = share if weighting.self_normalised else equal
    influence = (share * term - over * centre).sum(1)
    n = int(seen.any(1).sum())
    influence = influence * math.sqrt(n / max(n - 1, 1))
    error = float(influence.square().sum().sqrt())
    if not (math.isfinite(value) and math.isfinite(error)):
        raise DivergedError(
            f"The weights overflow: the largest has a logarithm of {float(log_weight.max()):.0f}; "
            "use a self-normalised form."
        )
    ess = effective_sample_size(log_weight, dim=0)
    # Equal weights need no such number: a plain mean has a standard error at any n above 1.
    alike = bool((ess > seen.sum(0).double() * (1.0 - 1e-9)).all())
    known = alike or float(ess.min()) >= LEAST_ESS_FOR_A_STANDARD_ERROR
    return WeightedValue(
        value=value,
        mc_standard_error=error if known and int(seen.sum(0).min()) > 1 else None,
        log_weights=normalised[:, -1],
        ess_by_step=ess.expand(rewards.shape[1]),
        raw_ess=shaped.raw_ess,
        influence=influence,
        exponent=shaped.exponent,
        first=shaped.first,
        pareto_k=shaped.pareto_k,
        clipped_share=shaped.clipped_share,
        sums=RatioSums.of(share * term, over.expand_as(share)) if keep_sums else None,
    )


def _normalised(log_weight: Tensor, *, needed: bool) -> Tensor:
    """Weights that sum to 1 at each step, −∞ where there are none that could.

    Raises:
        DataError: if they are needed.
    """
    none = (log_weight == -torch.inf).all(0)
    if needed and none.any():
        step = f" by step {int(none.nonzero()[0]) + 1}" if log_weight.shape[1] > 1 else ""
        raise DataError(
            f"All weights are 0{step}: the policy never does what was logged, so the log says "
            "nothing of its value; use a shorter horizon, or an estimator that needs no such "
            "overlap (FQE, LFIW, ModelBased)."
        )
    return torch.where(none, -torch.inf, self_normalise(log_weight, dim=0))


def average(values: Sequence[WeightedValue]) -> WeightedValue:
    """The mean of estimates that separate classifiers give from the same rollouts.

    What is told of each, such as its effective sample size, is averaged too (the exponent's
    smallest, H's longest and k̂'s largest are kept), so that ten collapsed weightings do not look
    like one that rests on ten rollouts. The standard error is None if any of theirs is.
    """
    if len(values) == 1:
        return values[0]
    count = len(values)
    influence = torch.stack([one.influence for one in values]).mean(0)
    known = all(one.mc_standard_error is not None for one in values)
    weights = torch.stack([one.log_weights for one in values])
    clipped = [one.clipped_share for one in values if one.clipped_share is not None]
    return WeightedValue(
        value=sum(one.value for one in values) / count,
        mc_standard_error=float(influence.square().sum().sqrt()) if known else None,
        log_weights=torch.logsumexp(weights, 0) - math.log(count),
        ess_by_step=torch.stack([one.ess_by_step for one in values]).mean(0),
        raw_ess=sum(one.raw_ess for one in values) / count,
        influence=influence,
        exponent=min((v.exponent for v in values if v.exponent is not None), default=None),
        first=max((v.first for v in values if v.first is not None), default=None),
        pareto_k=max((v.pareto_k for v in values if v.pareto_k is not None), default=None),
        clipped_share=sum(clipped) / count if clipped else None,
    )

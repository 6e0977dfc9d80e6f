"""A value function's errors on logged episodes, and the doubly robust estimates made of them.

With Q̂ a guess of the target's action value and V̂_t(s) = E_{a ~ π}[Q̂_t(s, a)], V̂_T = 0, let

    δ_t = r_t + γ (1 − terminated_t) V̂_{t+1}(s_{t+1}) − Q̂_t(s_t, a_t)

Then v(π) = E[V̂_0(s_0)] + Σ_t γ^t E_{d^π_t}[δ_t], whatever Q̂ is: the direct method plus the
expected errors under the target, which a weight takes from the log. The weight is a product of
policy ratios (Jiang and Li 2016), self-normalised at each step (Thomas and Brunskill 2016), or an
occupancy ratio. Summed by steps, these are the usual forms: ρ_t V̂_{t+1} of step t is the usual
+ρ_{t-1} V̂_t of the step after it.

In this form the convention for ragged episodes (`lfiw_ope.padding`) keeps what is good in it: a
step that was cut away takes δ_t with it, whose mean is near 0 at any state where Q̂ is near right,
so that where logs were cut matters as little as Q̂ is wrong.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lfiw_ope.errors import DataError, DivergedError
from lfiw_ope.intervals.sums import RatioSums
from lfiw_ope.weighted import LEAST_ESS_FOR_A_STANDARD_ERROR
from lfiw_ope.weights import effective_sample_size, require_finite


@dataclass(frozen=True)
class Terms:
    """What doubly robust estimates of one policy are made of.

    Attributes:
        initial: `[N]` float64, V̂_0(s_0) of each episode.
        residual: `[N, T]` float64, γ^t δ_t; 0 where no step was taken.
        log_weight: `[N, T]` float64, log of what meets the residual of step t, such as the product
            of ratios up to and including t; −∞ is a weight of 0. After a terminal state frozen.
        standing: `[N, T]` float64, what each episode counts at each step, of sum N; 0 where it is
            unobserved (`lfiw_ope.padding`).

    Raises:
        DataError: if shapes disagree.
        DivergedError: if a value or a residual is not finite, or a weight is NaN or infinite.
    """

    initial: Tensor
    residual: Tensor
    log_weight: Tensor
    standing: Tensor

    def __post_init__(self) -> None:
        shapes = [list(x.shape) for x in (self.residual, self.log_weight, self.standing)]
        if len({tuple(shape) for shape in shapes}) > 1 or self.residual.shape[:1] != (
            *self.initial.shape,
        ):
            raise DataError(
                f"Initial values have the shape {list(self.initial.shape)} and residuals, weights "
                f"and standings {shapes}; expected [N] and three times [N, T]."
            )
        advice = "the value function or the policy left the finite numbers at logged states"
        require_finite(self.initial, "initial values", advice)
        require_finite(self.residual, "temporal-difference errors", advice)
        met = (self.standing > 0) & (self.log_weight > -math.inf)
        weights = torch.where(met, self.log_weight, 0.0)
        require_finite(weights, "log-weights", advice)

    @property
    def direct(self) -> float:
        """The direct method: the mean of V̂_0(s_0)."""
        return float(self.initial.mean())

    @property
    def seen_log_weight(self) -> Tensor:
        """`[N, T]`, log of weights times standings, −∞ where a step is unobserved."""
        log_weight = torch.where(self.standing > 0, self.log_weight.double(), -math.inf)
        return log_weight + self.standing.log()

    @property
    def ess_by_step(self) -> Tensor:
        """`[T]`, of the weights times standings; 0 where none has any."""
        some = ~(self.seen_log_weight == -math.inf).all(0)
        return torch.where(some, effective_sample_size(self.seen_log_weight, dim=0), 0.0)


@dataclass(frozen=True, kw_only=True)
class CorrectedValue:
    """A direct method's value and what the log corrects it by.

    Attributes:
        value: the estimate.
        direct: the direct method's part of it; the rest is the correction.
        standard_error: from the sampling of episodes, the value function, the ratios and standings
            taken as given. None where fewer than `LEAST_ESS_FOR_A_STANDARD_ERROR` effective
            episodes carry the weights at some step.
        influence: `[N]`, what each episode adds to the estimate's deviation; the standard error is
            the root of the sum of their squares.
        ess_by_step: `[T]`, effective sample size of the weights over episodes; 0 at steps where
            none has any, at which nothing was corrected.
        sums: what the value is a function of.
    """

    value: float
    direct: float
    standard_error: float | None
    influence: Tensor
    ess_by_step: Tensor
    sums: RatioSums = field(repr=False)


def doubly_robust(terms: Terms) -> CorrectedValue:
    """DR: mean_i V̂_0(s_i0) + Σ_t mean_i ρ_it γ^t δ_it (Jiang and Li 2016).

    With known ratios ρ it is unbiased for any Q̂ that does not see the episodes it is used on. The
    mean at step t is over the episodes by their standing at t.

    Raises:
        DivergedError: if weights overflow.
    """
    share = terms.seen_log_weight.exp() / len(terms.initial)
    largest = float(terms.seen_log_weight.max())
    if not math.isfinite(float(share.max())):
        raise DivergedError(
            f"The weights of DR overflow: the largest has a logarithm of {largest:.0f}; use WDR."
        )
    term = share * terms.residual
    over = terms.standing / len(terms.initial)
    return corrected(terms.initial, term, over, terms.ess_by_step)


def weighted_doubly_robust(terms: Terms) -> CorrectedValue:
    """WDR: mean_i V̂_0(s_i0) + Σ_t Σ_i w_it γ^t δ_it, w_it = ρ_it / Σ_j ρ_jt.

    Thomas and Brunskill (2016), with weights, times standings, normalised at each step over the
    episodes that are observed there. Biased, and consistent. At a step where no episode has a
    weight above 0 nothing is known of δ_t and nothing is added: see `CorrectedValue.ess_by_step`.
    The standard error is the delta method's.
    """
    share = normalised(terms)
    return corrected(terms.initial, share * terms.residual, share, terms.ess_by_step)


def normalised(terms: Terms) -> Tensor:
    """`[N, T]`, weights that sum to 1 at each step, or to 0 where no episode has any."""
    log_weight = terms.seen_log_weight
    total = torch.logsumexp(log_weight, 0)
    return torch.where(total > -math.inf, (log_weight - total).exp(), 0.0)


def corrected(initial: Tensor, term: Tensor, over: Tensor, ess_by_step: Tensor) -> CorrectedValue:
    """The direct method and a correction, with the standard error of both together.

    Args:
        initial: `[N]`, V̂_0(s_0).
        term: `[N, K]`, what each episode adds to the correction's K parts.
        over: `[N, K]`, what it counts in each, of sum 1 (or 0, where none counts): a part is the
            ratio of the two's sums.
        ess_by_step: `[T]`, of the correction's weights.
    """
    n, direct = len(initial), float(initial.mean())
    whole = initial[:, None] / n
    sums = RatioSums.of(
        torch.cat((whole, term), 1), torch.cat((torch.full_like(whole, 1 / n), over), 1)
    )
    influence = torch.from_numpy(sums.influence) * math.sqrt(n / max(n - 1, 1))
    known = float(ess_by_step.min()) >= LEAST_ESS_FOR_A_STANDARD_ERROR
    return CorrectedValue(
        value=direct + float(term.sum()),
        direct=direct,
        standard_error=float(influence.square().sum().sqrt()) if known else None,
        influence=influence,
        ess_by_step=ess_by_step,
        sums=sums,
    )

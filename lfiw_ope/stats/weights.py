"""Importance weights from log-ratios: pure functions in log space, Pareto smoothing.

The log-ratio of step t of rollout i is ℓ_it = log p(s', r | s, a) / p_θ(s', r | s, a). Time is the
last axis, rollouts the one before it. After a rollout has ended its log-ratios are 0, so its weight
stays frozen and it stays in every later normalisation. Grover et al. (2019) give the trajectory,
first-H and stepwise forms, flattening and clipping; Robert and Casella (2004), section 3.3,
self-normalisation. The functions combine: what one gives, the next takes.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.core.errors import ConfigError, DivergedError
from lfiw_ope.core.runtime import needed
from lfiw_ope.core.validation import real, whole


def require_finite(
    log_weight: Tensor,
    what: str,
    advice: str = "the model or the classifier left the numbers it was trained on, so fit with "
    "more data or a lower learning rate",
) -> Tensor:
    """The argument, or an error: a weight that is not finite is never dropped in silence.

    Args:
        log_weight: of any shape.
        what: the entries are, for the message.
        advice: the message's second half: the likely cause, and what to do.

    Raises:
        DivergedError: if an entry is NaN or infinite; it says how many.
    """
    bad = int((~log_weight.isfinite()).sum())
    if bad:
        raise DivergedError(f"{bad} of {log_weight.numel()} {what} are not finite; {advice}.")
    return log_weight


def require_weights(log_weight: Tensor, what: str) -> Tensor:
    """The argument, or an error: −∞ is a weight of 0, NaN and ∞ are none.

    Raises:
        DivergedError: if an entry is NaN or ∞; it says how many.
    """
    require_finite(log_weight.clamp_min(torch.finfo(log_weight.dtype).min), what)
    return log_weight


def cumulate(log_ratio: Tensor, first: int | None = None) -> Tensor:
    """log W_it = Σ_{u ≤ t, u < H} ℓ_iu, `[..., n, T] -> [..., n, T]`.

    Raises:
        ConfigError: if H is below 0.
    """
    if first is not None:
        whole("first", first, least=0)
        step = torch.arange(log_ratio.shape[-1], device=log_ratio.device)
        log_ratio = torch.where(step < first, log_ratio, 0.0)
    # float64: float32 running sums of a few hundred steps lose the digits that weights differ in.
    return log_ratio.double().cumsum(-1)


def self_normalise(log_weight: Tensor, dim: int = -1) -> Tensor:
    """log of W_i / Σ_j W_j along `dim`, same shape."""
    return log_weight - torch.logsumexp(log_weight, dim, keepdim=True)


def effective_sample_size(log_weight: Tensor, dim: int = -1) -> Tensor:
    """(Σ W)² / Σ W² along `dim`: 1 when one rollout has all the weight, n when all are equal.

    Kong (1992). It does not say that weights are right, only how many rollouts carry them: none, 0,
    where all weights are 0.
    """
    total = torch.logsumexp(log_weight, dim)
    size = torch.exp(2.0 * total - torch.logsumexp(2.0 * log_weight, dim))
    return torch.where(total == -torch.inf, 0.0, size)


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


def flatten(log_weight: Tensor, exponent: float) -> Tensor:
    """log of w^α: 1 leaves weights as they are, 0 makes them equal (Grover et al. 2019).

    A weight of 0 stays one at any α.

    Raises:
        ConfigError: if α is below 0.
        DivergedError: if a log-weight is NaN or ∞.
    """
    exponent = real("The exponent", exponent, least=0.0)
    return _power(require_weights(log_weight, "log-weights"), exponent)


def _power(log_weight: Tensor, exponent: Tensor | float) -> Tensor:
    return torch.where(log_weight == -torch.inf, log_weight, exponent * log_weight)


def clip(log_weight: Tensor, lowest: float, highest: float) -> Tensor:
    """log of min(max(w, lowest), highest). Applied to a step's ratios or to products alike.

    Raises:
        ConfigError: if the bounds are not in order, or the higher is no positive number.
        DivergedError: if a log-weight is NaN or ∞: clipping must not hide that.
    """
    check_clip(lowest, highest)
    require_weights(log_weight, "log-weights")
    low = math.log(lowest) if lowest > 0 else -math.inf
    return log_weight.clamp(low, math.log(highest) if math.isfinite(highest) else math.inf)


def check_clip(lowest: float, highest: float) -> None:
    """Bounds of weights: 0 and infinity leave a side open.

    Raises:
        ConfigError: if they are not in order, or the higher is no positive number.
    """
    real("The lowest weight", lowest, least=0.0)
    real("The highest weight", highest, least=0.0)
    if not highest >= max(lowest, 1e-300):
        raise ConfigError(
            f"Weights cannot be clipped to [{lowest!r}, {highest!r}]; the highest must be positive "
            "and no less than the lowest."
        )


class Tempered(NamedTuple):
    """Weights that keep a wanted effective sample size."""

    log_weight: Tensor  # of w^α, the argument's shape
    exponent: Tensor  # α in [0, 1], the argument's shape without `dim`


BISECTIONS = 60
"""Halvings of [0, 1]: α is known to 1e-18."""


def temper(log_weight: Tensor, ess: float, dim: int = -1) -> Tempered:
    """w^α with the largest α in [0, 1] whose effective sample size along `dim` is `ess` or more.

    ESS(α) never rises with α: d log ESS / dα = 2 (K'(α) − K'(2α)) ≤ 0, with K(α) = log Σ w^α, which
    is convex. So α is found by bisection. It is 1 where the weights keep `ess` as they are, and 0,
    all weights equal, where `ess` is their number. The exponent depends on the weights: the
    estimate is biased towards the plain model, as with any flattening (Owen 2013, chapter 9).

    Args:
        log_weight: of any shape; weights of 0 stay 0, and where all others are equal and still too
            few, α is 0.
        ess: wanted, between 1 and the number of weights.
        dim: the axis of the rollouts.

    Raises:
        ConfigError: if `ess` is not in that range.
        DivergedError: if a log-weight is NaN or ∞.
    """
    require_weights(log_weight, "log-weights")
    count = log_weight.shape[dim]
    real("The wanted effective sample size", ess, least=1.0, most=float(count))
    largest = log_weight.amax(dim, keepdim=True)
    centred = (log_weight - torch.where(largest == -torch.inf, 0.0, largest)).double()
    low = torch.zeros_like(centred.select(dim, 0)).unsqueeze(dim)
    high = torch.ones_like(low)

    def enough(exponent: Tensor) -> Tensor:
        return effective_sample_size(_power(centred, exponent), dim).unsqueeze(dim) >= ess

    untouched = enough(high)
    # Where all of them are wanted, rounding would leave an α just above 0.
    for _ in range(BISECTIONS if ess < count else 0):
        middle = 0.5 * (low + high)
        keeps = enough(middle)
        low, high = torch.where(keeps, middle, low), torch.where(keeps, high, middle)
    exponent = torch.where(untouched, 1.0, low)
    return Tempered(_power(log_weight, exponent), exponent.squeeze(dim))


def longest_first(log_ratio: Tensor, ess: float) -> Tensor:
    """The longest H whose first-H weights keep an effective sample size, `[..., n, T] -> [...]`.

    Keep: the products up to every h ≤ H have an effective sample size of `ess` or more. It looks at
    weights alone, never at rewards or a true value.

    Args:
        log_ratio: `[..., n, T]`.
        ess: wanted, between 1 and n.

    Raises:
        ConfigError: if `ess` is not in that range.
        DivergedError: if a log-ratio is not finite.
    """
    require_finite(log_ratio, "log-ratios")
    real("The wanted effective sample size", ess, least=1.0, most=float(log_ratio.shape[-2]))
    # A rounding error must not cost equal weights their n-th rollout.
    keeps = effective_sample_size(cumulate(log_ratio), dim=-2) >= ess * (1.0 - 1e-12)
    return keeps.long().cumprod(-1).sum(-1)


LEAST_WEIGHTS = 25
"""Fewer have a tail of less than five, which nothing can be fitted to."""


MOST_SHAPE = 0.7
"""k̂ above which the paper calls an estimate unreliable."""


class Smoothed(NamedTuple):
    """Smoothed weights, and how heavy their tail was before."""

    log_weight: Tensor  # [n], as large as before in sum
    shape: float | None  # k̂; None where no tail could be fitted


def check_smoothing(count: int) -> Any:
    """That so many weights can be smoothed; arviz-stats' functions on arrays.

    Raises:
        ConfigError: if there are fewer than `LEAST_WEIGHTS` of them.
        MissingDependencyError: if arviz-stats is not installed.
    """
    if count < LEAST_WEIGHTS:
        raise ConfigError(
            f"{count} weights have no tail that could be fitted; Pareto smoothing needs "
            f"{LEAST_WEIGHTS} or more, so simulate more rollouts."
        )
    with needed("Pareto smoothing needs arviz-stats", extra="pareto"):
        from arviz_stats.base import array_stats
    return array_stats


def pareto_smooth(log_weight: Tensor) -> Smoothed:
    """Replace the largest weights by quantiles of a generalised Pareto fitted to them.

    PSIS (Vehtari, Simpson, Gelman, Yao and Gabry, JMLR 2024, arXiv 1507.02646). k̂ is the tail's
    shape: with k the mean of the weights has a finite variance below 1/2 and exists below 1; see
    `MOST_SHAPE`.

    Weights whose tail no generalised Pareto could be fitted to stay as they are, without a k̂: those
    of the tail are all the same or mostly so, or one is beyond all proportion to the others. A
    weight of 0 is none: it stays, and fewer than `LEAST_WEIGHTS` others are left as they are.

    Args:
        log_weight: `[n]`; their sum is kept, so that unnormalised weights stay unnormalised.

    Raises:
        ConfigError: if there are fewer than `LEAST_WEIGHTS` of them.
        DivergedError: if one is NaN or ∞.
        MissingDependencyError: if arviz-stats is not installed.
    """
    array_stats = check_smoothing(len(log_weight))
    every = require_weights(log_weight, "log-weights").double().cpu().numpy()
    carried = every > -np.inf
    values = every[carried]
    if len(values) < LEAST_WEIGHTS:
        return Smoothed(log_weight, None)
    total = np.logaddexp.reduce(values)
    try:
        # It takes log-likelihoods of left-out points, whose negatives are the log-weights.
        with np.errstate(all="ignore"):  # what is not finite is looked for below
            smoothed, shape = array_stats.psislw(total - values)
    except ValueError as error:
        if "the same" not in str(error):
            raise
        return Smoothed(log_weight, None)  # equal weights are as smooth as can be
    # The fit breaks down where a few weights are all there is, or many of the tail are tied.
    if not (np.isfinite(smoothed).all() and np.isfinite(shape)):
        return Smoothed(log_weight, None)
    found = every.copy()  # the log-weights' own memory, where they are float64
    found[carried] = smoothed + total
    kept = torch.from_numpy(found).to(log_weight)
    return Smoothed(kept, float(shape))

"""Intervals of estimates over logged episodes: bootstrap and Student-t."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from lfiw_ope.intervals.config import IntervalConfig
from lfiw_ope.intervals.record import Interval, student_t
from lfiw_ope.intervals.sums import Floats, RatioSums
from lfiw_ope.seeding import numpy_generator

NUMBERS_AT_ONCE = 1 << 22
"""Counts of episodes in bootstrap samples that are held together: 32 MB."""


class Told(NamedTuple):
    """Intervals, rising in level, or why there are none."""

    intervals: tuple[Interval, ...]
    no_interval: str | None


def no_interval(reason: str) -> Told:
    """None, and why."""
    return Told((), reason)


NOT_WANTED = no_interval("The interval's method is 'none'.")

TOO_FEW_CARRY = no_interval(
    "Too few episodes carry the weights: what the others would have told does not show in any "
    "resampling of them."
)


def episode_intervals(
    sums: RatioSums,
    *,
    standard_error: float | None,
    config: IntervalConfig,
    seed: int,
) -> Told:
    """Of a function of sums over episodes, by "bca", "percentile" or "t".

    One set of bootstrap samples serves every level, so that intervals are nested, and is the same
    for every policy of a fit.

    Args:
        sums: what the estimate is made of.
        standard_error: of the estimate; None where too few episodes carry the weights, and then
            there is no interval either: resampling cannot show what none of the episodes has.
        config: which.
        seed: of the bootstrap samples.
    """
    if config.method == "none":
        return NOT_WANTED
    if standard_error is None:
        return TOO_FEW_CARRY
    if config.method == "t":
        freedom = degrees_of_freedom(sums.influence)
        return Told(student_t(sums.value, standard_error, freedom, levels=config.levels), None)
    resampled = bootstrap(sums, config.resamples, seed)
    if config.method == "bca":
        ends = [bca_ends(resampled, sums, level) for level in config.levels]
    else:
        ends = [_ends(resampled, 0.5 - level / 2, 0.5 + level / 2) for level in config.levels]
    found = (
        Interval(level, *at, config.method) for level, at in zip(config.levels, ends, strict=True)
    )
    return Told(tuple(found), None)


def degrees_of_freedom(influence: Floats) -> float:
    """ν of the standard error: those of the χ² that varies as much as the squared error does.

    A variance estimated from N terms of kurtosis κ has itself a relative variance of about
    (κ − 1) / N, and that of χ²_ν / ν is 2 / ν (Satterthwaite 1946), so

        ν = 2 N / (κ − 1),   κ = N Σ u⁴ / (Σ u²)²

    N for normal terms, and never more than N − 1; where a few heavy weights carry the estimate,
    about as many as they are, down to 2. Weighted estimates need it: on test-beds with targets far
    from the behaviour, an interval with ν = N − 1 covered less than it says.

    Args:
        influence: `[N]`, u, what each episode adds to the estimate's deviation.
    """
    square = np.square(influence)
    n, total = len(influence), float(square.sum())
    if total == 0.0:
        return n - 1.0  # every episode says the same
    excess = float(np.square(square).sum()) / total**2 - 1.0 / n
    return min(2.0 / excess, n - 1.0) if excess > 0 else n - 1.0


def bootstrap(sums: RatioSums, resamples: int, seed: int) -> Floats:
    """The estimate `[resamples]` on episodes drawn with replacement, as many as there are."""
    count = len(sums)

    def estimate(drawn: np.ndarray[tuple[int, ...], np.dtype[np.int64]], axis: int) -> Floats:  # noqa: ARG001
        # How often each episode was drawn says all, and takes sums by one product of matrices.
        rows = drawn.reshape(-1, count)
        places = rows + count * np.arange(len(rows))[:, None]
        counts = np.bincount(places.ravel(), minlength=rows.size).reshape(rows.shape)
        return sums.counted(counts.astype(np.float64)).reshape(drawn.shape[:-1])

    found = stats.bootstrap(
        (np.arange(count),),
        estimate,
        n_resamples=resamples,
        batch=max(1, NUMBERS_AT_ONCE // count),
        vectorized=True,
        method="percentile",
        rng=numpy_generator(seed, "interval"),
    )
    distribution: Floats = found.bootstrap_distribution
    return distribution


def bca_ends(resampled: Floats, sums: RatioSums, level: float) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap's ends (Efron 1987).

    Quantiles at Φ(z_0 + (z_0 + z) / (1 − a (z_0 + z))), z those of the level, z_0 the normal
    quantile of the share of resampled estimates below the estimate, and the acceleration a the
    jackknife's skewness, Σ d³ / 6 (Σ d²)^{3/2}, d from the mean of the estimates without one
    episode to each. scipy's own would make N samples of N − 1 episodes for every level; here sums
    without one episode are those of all less its own.
    """
    left_out = sums.without_each()
    deviation = left_out.mean() - left_out
    spread = float(np.square(deviation).sum())
    if spread == 0.0:
        return sums.value, sums.value  # every episode says the same
    acceleration = float((deviation**3).sum()) / (6.0 * spread**1.5)
    value = sums.value
    below = float(((resampled < value).mean() + (resampled <= value).mean()) / 2)
    edge = 0.5 / len(resampled)  # all on one side is no certainty
    bias = float(stats.norm.ppf(min(max(below, edge), 1.0 - edge)))
    tails = []
    for z in stats.norm.ppf((0.5 - level / 2, 0.5 + level / 2)).tolist():
        shrunk = 1.0 - acceleration * (bias + z)
        # Beyond a pole the formula turns round; the tail is then all there is.
        moved = bias + (bias + z) / shrunk if shrunk > 0 else math.copysign(math.inf, z)
        tails.append(float(stats.norm.cdf(moved)))
    return _ends(resampled, *tails)


def _ends(resampled: Floats, low: float, high: float) -> tuple[float, float]:
    quantiles: Sequence[float] = np.quantile(resampled, (low, high)).tolist()
    return quantiles[0], quantiles[1]

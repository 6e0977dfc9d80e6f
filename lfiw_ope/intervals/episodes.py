"""Intervals of estimates over logged episodes: bootstrap and Student-t."""

from typing import Any, NamedTuple

import numpy as np

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
    ends = bootstrap_ends(sums, config, seed)
    if ends is None:
        return no_interval(
            "The estimates on all bootstrap samples lie on one side of the estimate: they say "
            "nothing of its spread."
        )
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


def bootstrap_ends(
    sums: RatioSums, config: IntervalConfig, seed: int
) -> list[tuple[float, float]] | None:
    """The ends at each level, by scipy, from one set of samples of episodes with replacement.

    BCa's jackknife takes N samples of N − 1 episodes, at every level anew: at N = 10 000 that is
    seconds, where percentiles take tenths.

    Args:
        sums: what the estimate is made of.
        config: "percentile" or "bca", the levels, and how many samples.
        seed: of the samples.

    Returns:
        None where BCa has no ends, as all samples' estimates are below the estimate or above it.
    """
    count, value = len(sums), sums.value

    def estimate(drawn: np.ndarray[tuple[int, ...], np.dtype[np.int64]], axis: int) -> Floats:  # noqa: ARG001
        # How often each episode was drawn says all, and takes sums by one product of matrices.
        rows = drawn.reshape(-1, drawn.shape[-1])
        places = rows + count * np.arange(len(rows))[:, None]
        counts = np.bincount(places.ravel(), minlength=len(rows) * count).reshape(-1, count)
        return sums.counted(counts.astype(np.float64)).reshape(drawn.shape[:-1])

    from scipy import stats  # as long to import as all of this package

    def resampled(method: str, level: float, **given: Any) -> Any:
        return stats.bootstrap(
            (np.arange(count),),
            estimate,
            batch=max(1, NUMBERS_AT_ONCE // count),
            vectorized=True,
            confidence_level=level,
            method=method,
            **given,
        )

    rng = numpy_generator(seed, "interval")
    found = resampled("percentile", config.levels[0], n_resamples=config.resamples, rng=rng)
    distribution = found.bootstrap_distribution
    if (distribution == distribution[0]).all():
        return [(value, value)] * len(config.levels)  # every episode says the same
    if config.method == "bca" and not distribution.min() <= value <= distribution.max():
        return None
    ends = []
    for level in config.levels:
        told = resampled(config.method, level, n_resamples=0, bootstrap_result=found)
        ends.append((float(told.confidence_interval.low), float(told.confidence_interval.high)))
    return ends

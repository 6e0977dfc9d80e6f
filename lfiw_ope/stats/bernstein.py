"""Intervals that hold for any number of episodes: empirical Bernstein bounds.

For n independent Y in [0, c], with probability 1 − δ (Maurer and Pontil 2009, theorem 4),

    E[Y] ≥ mean(Y) − √(2 V log(2 / δ) / n) − 7 c log(2 / δ) / (3 (n − 1)),

V their sample variance, n − 1 in it. Of a return in a known range this bounds the behaviour's
value. A weighted return has no upper end, but what a target's weight W loses by being cut off at c
can only lower its mean, so that the bound holds of Y = min(W x, c), x ≥ 0. As E[W] = 1,

    v ≥ low + bound of E[W (G − low)],   v ≤ high − bound of E[W (high − G)],

either with half of 1 − level, and neither beyond the range. c is chosen on a part of the episodes
by the bound that it predicts for the others, and used on those alone (Thomas, Theocharous and
Ghavamzadeh 2015, "High-confidence off-policy evaluation").
"""

import math

import numpy as np
from torch import Tensor

from lfiw_ope.core.errors import DataError
from lfiw_ope.core.seeding import numpy_generator
from lfiw_ope.stats.intervals import Floats, Interval, IntervalConfig, Told, no_interval

NO_GUARANTEE = (
    "A bound for any number of episodes needs whole episodes and likelihoods that were logged; "
    "here episodes were cut short or the behaviour was cloned."
)

CONTRADICTION = (
    "Weighted returns are bounded below by more than they are above: the likelihoods that were "
    "logged, or return_range, are wrong."
)

LARGEST_WEIGHT = 1e100
"""As E[W] = 1, a weight is as large as w with a probability of 1 / w at most (Markov)."""

SHARE_FOR_CUTTING = 0.2
"""Of the episodes, those that c is chosen on; the paper's twentieth has too few of a small log."""

LEAST_EPISODES = 10
"""So that there are two to choose c on, and eight to bound with."""

CUTS = 40
"""Values of c that are tried, evenly spread in the logarithm over what the products come to."""


def check_returns(returns: Tensor, config: IntervalConfig) -> None:
    """That returns `[N]` lie in the range that was given, where one was.

    Raises:
        DataError: if one does not.
    """
    if config.return_range is None:
        return
    low, high = config.return_range
    found = float(returns.min()), float(returns.max())
    slack = 1e-6 * (high - low)  # rewards were logged as float32
    if found[0] < low - slack or found[1] > high + slack:
        raise DataError(
            f"Logged returns go from {found[0]:.6g} to {found[1]:.6g}, and return_range is "
            f"{config.return_range}: give the lowest and the highest discounted return that "
            "there can be."
        )


def lower_bound(values: Floats, most: float, risk: float) -> float:
    """Of E[Y], from independent Y `[n]` in [0, most], missed with probability `risk` at most."""
    n, log_term = len(values), math.log(2.0 / risk)
    noise = math.sqrt(2.0 * float(values.var(ddof=1)) * log_term / n)
    return float(values.mean()) - noise - 7.0 * most * log_term / (3.0 * (n - 1))


def bernstein(returns: Floats, config: IntervalConfig) -> Told:
    """Of the mean of returns `[N]` in the configuration's range."""
    low, high = _range(config)
    width = high - low
    above = np.clip(returns - low, 0.0, width)
    ends = []
    for level in config.levels:
        risk = (1.0 - level) / 2
        ends.append((lower_bound(above, width, risk), lower_bound(width - above, width, risk)))
    return _told(config, ends)


def weighted_bernstein(weights: Floats, returns: Floats, config: IntervalConfig, seed: int) -> Told:
    """Of a target's value, from weights of whole episodes `[N]` and their returns `[N]`.

    One c, the best of the highest level, serves all of them, so that intervals are nested.
    """
    if len(weights) < LEAST_EPISODES:
        return no_interval(
            f"{len(weights)} episodes are too few for a bound on weighted returns, which needs "
            f"{LEAST_EPISODES}."
        )
    if not weights.max() <= LARGEST_WEIGHT:
        return no_interval(CONTRADICTION)
    low, high = _range(config)
    order = numpy_generator(seed, "interval").permutation(len(weights))
    choosing, bounding = np.split(order, [max(2, round(SHARE_FOR_CUTTING * len(order)))])
    above = np.clip(returns - low, 0.0, high - low)
    risk, sides = (1.0 - config.levels[-1]) / 2, []
    for part in (weights * above, weights * (high - low - above)):
        cut = best_cut(part[choosing], len(bounding), risk)
        sides.append((np.minimum(part[bounding], cut), cut))
    return _told(
        config,
        [
            (
                lower_bound(*sides[0], (1.0 - level) / 2),
                lower_bound(*sides[1], (1.0 - level) / 2),
            )
            for level in config.levels
        ],
    )


def best_cut(values: Floats, count: int, risk: float) -> float:
    """The c under which `count` more such values, 0 or above, would have the highest bound."""
    largest = float(values.max())
    if largest == 0.0:
        return 1.0  # whatever: nothing is known, and the bound is below 0
    log_term = math.log(2.0 / risk)
    cuts = largest * np.geomspace(1e-3, 2.0, CUTS)
    cut = np.minimum(values, cuts[:, None])
    noise = np.sqrt(2.0 * cut.var(1, ddof=1) * log_term / count)
    predicted = cut.mean(1) - noise - 7.0 * cuts * log_term / (3.0 * (count - 1))
    return float(cuts[predicted.argmax()])


def _range(config: IntervalConfig) -> tuple[float, float]:
    assert config.return_range is not None
    return config.return_range


def _told(config: IntervalConfig, bounds: list[tuple[float, float]]) -> Told:
    """From bounds of E[· (G − low)] and E[· (high − G)], of each level."""
    low, high = _range(config)
    if sum(max(end, 0.0) for end in bounds[-1]) > high - low:
        return no_interval(CONTRADICTION)
    found = []
    for level, (above, below) in zip(config.levels, bounds, strict=True):
        ends = (low + min(max(above, 0.0), high - low), high - min(max(below, 0.0), high - low))
        # At a low level one bound may be wrong: then they may cross, and say so by one point.
        middle = sum(ends) / 2
        found.append(Interval(level, min(ends[0], middle), max(ends[1], middle), "bernstein"))
    return Told(tuple(found), None)

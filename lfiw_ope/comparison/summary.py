"""Metrics of each estimator over policies and seeds, with bootstrap intervals over both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lfiw_ope import metrics as of_lists
from lfiw_ope.checks import choice, real, whole
from lfiw_ope.comparison.measures import METRICS, Metric, Numbers, Sample, Table, answered
from lfiw_ope.comparison.rows import Row
from lfiw_ope.errors import ConfigError
from lfiw_ope.seeding import numpy_generator

MOST_NUMBERS = 1 << 22
"""Numbers of resamples, times policies squared where pairs are looked at, that are held at once."""

LEAST_DEFINED = 0.5
"""Share of the resamples in which a metric has to be defined for an interval."""


@dataclass(frozen=True)
class Score:
    """One metric of one estimator.

    Attributes:
        estimator: its name.
        metric: its name.
        value: over policies, averaged over seeds; None where it is not defined.
        low, high: of the bootstrap's percentile interval; None without one, as where every
            resample says the same.
        policies: that it is over: those that were answered at every seed that answered any.
        seeds: that it is over.
    """

    estimator: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    policies: int
    seeds: int

    def __str__(self) -> str:
        value = "undefined" if self.value is None else f"{self.value:.4g}"
        known = self.low is not None and self.high is not None
        interval = f" [{self.low:.4g}, {self.high:.4g}]" if known else ""
        return f"{self.estimator}: {self.metric} {value}{interval}"


def summarise(
    table: Table, names: Sequence[str] | None, *, resamples: int, level: float, seed: int
) -> tuple[Score, ...]:
    """Every metric of every estimator; see `lfiw_ope.comparison.result.Comparison.summary`."""
    whole("resamples", resamples, least=0)
    whole("k", table.k, least=1)
    real("threshold", table.threshold, least=-math.inf)
    level = real("level", level, least=1e-6, most=1 - 1e-6)
    true = any(row.truth is not None for row in table.rows)
    if names is None:
        names = [name for name, metric in METRICS.items() if true or not metric.needs_truth]
    for name in names:
        choice("A metric", name, tuple(METRICS))
        if METRICS[name].needs_truth and not true:
            raise ConfigError(
                f"{name} needs true values, and none were given; give `truth`, or ask for "
                "'mean value' and 'seed spread'."
            )
    scores = []
    for estimator in dict.fromkeys(row.estimator for row in table.rows):
        rows = [row for row in table.rows if row.estimator == estimator]
        known = answered(rows, with_truth=False), answered(rows, with_truth=True)
        for name in names:
            sample = known[METRICS[name].needs_truth]
            value, low, high = _interval(METRICS[name], sample, table, resamples, level, seed)
            counts = sample.value.shape[::-1]
            scores.append(Score(estimator, name, value, low, high, *counts))
    return tuple(scores)


def _interval(
    metric: Metric, sample: Sample, table: Table, resamples: int, level: float, seed: int
) -> tuple[float | None, float | None, float | None]:
    seeds, policies = sample.value.shape
    if not seeds or not policies:
        return None, None, None
    value = float(metric.of(sample, table))
    if not np.isfinite(value):
        return None, None, None
    if not resamples or seeds * policies == 1:
        return value, None, None
    generator, found = numpy_generator(seed, "comparison", "bootstrap"), []
    size = seeds * policies * (policies if metric.pairs else 1)
    at_once = max(1, MOST_NUMBERS // size)
    for begun in range(0, resamples, at_once):
        count = min(at_once, resamples - begun)
        chosen = generator.integers(seeds, size=(count, seeds))
        if not metric.over_seeds:
            chosen = np.broadcast_to(np.arange(seeds), (count, seeds))
        taken = generator.integers(policies, size=(count, policies))
        found.append(metric.of(sample.take(chosen, taken), table))
    low, high = percentile_interval(np.concatenate(found), level)
    return value, low, high


def percentile_interval(resampled: Numbers, level: float) -> tuple[float | None, float | None]:
    """Ends of the bootstrap's percentile interval `[B]`; None without one.

    There is none where too few resamples are defined, and where all say the same: those do not
    tell of other policies.
    """
    defined = resampled[np.isfinite(resampled)]
    if len(defined) < max(1.0, LEAST_DEFINED * len(resampled)) or np.isclose(
        defined.min(), defined.max(), 1e-9, 0
    ):
        return None, None
    low, high = np.quantile(defined, (0.5 - level / 2, 0.5 + level / 2))
    return float(low), float(high)


def agreement(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Spearman's ρ of each two estimators' values, averaged over seeds, where both have some.

    None where it is not defined: fewer than two policies, or values that are all the same.
    """
    means: dict[str, dict[str, float]] = {}
    for row in rows:
        means.setdefault(row.estimator, {})
    for name, of in means.items():
        mine = [row for row in rows if row.estimator == name and row.answer is not None]
        for policy in dict.fromkeys(row.policy for row in mine):
            of[policy] = float(np.mean([row.answer for row in mine if row.policy == policy]))
    return {one: {other: _rank(means[one], means[other]) for other in means} for one in means}


def _rank(one: dict[str, float], other: dict[str, float]) -> float | None:
    both = [policy for policy in one if policy in other]
    if not both:
        return None
    found = of_lists.spearman([one[p] for p in both], [other[p] for p in both])
    return float(found) if np.isfinite(found) else None

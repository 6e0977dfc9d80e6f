"""Metrics of each estimator over policies and seeds, with bootstrap intervals over both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope import metrics as of_lists
from lfiw_ope.checks import choice, real, whole
from lfiw_ope.comparison.rows import Row
from lfiw_ope.errors import ConfigError
from lfiw_ope.seeding import numpy_generator

Numbers = NDArray[np.float64]

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
        low, high: of the bootstrap's percentile interval; None without one.
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


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows, and what metrics are told besides them.

    Attributes:
        rows: of every estimator.
        behaviour: the log's mean return.
        k: of regret, precision and Sharpe ratio.
        threshold: of type I and II errors.
    """

    rows: Sequence[Row]
    behaviour: float
    k: int
    threshold: float


@dataclass(frozen=True)
class Sample:
    """Answers of one estimator, or resamples of them.

    Attributes:
        value: `[..., seeds, policies]`
        truth: likewise; NaN where it is not known.
        low, high: likewise; NaN where there is no interval.
    """

    value: Numbers
    truth: Numbers
    low: Numbers
    high: Numbers

    def take(self, seeds: NDArray[np.int64], policies: NDArray[np.int64]) -> "Sample":
        """Resamples: of `[B, seeds]` and `[B, policies]` indices."""
        at = (seeds[:, :, None], policies[:, None, :])
        return Sample(self.value[at], self.truth[at], self.low[at], self.high[at])


@dataclass(frozen=True)
class Metric:
    """How a metric is had from answers.

    Attributes:
        of: `[..., seeds, policies]` to `[...]`.
        needs_truth: whether true values are wanted.
        pairs: whether it takes numbers for each pair of policies.
        over_seeds: whether seeds are resampled. A spread over seeds is not: a seed that is drawn
            twice has none.
    """

    of: Callable[[Sample, Table], Any]
    needs_truth: bool = True
    pairs: bool = False
    over_seeds: bool = True


def _by_seed(function: Callable[..., Any], *names: str) -> Callable[[Sample, Table], Any]:
    """A metric of lists, at each seed, averaged over the seeds at which it is defined."""

    def of(sample: Sample, table: Table) -> Any:
        settings = {name: getattr(table, name) for name in names}
        return _mean(function(sample.value, sample.truth, **settings))

    return of


def _mean(values: Any) -> Any:
    """Over the last axis, of what is not NaN; NaN where all is."""
    known = np.isfinite(values)
    count = known.sum(-1)
    return np.where(known, values, 0.0).sum(-1) / np.where(count > 0, count, np.nan)


def _flat(values: Numbers) -> Numbers:
    return values.reshape(*values.shape[:-2], -1)


def _coverage(sample: Sample, table: Table) -> Any:  # noqa: ARG001
    holds = (sample.low <= sample.truth) & (sample.truth <= sample.high)
    known = np.isfinite(sample.low) & np.isfinite(sample.high)
    return _mean(_flat(np.where(known, holds, np.nan)))


def _width(sample: Sample, table: Table) -> Any:  # noqa: ARG001
    return _mean(_flat(sample.high - sample.low))


def _mean_value(sample: Sample, table: Table) -> Any:  # noqa: ARG001
    return sample.value.mean((-1, -2))


def _seed_spread(sample: Sample, table: Table) -> Any:  # noqa: ARG001
    if sample.value.shape[-2] < 2:
        return np.full(sample.value.shape[:-2], np.nan)
    return sample.value.std(-2, ddof=1).mean(-1)


def _lower_bound_error(sample: Sample, table: Table) -> Any:
    """Type I by lower ends of intervals, at the seeds where every policy has one."""
    known = np.isfinite(sample.low)
    low = np.where(known, sample.low, 0.0)
    found = of_lists.type_one_error(low, sample.truth, table.threshold)
    return _mean(np.where(known.all(-1), found, np.nan))


METRICS: dict[str, Metric] = {
    "absolute error": Metric(_by_seed(of_lists.absolute_error)),
    "relative error": Metric(_by_seed(of_lists.relative_error)),
    "range-normalised error": Metric(_by_seed(of_lists.range_normalised_error)),
    "RMSE": Metric(_by_seed(of_lists.root_mean_squared_error)),
    "Spearman": Metric(_by_seed(of_lists.spearman)),
    "Kendall": Metric(_by_seed(of_lists.kendall), pairs=True),
    "regret@k": Metric(_by_seed(of_lists.regret_at_k, "k")),
    "normalised regret@k": Metric(_by_seed(of_lists.normalised_regret_at_k, "k")),
    "precision@k": Metric(_by_seed(of_lists.precision_at_k, "k")),
    "type I error": Metric(_by_seed(of_lists.type_one_error, "threshold")),
    "type II error": Metric(_by_seed(of_lists.type_two_error, "threshold")),
    "type I error by lower bound": Metric(_lower_bound_error),
    "Sharpe ratio@k": Metric(_by_seed(of_lists.sharpe_ratio_at_k, "k", "behaviour")),
    "coverage": Metric(_coverage),
    "interval width": Metric(_width, needs_truth=False),
    "mean value": Metric(_mean_value, needs_truth=False),
    "seed spread": Metric(_seed_spread, needs_truth=False, over_seeds=False),
}
"""By name. "coverage" is the share of intervals that hold the true value, "seed spread" the standard
deviation over seeds averaged over policies; `lfiw_ope.metrics` has the others."""


def summarise(
    table: Table, names: Sequence[str] | None, *, resamples: int, level: float, seed: int
) -> tuple[Score, ...]:
    """Every metric of every estimator; see `lfiw_ope.comparison.result.Comparison.summary`."""
    whole("resamples", resamples, least=0)
    whole("k", table.k, least=1)
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


def answered(rows: Sequence[Row], *, with_truth: bool) -> Sample:
    """Policies that one estimator answered at every seed at which it answered any."""
    cells = {
        (row.seed, row.policy): row
        for row in rows
        if row.value is not None and (row.truth is not None or not with_truth)
    }
    seeds = list(dict.fromkeys(seed for seed, _ in cells))
    every = dict.fromkeys(policy for _, policy in cells)
    policies = [policy for policy in every if all((seed, policy) in cells for seed in seeds)]
    grid = [[cells[seed, policy] for policy in policies] for seed in seeds]

    def numbers(name: str) -> Numbers:
        found = [[getattr(row, name) for row in line] for line in grid]
        return np.array(found, np.float64).reshape(len(seeds), len(policies))

    return Sample(numbers("value"), numbers("truth"), numbers("low"), numbers("high"))


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
    every = np.concatenate(found)
    defined = every[np.isfinite(every)]
    if len(defined) < LEAST_DEFINED * resamples:
        return value, None, None
    low, high = np.quantile(defined, (0.5 - level / 2, 0.5 + level / 2))
    return value, float(low), float(high)


def agreement(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Spearman's ρ of each two estimators' values, averaged over seeds, where both have some.

    None where it is not defined: fewer than two policies, or values that are all the same.
    """
    means: dict[str, dict[str, float]] = {}
    for row in rows:
        means.setdefault(row.estimator, {})
    for name, of in means.items():
        mine = [row for row in rows if row.estimator == name and row.value is not None]
        for policy in dict.fromkeys(row.policy for row in mine):
            of[policy] = float(np.mean([row.value for row in mine if row.policy == policy]))
    return {one: {other: _rank(means[one], means[other]) for other in means} for one in means}


def _rank(one: dict[str, float], other: dict[str, float]) -> float | None:
    both = [policy for policy in one if policy in other]
    if not both:
        return None
    found = of_lists.spearman([one[p] for p in both], [other[p] for p in both])
    return float(found) if np.isfinite(found) else None

"""What is measured of one estimator's answers: metrics by name, each over policies and seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope import metrics as of_lists
from lfiw_ope.comparison.rows import Row

Numbers = NDArray[np.float64]


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


def answered(rows: Sequence[Row], *, with_truth: bool) -> Sample:
    """Policies that one estimator answered at every seed at which it answered any."""
    cells = {
        (row.seed, row.policy): row
        for row in rows
        if row.answer is not None and (row.truth is not None or not with_truth)
    }
    seeds = list(dict.fromkeys(seed for seed, _ in cells))
    every = dict.fromkeys(policy for _, policy in cells)
    policies = [policy for policy in every if all((seed, policy) in cells for seed in seeds)]
    grid = [[cells[seed, policy] for policy in policies] for seed in seeds]

    def numbers(name: str) -> Numbers:
        found = [[getattr(row, name) for row in line] for line in grid]
        return np.array(found, np.float64).reshape(len(seeds), len(policies))

    return Sample(numbers("value"), numbers("truth"), numbers("low"), numbers("high"))


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
"""By name. "coverage" is the share of intervals that hold the true value, "seed spread" the
standard deviation over seeds averaged over policies; `lfiw_ope.metrics` has the others."""

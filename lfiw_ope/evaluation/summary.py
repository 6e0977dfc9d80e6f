"""Rows of a comparison, and metrics over policies and seeds with intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isclose, isfinite
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.errors import ConfigError, DataError
from lfiw_ope.core.seeding import numpy_generator
from lfiw_ope.core.validation import choice, real, whole
from lfiw_ope.stats import metrics as of_lists
from lfiw_ope.stats.estimate import Estimate

LEVEL = 0.95
"""Confidence level of the interval that a row carries."""

Status = Literal["ok", "failed", "refused"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one estimator said of one policy, or why it said nothing.

    Attributes:
        estimator: its name in the comparison.
        policy: its name in the comparison.
        seed: of the fit and of everything after it.
        status: "ok"; "failed", where something was raised; "refused", where the data cannot tell.
            "ok" alone is an answer; a refused row may keep its numbers, for whoever asks what
            refusing does.
        reason: why there is no answer; empty where there is one.
        value: the estimate, in units of return; None without one, like all numbers that follow.
        standard_error: from the sampling of the logged episodes; None where it is not known.
        low, high: ends of the 95 % interval; None where the estimate has none.
        ess: effective sample size of the weights; None where nothing is weighed.
        truth: the policy's value, where it was given.
        seconds: wall-clock, of which every policy of a call and every estimator of a shared fit
            bears an equal part, so that rows add up to what was spent. What an estimator finds
            done by another that shares its fit costs it nothing.
        judging_seconds: likewise, of looking whether the data can tell; no part of `seconds`.
        warnings: the estimate's.
    """

    estimator: str
    policy: str
    seed: int
    status: Status
    reason: str = ""
    value: float | None = None
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    ess: float | None = None
    truth: float | None = None
    seconds: float = 0.0
    judging_seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, estimate: Estimate, estimator: str, policy: str, seed: int) -> "Row":
        """What an estimate comes to in the table."""
        if not isfinite(estimate.value):
            return cls.failed(estimator, policy, seed, f"The estimate is {estimate.value}.")
        near = [one for one in estimate.intervals if isclose(one.level, LEVEL)]
        return cls(
            estimator=estimator,
            policy=policy,
            seed=seed,
            status="ok",
            value=float(estimate.value),
            standard_error=_finite(estimate.standard_error),
            low=_finite(near[0].low) if near else None,
            high=_finite(near[0].high) if near else None,
            ess=_finite(estimate.ess),
            warnings=tuple(estimate.warnings),
        )

    @classmethod
    def failed(
        cls, estimator: str, policy: str, seed: int, reason: str, seconds: float = 0.0
    ) -> "Row":
        """One where something was raised."""
        return cls(
            estimator=estimator,
            policy=policy,
            seed=seed,
            status="failed",
            reason=reason,
            seconds=seconds,
        )

    @property
    def covers(self) -> bool | None:
        """Whether the interval holds the truth; None where one of them is missing."""
        if self.low is None or self.high is None or self.truth is None:
            return None
        return self.low <= self.truth <= self.high

    @property
    def answer(self) -> float | None:
        """The value, where it is given as one: not where it is refused."""
        return self.value if self.status == "ok" else None

    def without_numbers(self) -> "Row":
        """The same row with nothing of the estimate but its warnings."""
        return replace(self, value=None, standard_error=None, low=None, high=None, ess=None)

    def told(self, truth: float | None) -> "Row":
        """The same row with the policy's value."""
        return replace(self, truth=truth)

    def _require_agreement(self) -> None:
        """That fields which were read do not contradict each other."""
        if self.status == "ok" and self.value is None:
            raise TypeError("it is ok and has no value")
        if self.status == "failed" and (self.value is not None or not self.reason):
            raise TypeError("it failed and has a value, or no reason")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise TypeError(f"its interval is from {self.low} to {self.high}")
        if min(self.seconds, self.judging_seconds) < 0:
            raise TypeError(f"its seconds are {self.seconds} and {self.judging_seconds}")

    def to_dict(self) -> dict[str, Any]:
        """As plain Python numbers, lists and strings."""
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Row":
        """The inverse of `to_dict`.

        Raises:
            DataError: if fields are missing or unknown, or hold what no row holds.
        """
        try:
            found = cls(**{**plain, "warnings": tuple(plain["warnings"])})
            require_kinds(found, _KINDS)
            require_one_of("status", found.status, get_args(Status))
            warnings = plain["warnings"]
            if not isinstance(warnings, list) or not all(isinstance(w, str) for w in warnings):
                raise TypeError(f"its warnings are {warnings!r:.40}")
            found._require_agreement()
        except (KeyError, TypeError) as error:
            raise DataError(f"This is no stored row of a comparison ({error}).") from error
        return found


Kinds = Mapping[tuple[str, ...], Any]
"""By names of fields, what `isinstance` has to say of them."""

_KINDS: Kinds = {
    ("estimator", "policy", "reason"): str,
    ("seed",): int,
    ("value", "standard_error", "low", "high", "ess", "truth"): Real | None,
    ("seconds", "judging_seconds"): Real,
}


def require_kinds(record: Any, kinds: Kinds) -> None:
    """That fields which were read hold what they say, and no number is infinite or NaN.

    Raises:
        TypeError: if one does not.
    """
    for names, kind in kinds.items():
        for name in names:
            value = getattr(record, name)
            other = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
            if other or (isinstance(value, Real) and not _is_finite(value)):
                raise TypeError(f"its {name} is {value!r:.40}")


def require_one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """That a field which was read is one of these words.

    Raises:
        TypeError: if it is not.
    """
    if value not in known:
        raise TypeError(f"its {name} is {value!r:.40} and none of {', '.join(known)}")


def _is_finite(value: Any) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _finite(value: float | None) -> float | None:
    """JSON has no number for infinity and NaN."""
    return None if value is None or not isfinite(value) else float(value)


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
standard deviation over seeds averaged over policies; `lfiw_ope.stats.metrics` has the others."""


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
    """Every metric of every estimator; see `lfiw_ope.evaluation.Comparison.summary`."""
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

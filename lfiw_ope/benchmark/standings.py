"""Measures of estimators on one part of a benchmark, and their order."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lfiw_ope.benchmark.units import EQUAL, Indices, Lists, Numbers, Part, Unit
from lfiw_ope.core.errors import DataError
from lfiw_ope.evaluation.summary import LEVEL, percentile_interval
from lfiw_ope.stats import metrics

NEAR = 0.1
"""In units of a ladder's range; a round number, chosen by nothing that came out."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A column of the leaderboard.

    Attributes:
        of: a unit's part.
        heading: in a table.
        meaning: one sentence's worth.
        better: which values are better, where one can be called so from this number alone.
        form: of a number in a table, as `format` takes it; see `text`.
    """

    of: Callable[[Lists], Part]
    heading: str
    meaning: str
    better: Literal["lower", "higher", "reaches"] | None = None
    form: str = "z.3f"

    def text(self, value: float) -> str:
        """A number as a table has it: no 12345678.900 where products of ratios have exploded.

        Decimals end at a hundred: six digits of a number are kept, and nobody needs so many.
        """
        if abs(value) >= 1e4:
            return f"{value:.1e}"
        form = self.form if abs(value) < 100 else re.sub(r"\.\d+f", ".0f", self.form)
        return f"{value:{form}}"


def _each(found: Any) -> Part:
    """A mean over units: of a number a unit, left out where it is NaN."""
    known = np.isfinite(found)
    return np.where(known, found, 0.0), known.astype(np.float64)


def _error(lists: Lists) -> Part:
    found = metrics.root_mean_squared_error(lists.filled, lists.truth)
    return _each(found / lists.unit.scale)


def _constant(lists: Lists) -> Numbers:
    """`[B]`, error of the log's mean return."""
    constant = np.full(lists.truth.shape, lists.unit.behaviour)
    found: Numbers = metrics.root_mean_squared_error(constant, lists.truth)
    return found / lists.unit.scale


def _gain(lists: Lists) -> Part:
    return _each(_constant(lists) - _error(lists)[0])


def _kept_error(lists: Lists) -> Part:
    unit = lists.unit
    kept = unit.answered & ~unit.refused
    only = np.where(kept[:, lists.chosen], lists.filled, lists.truth)
    count = kept[:, lists.chosen].sum(-1)
    found = metrics.root_mean_squared_error(only, lists.truth) / unit.scale
    return _each(found * np.sqrt(lists.chosen.shape[-1] / np.where(count > 0, count, np.nan)))


def _rank_correlation(lists: Lists) -> Part:
    found = metrics.spearman(lists.ordered, lists.truth)
    # Equal estimates of unequal policies tell no order, which is as good as any order by chance.
    told = np.ptp(lists.truth, -1) > 0
    return _each(np.where(told & np.isnan(found), 0.0, found))


def _regret(lists: Lists) -> Part:
    found = metrics.expected_regret(lists.ordered, lists.truth) / lists.unit.scale
    # Of one policy alone, or of several of one value, there is nothing to choose.
    choice = np.ptp(lists.truth, -1) > 0
    return _each(np.where(choice, found, np.nan))


def _with_interval(unit: Unit) -> Any:
    return np.isfinite(unit.low) & np.isfinite(unit.high)


def _coverage(lists: Lists) -> Part:
    unit = lists.unit
    holds = (unit.low <= unit.truth) & (unit.truth <= unit.high)
    return lists.pooled(holds, _with_interval(unit))


def _width(lists: Lists) -> Part:
    unit = lists.unit
    return _each(_median(((unit.high - unit.low) / unit.scale)[:, lists.chosen]))


def _median(values: Numbers) -> Numbers:
    """Along the last axis, of what is not NaN; NaN where all is."""
    ordered = np.sort(values, -1)  # NaN last
    count = np.isfinite(ordered).sum(-1, keepdims=True)
    ends = np.stack([np.maximum(count - 1, 0) // 2, count // 2], -1)[..., 0, :]
    ends = np.minimum(ends, values.shape[-1] - 1)
    found: Numbers = np.take_along_axis(ordered, ends, -1).mean(-1)
    return np.where(count[..., 0] > 0, found, np.nan)


def _size(unit: Unit) -> Numbers:
    """`[E, P]`, of errors; of no answer infinite."""
    return np.where(unit.answered, np.abs(unit.filled - unit.truth), np.inf)


def _near(lists: Lists) -> Part:
    unit = lists.unit
    return lists.pooled(_size(unit) <= (NEAR + EQUAL) * unit.scale)


def _won(lists: Lists) -> Part:
    unit = lists.unit
    size = _size(unit)
    least = size.min(0)
    best = np.isfinite(size) & (size <= least + EQUAL * unit.scale)
    return lists.pooled(best / np.maximum(best.sum(0), 1))


MEASURES: dict[str, Measure] = {
    "error": Measure(
        of=_error,
        heading="RMSE",
        meaning="√ of the mean squared error over a unit's policies, in units of the range of the "
        "ladder's true values, averaged over units; a missing answer counts as the log's mean "
        "return, and a refused one as the number that it would have been",
        better="lower",
    ),
    "gain": Measure(
        of=_gain,
        heading="gain",
        meaning="RMSE of the log's mean return, which takes no estimator, less the RMSE",
        better="higher",
        form="+z.3f",
    ),
    "kept_error": Measure(
        of=_kept_error,
        heading="RMSE, kept",
        meaning="the same over answers that were not refused alone, so that each estimator has "
        "cells of its own",
    ),
    "near": Measure(
        of=_near,
        heading="within 10%",
        meaning="share of the cells where the estimate is off by at most a tenth of the range; a "
        "refused answer counts as the number that it would have been, a missing one as off. "
        "However far one is off, it counts once, so that no single explosion decides",
        better="higher",
        form="z.0%",
    ),
    "rank_correlation": Measure(
        of=_rank_correlation,
        heading="Spearman",
        meaning="rank correlation of a unit's estimates and true values, averaged over units; 0 "
        "where all estimates are the same",
        better="higher",
        form="z.2f",
    ),
    "regret": Measure(
        of=_regret,
        heading="regret@1",
        meaning="the best true value of a unit less that of the policy that looks best, in the "
        "same units, averaged over units; where several look best, one is taken at random, and "
        "where all are of one value, as one policy alone is, there is none",
        better="lower",
        form="z.2f",
    ),
    "coverage": Measure(
        of=_coverage,
        heading="coverage",
        meaning="share of the 95 % intervals that hold the true value",
        better="reaches",
        form="z.0%",
    ),
    "width": Measure(
        of=_width,
        heading="width",
        meaning="of a unit's 95 % intervals the median width, in the same units, averaged over "
        "units",
        form="z.2f",
    ),
    "intervals": Measure(
        of=lambda lists: lists.pooled(_with_interval(lists.unit)),
        heading="with interval",
        meaning="share of the cells with a 95 % interval",
        form="z.0%",
    ),
    "answered": Measure(
        of=lambda lists: lists.pooled(lists.unit.answered),
        heading="answered",
        meaning="share of the cells with a number, refused or not",
        form="z.0%",
    ),
    "refused": Measure(
        of=lambda lists: lists.pooled(lists.unit.refused),
        heading="refused",
        meaning="share of the cells of which the data were found not to tell the value",
        form="z.0%",
    ),
    "failed": Measure(
        of=lambda lists: lists.pooled(~lists.unit.answered & ~lists.unit.refused),
        heading="failed",
        meaning="share of the cells where something was raised",
        form="z.0%",
    ),
    "won": Measure(
        of=_won,
        heading="won",
        meaning="share of the cells where the estimate is the nearest of all numbers, refused or "
        "not; equal ones share a cell",
        better="higher",
        form="z.0%",
    ),
    "seconds": Measure(
        of=lambda lists: lists.pooled(lists.unit.seconds),
        heading="s / policy",
        meaning="seconds of work for one policy, with its share of the fit, on a machine that may "
        "have had other work; what another that shares the fit has done already costs nothing, so "
        "that of dr, wdr and magic the one that ran first bears almost all",
        form=".1f",
    ),
}
"""By name, in the order of the tables."""

NOMINAL = LEVEL
"""What coverage has to reach."""


MOST = 0.5
"""Share of the cells from which on intervals are given often enough to be called good."""


@dataclass(frozen=True)
class Measured:
    """A number and its bootstrap interval.

    Attributes:
        value: None where it is not defined.
        low, high: ends of the percentile interval; None without one, as where every resample says
            the same. It is widened to the value where it does not hold it: a resample lacks a third
            of the policies, and with them some of what there is to regret.
        best: whether nothing speaks against its being the best of its column: it is, or the
            interval of its difference to the best, on the same resamples, holds 0. Of coverage,
            whether it reaches 95 %, or its interval does, of an estimator that gives intervals in
            half of the cells at least. False where nothing is better or worse.
    """

    value: float | None
    low: float | None
    high: float | None
    best: bool = False


@dataclass(frozen=True)
class Standing:
    """One estimator in one part of a benchmark.

    Attributes:
        estimator: its name.
        rank: by RMSE, from 1, equal ones share it; None of one that answered nothing.
        answered, refused, failed: cells, of those that there are; a refused one may have a number
            and then is an answered one too.
        behind: its RMSE less that of the first, on the same resamples.
        measured: by the names of `MEASURES`.
    """

    estimator: str
    rank: int | None
    answered: int
    refused: int
    failed: int
    behind: Measured
    measured: Mapping[str, Measured]


@dataclass(frozen=True)
class Slice:
    """A part of a benchmark.

    Attributes:
        of: what its units have in common, by the names of their fields; "support" is of their
            policies, "supported" or "unsupported".
        units: in it, each a log and a seed.
        cells: policies of these units.
        standings: by rank, the first first; estimators without a rank last.
    """

    of: Mapping[str, str]
    units: int
    cells: int
    standings: tuple[Standing, ...]

    def standing(self, estimator: str) -> Standing:
        """One estimator's.

        Raises:
            KeyError: if it is not in the benchmark.
        """
        for one in self.standings:
            if one.estimator == estimator:
                return one
        raise KeyError(estimator)

    def to_dict(self) -> dict[str, Any]:
        """As plain Python numbers, lists and strings."""
        return asdict(self) | {"standings": [asdict(one) for one in self.standings]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Slice":
        """The inverse of `to_dict`.

        Raises:
            DataError: if fields are missing or unknown.
        """
        try:
            standings = tuple(
                Standing(
                    **{
                        **one,
                        "behind": Measured(**one["behind"]),
                        "measured": {k: Measured(**of) for k, of in one["measured"].items()},
                    }
                )
                for one in plain["standings"]
            )
            return cls(**{**plain, "standings": standings})
        except (KeyError, TypeError) as error:
            raise DataError(f"This is no stored part of a leaderboard ({error}).") from error


class Tally:
    """Sums of a slice over its units: `[K, E, B]` of K measures, E estimators and B resamples."""

    def __init__(self, estimators: int, resamples: int) -> None:
        self.units, self.cells = 0, 0
        self.totals = np.zeros((len(MEASURES), estimators, resamples))
        self.counts = np.zeros_like(self.totals)

    def add(self, at: Indices, totals: Numbers, counts: Numbers) -> None:
        """A unit's sums `[K, E, b]`, at b of the resamples."""
        self.totals[..., at] += totals
        self.counts[..., at] += counts

    def slice(self, of: Mapping[str, str], estimators: Sequence[str], level: float) -> Slice:
        """Who stands where."""
        means = self.totals / np.where(self.counts > 0, self.counts, np.nan)
        every = dict(zip(MEASURES, means, strict=True))
        counts = {
            name: total[:, 0].round().astype(int)
            for name, total in zip(MEASURES, self.totals, strict=True)
            if name in ("answered", "refused", "failed")
        }
        ranked = [place for place in range(len(estimators)) if counts["answered"][place]]
        telling = [e for e in ranked if every["intervals"][e, 0] >= MOST]
        measured = {
            name: _column(name, values, telling if name == "coverage" else ranked, level)
            for name, values in every.items()
        }
        errors = every["error"]
        order = sorted(
            range(len(estimators)),
            key=lambda e: (e not in ranked, errors[e, 0], -counts["answered"][e], estimators[e]),
        )
        first = order[0]
        standings = []
        for e in order:
            better = sum(errors[o, 0] < errors[e, 0] * (1 - EQUAL) for o in ranked)
            standings.append(
                Standing(
                    estimator=estimators[e],
                    rank=1 + int(better) if e in ranked else None,
                    answered=int(counts["answered"][e]),
                    refused=int(counts["refused"][e]),
                    failed=int(counts["failed"][e]),
                    behind=_measured(errors[e] - errors[first], level),
                    measured={name: column[e] for name, column in measured.items()},
                )
            )
        return Slice(dict(of), self.units, self.cells, tuple(standings))


def _column(name: str, values: Numbers, among: Sequence[int], level: float) -> list[Measured]:
    """One measure of all estimators, from `[E, B]`, the first of B as it is; the best of some."""
    better = MEASURES[name].better
    found = [_measured(of, level) for of in values]
    known = [e for e in among if found[e].value is not None]
    if better is None or not known:
        return found
    if better == "reaches":
        best = [e for e in known if max(found[e].value or 0.0, found[e].high or 0.0) >= NOMINAL]
    else:
        worse = values if better == "lower" else -values
        first = min(known, key=lambda e: worse[e, 0])
        best = [e for e in known if _ties(worse[e] - worse[first], level)]
    return [Measured(one.value, one.low, one.high, e in best) for e, one in enumerate(found)]


def _ties(difference: Numbers, level: float) -> bool:
    """Whether a difference to the best, 0 or more, may as well be 0."""
    low, _ = percentile_interval(difference[1:], level)
    return bool(difference[0] == 0.0) if low is None else low <= 0.0


def _measured(values: Numbers, level: float) -> Measured:
    if not np.isfinite(values[0]):
        return Measured(None, None, None)
    value = float(values[0])
    low, high = percentile_interval(values[1:], level)
    if low is None or high is None:
        return Measured(_rounded(value), None, None)
    return Measured(_rounded(value), _rounded(min(low, value)), _rounded(max(high, value)))


def _rounded(value: float) -> float:
    """To the digits that are the same on every machine, so that a file that is made again is."""
    return float(f"{value:.6g}")

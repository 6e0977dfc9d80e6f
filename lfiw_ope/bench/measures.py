"""What a leaderboard measures of each estimator, on one unit's list of policies."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lfiw_ope import metrics
from lfiw_ope.bench.lists import EQUAL, Lists, Part
from lfiw_ope.bench.units import Numbers, Unit
from lfiw_ope.comparison.rows import LEVEL

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

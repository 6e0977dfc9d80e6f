"""Who stands where in one part of a benchmark: measures, their intervals and the order."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lfiw_ope.bench.draws import Indices
from lfiw_ope.bench.measures import MEASURES, NOMINAL
from lfiw_ope.bench.units import Numbers
from lfiw_ope.comparison.summary import percentile_interval
from lfiw_ope.errors import DataError

EQUAL = 1e-9
"""Errors that differ by less, relatively, share a rank."""

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

"""Rows of a benchmark as arrays: a unit is one log and one seed, on every policy."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.bench.rows import BenchRow, Key
from lfiw_ope.errors import DataError

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


AGREE = 1e-6
"""Relative difference up to which numbers of one measurement are the same."""

MOST = 1e150
"""Size of an estimate beyond which it is all the same."""


@dataclass(frozen=True)
class Unit:
    """What E estimators said of one task's P policies by one log at one seed.

    A policy and its unit are a cell.

    Attributes:
        task, purpose, data, transitions, question, seed: of its rows.
        value: `[E, P]` estimates, those of refused rows too where they were kept; NaN where there
            is none.
        refused: `[E, P]`, whether the data were found not to tell the value.
        low, high: `[E, P]` ends of 95 % intervals, NaN where there is none.
        seconds: `[E, P]` that each estimate took.
        truth: `[P]` true values; NaN of a policy of the task that the unit does not have.
        supported: `[P]`, whether the log supports the policy.
        scale: the unit of errors: the range of the true values of the task's ladder.
        behaviour: mean return of the log.
        truth_error: the largest standard error of a true value.
    """

    task: str
    purpose: str
    data: str
    transitions: int
    question: str
    seed: int
    value: Numbers
    refused: Flags
    low: Numbers
    high: Numbers
    seconds: Numbers
    truth: Numbers
    supported: Flags
    scale: float
    behaviour: float
    truth_error: float

    @property
    def there(self) -> Flags:
        """`[P]`, the task's policies that the unit has."""
        return np.isfinite(self.truth)

    @property
    def answered(self) -> Flags:
        """`[E, P]`, where there is a number, refused or not."""
        return np.isfinite(self.value)

    @property
    def filled(self) -> Numbers:
        """`[E, P]` estimates, and the log's mean return where an estimator has none.

        What is beyond `MOST` counts as that, so that squares of errors are finite.
        """
        return np.where(self.answered, np.clip(self.value, -MOST, MOST), self.behaviour)


@dataclass(frozen=True)
class Units:
    """All that a leaderboard is made of.

    Attributes:
        estimators: names, in the order of the E axis.
        policies: by task, names in the order of its units' P axis.
        units: in the order of their keys.
        left_out: units that some estimator has no row of, answered or failed, for some policy: a
            run that is not finished.
    """

    estimators: tuple[str, ...]
    policies: Mapping[str, tuple[str, ...]]
    units: tuple[Unit, ...]
    left_out: tuple[Key, ...]

    @classmethod
    def of(cls, rows: Iterable[BenchRow]) -> "Units":
        """Rows in any order.

        Raises:
            DataError: if there is none, one is there twice, one has no truth or no scale, rows of
                a unit say different things of it, or no unit is finished.
        """
        kept = list(rows)
        estimators = tuple(sorted({one.row.estimator for one in kept}))
        policies = {
            task: tuple(sorted({one.row.policy for one in kept if one.task == task}))
            for task in sorted({one.task for one in kept})
        }
        units, left_out = [], []
        for key, grid in sorted(_grids(kept).items()):
            names = {policy for _, policy in grid}
            if len(grid) < len(names) * len(estimators):
                left_out.append(key)
            else:
                units.append(_unit(key, grid, estimators, policies[key[0]]))
        if not units:
            raise DataError(
                "There is no unit of which every estimator has a row for every policy, answered or "
                f"not, among {len(kept)} rows; finish the run, or give only estimators that ran "
                "on the same."
            )
        return cls(estimators, policies, tuple(units), tuple(left_out))


def _grids(rows: Iterable[BenchRow]) -> dict[Key, dict[tuple[str, str], BenchRow]]:
    """Each unit's rows by estimator and policy."""
    grids: dict[Key, dict[tuple[str, str], BenchRow]] = {}
    for one in rows:
        place, grid = (one.row.estimator, one.row.policy), grids.setdefault(one.unit, {})
        said = f"The row of {place[0]} on {place[1]} in {_told(one.unit)}"
        if place in grid:
            raise DataError(f"{said} is there twice; give each run's rows once.")
        if one.row.truth is None or not np.isfinite(one.row.truth):
            raise DataError(f"{said} has no true value, and a leaderboard is made of errors.")
        if not one.scale > 0 or not np.isfinite(one.scale):
            raise DataError(f"{said} has the scale {one.scale}; errors need one above 0.")
        _require_agreement(said, one, grid)
        grid[place] = one
    return grids


def _require_agreement(said: str, one: BenchRow, grid: Mapping[tuple[str, str], BenchRow]) -> None:
    """That a row says of its unit, and of its policy, what the rows before it say."""
    first = next(iter(grid.values()), one)
    same = next((of for of in grid.values() if of.row.policy == one.row.policy), one)
    pairs = {
        name: (getattr(one, name), getattr(first, name))
        for name in ("purpose", "scale", "behaviour")
    }
    pairs |= {
        name: (getattr(one, name), getattr(same, name))
        for name in ("truth_error", "support", "supported")
    }
    pairs["truth"] = (one.row.truth, same.row.truth)
    for name, (here, there) in pairs.items():
        if here != there and not _near(here, there):
            raise DataError(
                f"{said} says that its {name} is {here}, and another row of it {there}; give rows "
                "of one measurement."
            )


def _near(one: Any, other: Any) -> bool:
    """Whether numbers differ by what another processor may round otherwise."""
    numbers = isinstance(one, float) and isinstance(other, float)
    return numbers and bool(np.isclose(one, other, rtol=AGREE, atol=0.0))


def _unit(
    key: Key,
    grid: Mapping[tuple[str, str], BenchRow],
    estimators: Sequence[str],
    policies: Sequence[str],
) -> Unit:
    some = next(iter(grid.values()))

    def numbers(name: str) -> Numbers:
        found = [
            [getattr(grid[e, p].row, name) if (e, p) in grid else None for p in policies]
            for e in estimators
        ]
        return np.array(found, np.float64)

    first = [grid.get((estimators[0], policy)) for policy in policies]
    task, data, transitions, question, seed = key
    return Unit(
        task=task,
        purpose=some.purpose,
        data=data,
        transitions=transitions,
        question=question,
        seed=seed,
        value=numbers("value"),
        refused=np.array(
            [
                [(e, p) in grid and grid[e, p].row.status == "refused" for p in policies]
                for e in estimators
            ]
        ),
        low=numbers("low"),
        high=numbers("high"),
        seconds=numbers("seconds"),
        truth=np.array([None if one is None else one.row.truth for one in first], np.float64),
        supported=np.array([one is not None and one.supported for one in first]),
        scale=some.scale,
        behaviour=some.behaviour,
        truth_error=max(one.truth_error for one in grid.values()),
    )


def _told(key: tuple[Any, ...]) -> str:
    task, data, transitions, question, seed = key
    return f"{task}, {data}, {transitions} transitions, {question}, seed {seed}"

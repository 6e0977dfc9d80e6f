"""Results as arrays by log and seed, and bootstrap resamples of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.benchmark.trials import BenchRow, Key
from lfiw_ope.core.errors import DataError
from lfiw_ope.core.seeding import numpy_generator

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


Indices = NDArray[np.int64]


@dataclass(frozen=True)
class TaskDraws:
    """Resamples of one task, of which the first is the task as it is.

    Attributes:
        policies: `[B, P]` indices, drawn with replacement.
        seeds: how many times each seed is drawn, `[B]` by seed.
    """

    policies: Indices
    seeds: dict[int, Numbers]


@dataclass(frozen=True)
class Draws:
    """B resamples, the same for every estimator, so that differences of two can be read.

    A policy that is drawn twice counts twice in each log, question and seed of its task, because
    what makes a policy hard is common to them. Seeds are drawn within a task: each makes its logs
    and its fits. Tasks and data sets are what they are: a handful that somebody chose is no sample
    of all tasks, and no interval says what would come out on another.

    Attributes:
        count: B, with the first.
        tasks: by name.
    """

    count: int
    tasks: dict[str, TaskDraws]

    @classmethod
    def of(cls, units: Units, *, resamples: int, seed: int) -> "Draws":
        """Tasks have streams of their own, so that one more changes none of the others."""
        tasks = {}
        for task, names in units.policies.items():
            generator = numpy_generator(seed, "leaderboard", task)
            policies = generator.integers(len(names), size=(resamples, len(names)))
            seeds = sorted({unit.seed for unit in units.units if unit.task == task})
            if not seeds:
                continue
            drawn = generator.integers(len(seeds), size=(resamples, len(seeds)))
            counts = {
                one: np.concatenate([[1.0], (drawn == place).sum(1)])
                for place, one in enumerate(seeds)
            }
            tasks[task] = TaskDraws(np.vstack([np.arange(len(names)), policies]), counts)
        return cls(resamples + 1, tasks)

    def lists(self, unit: Unit, kept: Flags) -> Iterator[tuple[Indices, Indices, Numbers]]:
        """A unit's lists of policies, of those that are `kept` `[P]`.

        Lists of one length come together: the resamples' indices `[b]`, their lists `[b, k]`, and
        how often each resample has drawn the unit's seed `[b]`.
        """
        drawn = self.tasks[unit.task]
        within = kept[drawn.policies]
        lengths, times = within.sum(1), drawn.seeds[unit.seed]
        for length in np.unique(lengths[(lengths > 0) & (times > 0)]):
            at = np.flatnonzero((lengths == length) & (times > 0))
            lists = drawn.policies[at][within[at]].reshape(len(at), length)
            yield at, lists, times[at]


@dataclass(frozen=True)
class Lists:
    """B lists of k policies of one unit, and what is said of them.

    Attributes:
        unit: the unit.
        chosen: `[B, k]` indices of its policies.
    """

    unit: Unit
    chosen: Indices

    @property
    def filled(self) -> Numbers:
        """`[E, B, k]` estimates, the log's mean return for those that are missing."""
        return self.unit.filled[:, self.chosen]

    @property
    def ordered(self) -> Numbers:
        """`filled` for what goes by order: what differs by rounding alone is equal."""
        grain = EQUAL * self.unit.scale
        near = np.abs(self.filled) < self.unit.scale / EQUAL
        return np.where(
            near, np.round(np.where(near, self.filled, 0.0) / grain), self.filled / grain
        )

    @property
    def truth(self) -> Numbers:
        """`[B, k]`"""
        return self.unit.truth[self.chosen]

    def pooled(self, per_cell: Any, over: Any = None) -> "Part":
        """A mean over cells: `[E, P]` numbers, over the cells where `over` `[E, P]` holds."""
        over = np.ones(per_cell.shape, bool) if over is None else over
        within = np.where(over, per_cell, 0.0)[:, self.chosen].sum(-1)
        return within, over[:, self.chosen].sum(-1).astype(np.float64)


EQUAL = 1e-9
"""In units of a ladder's range: estimates that are no further apart are the same."""

Part = tuple[Numbers, Numbers]
"""What a unit adds to a mean: sum and count, each `[E, B]`."""

"""The leaderboard: who estimates best, on what, and how sure that is."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lfiw_ope.benchmark.standings import MEASURES, Slice, Tally
from lfiw_ope.benchmark.trials import BenchRow
from lfiw_ope.benchmark.units import Draws, Flags, Lists, Unit, Units
from lfiw_ope.core.errors import DataError
from lfiw_ope.core.serialization import Stored
from lfiw_ope.core.validation import real, whole

Name = tuple[tuple[str, str], ...]
"""Of a slice: what its units have in common."""


@dataclass(frozen=True)
class Leaderboard(Stored):
    """Estimators, measured and ranked, on each part of a benchmark.

    Development and report tasks are nowhere put together: settings may have been chosen by what
    came out on the former.

    Attributes:
        about: what made the rows: suite, command, settings, versions, and how many of the suite's
            trials were finished.
        estimators: names.
        units: logs and seeds that are counted.
        left_out: others, which some estimator had not finished.
        truth_error: the largest standard error of a true value, in units of its ladder's range.
        resamples: of the bootstrap.
        level: of its intervals.
        seed: of the bootstrap.
        slices: the report tasks first, each purpose as a whole before its parts.
    """

    about: Mapping[str, Any]
    estimators: tuple[str, ...]
    units: int
    left_out: int
    truth_error: float
    resamples: int
    level: float
    seed: int
    slices: tuple[Slice, ...]

    @classmethod
    def of(
        cls,
        rows: Iterable[BenchRow],
        about: Mapping[str, Any] | None = None,
        *,
        resamples: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> "Leaderboard":
        """From stored results; nothing is run, and the order of the rows is of no account.

        The order is by RMSE with a missing answer counted as the log's mean return, which whoever
        is told nothing still has: so an estimator that keeps silent where others err is as good
        there as that constant, and no better. One that answers nothing has no rank.

        Args:
            rows: of a benchmark.
            about: what made them, plain enough for JSON.
            resamples: of the bootstrap over policies of each task and over seeds.
            level: of its intervals.
            seed: of the bootstrap.

        Raises:
            ConfigError: if a number is out of its range.
            DataError: if there is no finished unit, or a row is there twice or lacks its truth.
        """
        whole("resamples", resamples, least=0)
        level = real("level", level, least=1e-6, most=1 - 1e-6)
        units = Units.of(rows)
        draws = Draws.of(units, resamples=resamples, seed=seed)
        tallies: dict[Name, Tally] = {}
        for unit in units.units:
            for kept, names in _parts(unit):
                mine = [
                    tallies.setdefault(name, Tally(len(units.estimators), draws.count))
                    for name in names
                ]
                _add(unit, kept, draws, mine)
        slices = [
            tallies[name].slice(dict(name), units.estimators, level) for name in _told(tallies)
        ]
        return cls(
            dict(about or {}),
            units.estimators,
            len(units.units),
            len(units.left_out),
            max(unit.truth_error / unit.scale for unit in units.units),
            resamples,
            level,
            seed,
            tuple(slices),
        )

    @property
    def headline(self) -> Slice:
        """All report tasks; of a benchmark without any, all development tasks."""
        return self.slices[0]

    @property
    def missing(self) -> int:
        """Trials of the suite that no row is of: they are not finished, or had no log."""
        return int(self.about.get("trials", 0)) - int(self.about.get("finished", 0))

    @property
    def purposes(self) -> tuple[str, ...]:
        """Of its tasks, "report" before "development"."""
        return tuple(dict.fromkeys(one.of["purpose"] for one in self.slices))

    def by(self, *fields: str, purpose: str | None = None) -> tuple[Slice, ...]:
        """Slices by some fields, such as "task", or "task" and "data", beside the purpose.

        Empty where there is one such part alone, which is the whole.
        """
        return tuple(
            one
            for one in self.slices
            if set(one.of) == {"purpose", *fields} and purpose in (None, one.of["purpose"])
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain Python numbers, lists and strings."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **plain,
            "about": dict(self.about),
            "estimators": list(self.estimators),
            "slices": [one.to_dict() for one in self.slices],
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            DataError: if it is no stored leaderboard.
        """
        try:
            slices = tuple(Slice.from_dict(one) for one in plain["slices"])
            estimators = tuple(plain["estimators"])
            return cls(**{**plain, "slices": slices, "estimators": estimators})
        except (KeyError, TypeError) as error:
            raise DataError(f"This is no stored leaderboard ({error}).") from error


def _parts(unit: Unit) -> Iterator[tuple[Flags, list[Name]]]:
    """Of a unit, some of its policies, and the slices that they belong to."""
    purpose, task, data = ("purpose", unit.purpose), ("task", unit.task), ("data", unit.data)
    size, question = ("transitions", str(unit.transitions)), ("question", unit.question)
    among = [(), (task,), (data,), (size,), (question,), (task, data)]
    yield unit.there, [(purpose, *of) for of in among]
    for word, kept in (("supported", unit.supported), ("unsupported", ~unit.supported)):
        support = ("support", word)
        if (kept & unit.there).any():
            yield kept & unit.there, [(purpose, support), (purpose, task, support)]


def _add(unit: Unit, kept: Flags, draws: Draws, tallies: list[Tally]) -> None:
    for tally in tallies:
        tally.units, tally.cells = tally.units + 1, tally.cells + int(kept.sum())
    for at, chosen, times in draws.lists(unit, kept):
        lists = Lists(unit, chosen)
        parts = [measure.of(lists) for measure in MEASURES.values()]
        # Each resample counts the unit as often as it has drawn its seed.
        totals, counts = (np.stack(of) * times for of in zip(*parts, strict=True))
        for tally in tallies:
            tally.add(at, totals, counts)


def _told(tallies: Mapping[Name, Tally]) -> list[Name]:
    """In their order, by fields that part the whole: of one task alone, no tasks are told.

    Of two fields, that both do is enough: a task that is all supported stands by task and support
    beside those that are not.
    """
    order = ("task", "data", "transitions", "question", "support")

    def place(name: Name) -> tuple[Any, ...]:
        fields = [order.index(field) for field, _ in name[1:]]
        values = [int(of) if field == "transitions" else of for field, of in name[1:]]
        return (name[0][1] != "report", len(fields), fields, values)

    def parts(name: Name) -> bool:
        whole = tallies[name[:1]].cells
        return all(tallies[name[0], field].cells < whole for field in name[1:])

    return sorted(filter(parts, tallies), key=place)

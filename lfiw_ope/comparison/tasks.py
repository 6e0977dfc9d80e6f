"""What is to be done, in units: estimators that share a fit, at one seed, on every policy."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lfiw_ope.answering import Estimator
from lfiw_ope.comparison.rows import Row
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimand import Estimand
from lfiw_ope.refusal import Thresholds
from lfiw_ope.sharing import share_fits
from lfiw_ope.types import Policy


@dataclass(frozen=True)
class Inputs:
    """What every unit of work is given.

    Attributes:
        data: the log.
        policies: by name.
        thresholds: beyond which an estimate is no answer; None takes every one.
        keep_refused: whether a refused row keeps its numbers.
    """

    data: Trajectories
    policies: Mapping[str, Policy]
    thresholds: Thresholds | None
    keep_refused: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the policies."""
        return tuple(self.policies)

    def load(self) -> "Inputs":
        """They are there."""
        return self


class Source(Protocol):
    """Where a unit's inputs come from: `Inputs` that are there, or what makes them in its turn.

    One that makes them is small: it is what is sent to other processes, and no log is held before
    its turn or after.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Of the policies, in their order."""
        ...

    def load(self) -> Inputs: ...


@dataclass(frozen=True)
class Work:
    """Estimators that share a fit, by name, and a seed."""

    estimators: Mapping[str, Estimator]
    seed: int

    @property
    def estimand(self) -> Estimand:
        """Of every one of them."""
        return next(iter(self.estimators.values())).estimand

    def failed(
        self, policies: Sequence[str], reason: str, seconds: float = 0.0, *, lasting: bool = True
    ) -> "list[Cell]":
        """What it comes to where nothing came of it."""
        each = seconds / len(self.estimators) / len(policies)
        return [
            Cell(
                name,
                self.seed,
                tuple(Row.failed(name, policy, self.seed, reason, each) for policy in policies),
                lasting,
            )
            for name in self.estimators
        ]


@dataclass(frozen=True)
class Task:
    """A unit of work, and where its inputs come from."""

    source: Source
    work: Work

    def failed(self, reason: str, *, lasting: bool = True) -> "list[Cell]":
        """What it comes to where nothing came of it."""
        return self.work.failed(self.source.names, reason, lasting=lasting)


@dataclass(frozen=True)
class Cell:
    """What one estimator said at one seed: a row a policy.

    `lasting` is False of one that is worth another try: its process or machine was lost; it failed
    by what the package does not raise of itself, such as memory or a package that is missing; or
    the estimator is the user's own, and failed.

    `behaviour` is the log's mean return; None where the log could not be had.
    """

    estimator: str
    seed: int
    rows: tuple[Row, ...]
    lasting: bool = True
    behaviour: float | None = None


def waiting_works(
    estimators: Mapping[str, Estimator],
    seeds: Iterable[int],
    finished: Iterable[tuple[str, int]],
) -> list[Work]:
    """What is left to do but for (estimator, seed) that are finished.

    Seed by seed: a run that is stopped early has all estimators, and less of seeds.
    """
    groups, done, works = share_fits(estimators), set(finished), []
    for seed in seeds:
        for group in groups:
            left = {name: of for name, of in group.items() if (name, seed) not in done}
            if left:
                works.append(Work(left, seed))
    return works

"""The bootstrap of a benchmark: policies of each task and its seeds, and never tasks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.bench.units import Flags, Numbers, Unit, Units
from lfiw_ope.seeding import numpy_generator

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

"""Any estimator, fitted again to halves of the log: what its value owes to the episodes."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.runtime import joblib_modules
from lfiw_ope.core.seeding import derive, numpy_generator
from lfiw_ope.core.validation import choice, whole
from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimators.base import Answering, Estimator, Fitted, Spaces, spaces_of
from lfiw_ope.estimators.fitted_model import FittedModel
from lfiw_ope.estimators.importance import LEAST_MEAN_WEIGHT, SHAPED
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.intervals import (
    LEVELS,
    NOT_WANTED,
    TOO_FEW_CARRY,
    check_levels,
    percentiles,
    student_t,
)

Done = TypeVar("Done")


class Refitted:
    """An estimator's own value, with intervals by fitting it again to random halves of the log.

        v̂ ± t_{B − 1, (1 + level) / 2} · s,   s² = h / (N − h) · Var_b(v̂_b)

    v̂_b is the estimate from h = ⌊N / 2⌋ of the N episodes, drawn without replacement, by a fit of
    its own seed. A half differs from the whole, for an estimate whose error falls with √N, as the
    whole does from the truth: Var(v̂_b) = (N − h) / h · Var(v̂) (the exchangeable bootstrap of
    Præstgaard and Wellner 1993, with weights 0 and N / h; also half-sample replication). Episodes
    drawn twice, as the usual bootstrap has them, would stand on both sides of a cross-fit, and are
    refused.

    "percentile" takes quantiles in place of t · s, v̂ + s/sd · (q_b − v̄_b), for errors that are not
    normal; it needs refits beyond its outermost quantile, 40 or more for 95 %.

    All that the estimator does is in the spread: starts, training, cloned behaviour, ratios. What
    every fit gets wrong alike is not, and neither is what a fit to all of the log has learned more
    than one to half of it, which `Estimate.diagnostics` shows: `refit_mean`, beside the value.
    Where weights of logged episodes rest on too few of them, or were clipped or flattened, halves
    do not show the error either: then there is no interval, for the reason that the estimate gives.
    It costs `refits` fits of half the log; all policies of a call share them. The estimator's own
    intervals are replaced: where they cost something, as a model's anchors do, switch them off.

    Args:
        estimator: any; its settings decide what a fit costs.
        refits: B.
        method: "t" or "percentile".
        levels: confidence levels.
        jobs: processes that fit at once; more than 1 needs joblib.

    Raises:
        ConfigError: if a setting is out of its range, or the estimator is none, or there are too
            few refits for percentiles at a level.
    """

    def __init__(
        self,
        estimator: Estimator,
        *,
        refits: int = 20,
        method: Literal["t", "percentile"] = "t",
        levels: Sequence[float] = LEVELS,
        jobs: int = 1,
    ) -> None:
        if not isinstance(estimator, Estimator):
            raise ConfigError(
                f"{estimator!r} is no estimator; it must have an estimand and fit, such as "
                "FQE(Estimand(100))."
            )
        self.estimator = estimator
        self.refits = whole("refits", refits, least=3)
        self.levels, self.jobs = check_levels(levels), whole("jobs", jobs, least=1)
        choice("method", method, ("t", "percentile"))
        self.method = method
        needed = math.ceil(2.0 / (1.0 - self.levels[-1]) - 1e-9)
        if method == "percentile" and self.refits < needed:
            raise ConfigError(
                f"refits is {self.refits}, and percentiles at {self.levels[-1]:g} need {needed} or "
                "more; refit more often, take method='t', or lower levels."
            )

    @property
    def estimand(self) -> Estimand:
        return self.estimator.estimand

    def fit(
        self, data: Trajectories, seed: int, *, progress: Progress = silent
    ) -> "RefittedEstimates":
        """Fit to all of the log, and to random halves of it.

        Args:
            data: the log.
            seed: of everything that is random, the halves among it.
            progress: told how far the fit to all of the log is, and how many halves are done.

        Raises:
            DataError: if there are fewer than 4 episodes, or one stands in the data more than
                once, or the estimator refuses the log or a half of it.
            DivergedError: if a training diverges.
            MissingDependencyError: if jobs is more than 1, without joblib.
        """
        if self.jobs > 1:
            joblib_modules()  # is it there? The fit to all of the log may take hours
        require_episodes(data, 4, "each half of them is fitted to")
        count, size = data.num_episodes, data.num_episodes // 2
        rng = numpy_generator(seed, "refits")
        halves = [np.sort(rng.permutation(count)[:size]) for _ in range(self.refits)]
        whole_log = self.estimator.fit(data, seed, progress=progress)
        started = time.perf_counter()
        tasks = (
            _Fit(self.estimator, data.select(half.tolist()), derive(seed, "refit", str(number)))
            for number, half in enumerate(halves)
        )
        return RefittedEstimates(
            data_spaces=spaces_of(data),
            whole_log=whole_log,
            halves=tuple(_each(tasks, self.refits, self.jobs, progress)),
            scale=math.sqrt(size / (count - size)),
            method=self.method,
            levels=self.levels,
            jobs=self.jobs,
            seconds=time.perf_counter() - started,
        )


@dataclass(frozen=True)
class RefittedEstimates(Answering):
    """A fit to all of the log, and those to halves of it.

    Attributes:
        data_spaces: S, A and the kind of actions, of the log.
        whole_log: gives the values.
        halves: B fits, which give the spread.
        scale: √(h / (N − h)), what a half's deviation is multiplied by.
        method: "t" or "percentile".
        levels: confidence levels.
        jobs: processes that estimate at once.
        seconds: that the fits to halves took.
    """

    data_spaces: Spaces
    whole_log: Fitted
    halves: tuple[Fitted, ...]
    scale: float
    method: str
    levels: tuple[float, ...]
    jobs: int
    seconds: float

    @property
    def spaces(self) -> Spaces:
        return self.data_spaces

    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:
        """The wrapped estimator's values, with the refits' intervals."""
        every = list(policies)
        found = self.whole_log.estimate(every, progress=progress)
        started = time.perf_counter()
        tasks = (_Answer(half, every) for half in self.halves)
        refits = np.array(list(_each(tasks, len(self.halves), self.jobs, progress)))  # [B, P]
        seconds = self.seconds + time.perf_counter() - started
        return [
            self._with_spread(one, of_policy, seconds)
            for one, of_policy in zip(found, refits.T, strict=True)
        ]

    def _with_spread(
        self, estimate: Estimate, refits: NDArray[np.float64], seconds: float
    ) -> Estimate:
        told = {"refit_mean": float(refits.mean()), "refits": float(len(refits))}
        estimate = replace(
            estimate,
            diagnostics={**estimate.diagnostics, **told},
            seconds={**estimate.seconds, "refits": seconds},
        )
        hidden = _hidden(estimate)
        if hidden is not None:
            return replace(estimate, intervals=(), no_interval=hidden)
        error, freedom = self.scale * float(refits.std(ddof=1)), len(refits) - 1
        if self.method == "t":
            found = student_t(estimate.value, error, freedom, levels=self.levels, method="refits")
        else:
            moved = estimate.value + self.scale * (refits - refits.mean())
            found = percentiles(moved, self.levels, "refits, percentile")
        return replace(estimate, standard_error=error, intervals=found, no_interval=None)


def model_of(fitted: Fitted) -> FittedModel | None:
    """What values are simulated in, by the estimator itself or a wrapped one; None of others."""
    if isinstance(fitted, RefittedEstimates):
        return model_of(fitted.whole_log)
    return fitted if isinstance(fitted, FittedModel) else None


def _hidden(estimate: Estimate) -> str | None:
    """Why no refit shows the error: what weights miss, they miss in every half of the log too."""
    if estimate.ess is None or estimate.episodes is None:
        return None
    said, too_few = estimate.no_interval, TOO_FEW_CARRY.no_interval
    missing = estimate.diagnostics.get("mean_weight", 1.0) < LEAST_MEAN_WEIGHT
    if said == NOT_WANTED.no_interval:
        return too_few if missing or estimate.standard_error is None else None
    return said if missing or said in (too_few, SHAPED) else None


@dataclass(frozen=True)
class _Fit:
    """One fit to a half of the log; a process of its own may run it."""

    estimator: Estimator
    half: Trajectories
    seed: int

    def __call__(self) -> Fitted:
        return self.estimator.fit(self.half, self.seed)


@dataclass(frozen=True)
class _Answer:
    """One fit's values of every policy."""

    fitted: Fitted
    policies: list[Policy]

    def __call__(self) -> list[float]:
        return [one.value for one in self.fitted.estimate(self.policies)]


def _each(
    tasks: Iterable[Callable[[], Done]], total: int, jobs: int, progress: Progress
) -> Iterable[Done]:
    """What the tasks give, in their order; each is made when it is its turn."""
    for done, found in enumerate(_run(tasks, jobs), 1):
        progress("refits", done, total)
        yield found


def _run(tasks: Iterable[Callable[[], Done]], jobs: int) -> Iterable[Done]:
    if jobs == 1:
        return (task() for task in tasks)
    joblib, _ = joblib_modules()
    parallel: Any = joblib.Parallel(n_jobs=jobs, return_as="generator")
    found: Iterable[Done] = parallel(joblib.delayed(task)() for task in tasks)
    return found

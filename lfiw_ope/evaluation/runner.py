"""Jobs of a comparison: estimators that share a fit, one seed, every policy."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any, Protocol, cast

from lfiw_ope.core.errors import MissingDependencyError, OPEError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Policy, Progress
from lfiw_ope.core.runtime import torch_state_kept
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnostics.diagnose import diagnose, diagnose_model
from lfiw_ope.diagnostics.diagnosis import Diagnosis, concerns_of
from lfiw_ope.diagnostics.thresholds import Thresholds
from lfiw_ope.estimators.base import Estimator, Fitted, SharingEstimator, share_fits
from lfiw_ope.estimators.behaviour import BehaviourReturn
from lfiw_ope.estimators.half_sampling import model_of
from lfiw_ope.evaluation.summary import Row
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.intervals import Interval


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


Looked = dict[str, Diagnosis]
"""Diagnoses by policy, of those that can be diagnosed."""


@dataclass(frozen=True)
class Look:
    """What is known without a model, of one seed: fits that are judged one after another share it.

    Attributes:
        data: the log.
        policies: by name.
    """

    data: Trajectories
    policies: Mapping[str, Policy]
    _known: dict[tuple[Estimand, int], Looked] = field(default_factory=dict)

    def at(self, estimand: Estimand, seed: int, progress: Progress) -> Looked:
        """Of every policy, looked at where it is not known yet."""
        if (estimand, seed) not in self._known:

            def look(names: Sequence[str]) -> list[Diagnosis]:
                policies = [self.policies[name] for name in names]
                return diagnose(self.data, policies, estimand, seed=seed, progress=progress)

            self._known.clear()  # seeds come one after the other
            self._known[estimand, seed] = _each(list(self.policies), look)
        return self._known[estimand, seed]


@dataclass(frozen=True)
class Judge:
    """Refuses estimates of one fit as `lfiw_ope.evaluation.evaluate.evaluate` does.

    Attributes:
        thresholds: beyond which the data cannot tell.
        look: what is known of log and policies without a model.
        estimand: what is estimated.
        fitted: what answers; where it is a model, its rollouts are looked at too.
        seed: of the fit.
        progress: told how far the look is.
    """

    thresholds: Thresholds
    look: Look
    estimand: Estimand
    fitted: Fitted
    seed: int
    progress: Progress

    def reasons(self, policy: str, estimate: Estimate) -> tuple[str, ...]:
        """Why the policy's estimate is refused; nothing where it is given.

        Of a policy that cannot be diagnosed, the estimate alone is judged.
        """
        found = self._diagnoses.get(policy) if concerns_of(estimate) else None
        return self.thresholds.reasons(estimate, found)

    @cached_property
    def _diagnoses(self) -> Looked:
        known = self.look.at(self.estimand, self.seed, self.progress)
        model = model_of(self.fitted)
        if model is None or not known:
            return known

        def look(names: Sequence[str]) -> list[Diagnosis]:
            return diagnose_model(
                [known[name] for name in names],
                self.look.data,
                [self.look.policies[name] for name in names],
                dynamics=model.dynamics,
                ratio=model.ratio,
                held_out=model.held_out,
                seed=self.seed,
                progress=self.progress,
            )

        return _each(list(known), look)


def _each(names: Sequence[str], look: Callable[[Sequence[str]], list[Diagnosis]]) -> Looked:
    """All in one call; where one cannot be diagnosed, each alone."""
    try:
        return dict(zip(names, look(names), strict=True))
    except OPEError:
        if len(names) == 1:
            return {}
    return {name: of for one in names for name, of in _each([one], look).items()}


def finish_all(tasks: Iterable[Task], progress: Progress) -> Iterator[tuple[Source, Cell]]:
    """One unit after the other; those in a row that are of one source have its inputs in common.

    After an estimator of the user's they are had anew: it may have written into the log or into a
    policy, and what others say of it must not hang on who came before.
    """
    source: Source | None = None
    inputs: Inputs | None = None
    look: Look | None = None
    for task in tasks:
        if inputs is None or task.source is not source:
            inputs = look = None  # no two logs at once
            try:
                source, inputs = task.source, task.source.load()
            except Exception as error:  # as of an estimator: the other units are worth having
                reason = f"There is no log: {reason_of(error)}"
                for cell in task.failed(reason, lasting=False):
                    yield task.source, cell
                continue
            look = Look(inputs.data, inputs.policies)
        mean = BehaviourReturn.of(inputs.data, task.work.estimand).mean
        for cell in finish(inputs, task.work, progress, look):
            yield task.source, replace(cell, behaviour=mean)
        if not _shipped(task.work):
            inputs = None


def finish(
    inputs: Inputs, work: Work, progress: Progress, look: Look | None = None
) -> Iterator[Cell]:
    """Fit once, and let each of the estimators answer; a failure is a row with its reason.

    Args:
        inputs: of the unit.
        work: the unit.
        progress: told how far the work is.
        look: what units before this one have seen of log and policies.
    """
    started = time.perf_counter()
    first, fits = next(iter(work.estimators.values())), dict[str, Fitted | Exception]()
    try:
        with torch_state_kept():
            fitted = first.fit(inputs.data, work.seed, progress=progress)
    except (Exception, SystemExit) as error:  # whatever it is, the other cells are worth having
        reason = f"The fit failed: {reason_of(error)}"
        seconds, lasting = time.perf_counter() - started, _shipped(work) and _lasts(error)
        yield from work.failed(inputs.names, reason, seconds, lasting=lasting)
        return
    for name, estimator in work.estimators.items():
        # All adopt before one answers, so that what is trained in answering is kept for all.
        fits[name] = fitted if estimator is first else _adopted(estimator, fitted)
    shared = (time.perf_counter() - started) / len(work.estimators)
    judge = None
    if inputs.thresholds is not None:
        look = Look(inputs.data, inputs.policies) if look is None else look
        judge = Judge(inputs.thresholds, look, first.estimand, fitted, work.seed, progress)
    for name, fit in fits.items():
        yield _cell(inputs, name, work, fit, shared, judge, progress)


def reason_of(error: BaseException) -> str:
    """What was raised, on one line: the package's own messages say all, others need their type."""
    try:
        # What no file can hold, such as of a name of a file that is not UTF-8, by its escape.
        text = " ".join(str(error).encode(errors="backslashreplace").decode().split())
    except Exception:  # the user's own may fail in telling what it is
        text = ""
    if isinstance(error, OPEError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _lasts(error: BaseException) -> bool:
    """Whether the same would be raised again, whatever is mended around it."""
    return isinstance(error, OPEError) and not isinstance(error, MissingDependencyError)


def _shipped(work: Work) -> bool:
    """Whether it is of the package's estimators alone, and none of the user's."""
    package = __name__.partition(".")[0]
    kinds = [type(one).__module__.partition(".")[0] for one in work.estimators.values()]
    return all(kind == package for kind in kinds)


def _adopted(estimator: Estimator, fitted: Fitted) -> Fitted | Exception:
    try:
        return cast(SharingEstimator, estimator).adopt(fitted)
    except Exception as error:
        return error


def _cell(
    inputs: Inputs,
    name: str,
    work: Work,
    fitted: Fitted | Exception,
    shared: float,
    judge: Judge | None,
    progress: Progress,
) -> Cell:
    """An estimator's rows.

    A failure of one of the user's own, who will mend it, does not last, nor does one of judging:
    there is an answer, and what could not be seen of it is not the estimator's doing.
    """
    started, policies, rows, lasting = time.perf_counter(), inputs.policies, [], True
    answers = _answers(fitted, list(policies.values()), work.estimand, progress)
    for policy, answer in zip(policies, answers, strict=True):
        if isinstance(answer, Exception):
            rows.append(Row.failed(name, policy, work.seed, reason_of(answer)))
            lasting = lasting and _lasts(answer)
            continue
        rows.append(Row.of(answer, name, policy, work.seed))
    if not _shipped(work) and _failed(rows):
        lasting = False
    each = (shared + time.perf_counter() - started) / len(policies)
    rows = [replace(row, seconds=each) for row in rows]
    if judge is not None:
        started = time.perf_counter()
        judged = [
            _judged(row, judge, answer, keep=inputs.keep_refused)
            for row, answer in zip(rows, answers, strict=True)
        ]
        each = (time.perf_counter() - started) / len(policies)
        lasting = lasting and _failed(judged) == _failed(rows)
        rows = [replace(row, judging_seconds=each) for row in judged]
    return Cell(name, work.seed, tuple(rows), lasting)


def _failed(rows: Iterable[Row]) -> int:
    return sum(row.status == "failed" for row in rows)


def _answers(
    fitted: Fitted | Exception,
    policies: Sequence[Policy],
    estimand: Estimand,
    progress: Progress,
) -> list[Estimate | Exception]:
    """Of all policies in one call; where that fails, of each alone, to see which is guilty."""
    if isinstance(fitted, Exception):
        return [fitted] * len(policies)
    try:
        with torch_state_kept():
            found = fitted.estimate(policies, progress=progress)
        if len(found) != len(policies):
            raise ValueError(f"{len(found)} estimates of {len(policies)} policies")
        for one in found:
            _require_answer(one, estimand)
        return list(found)
    except SystemExit as error:  # of the user's code, which shall not end the others' work
        return [RuntimeError(f"SystemExit: {error}")] * len(policies)
    except Exception as error:
        if len(policies) == 1:
            return [error]
    return [
        answer for policy in policies for answer in _answers(fitted, [policy], estimand, progress)
    ]


def _require_answer(one: Any, estimand: Estimand) -> None:
    """That it is an estimate of what was asked, with numbers and words that a row can hold."""
    if not isinstance(one, Estimate):
        raise TypeError(f"estimate gave a {type(one).__name__}; expected an Estimate")
    if one.estimand != estimand:
        raise ValueError(f"estimate gave {one.estimand}; expected the value of {estimand}")
    for name, kind in (("intervals", Interval), ("warnings", str)):
        every = getattr(one, name)
        if not isinstance(every, tuple) or not all(isinstance(of, kind) for of in every):
            raise TypeError(
                f"the estimate's {name} are {every!r:.60}; expected a tuple of {kind.__name__}"
            )
    numbers = [("value", one.value)]
    optional = (("standard error", one.standard_error), ("ess", one.ess))
    numbers += [(name, of) for name, of in optional if of is not None]
    for found in one.intervals:
        numbers += [("interval", of) for of in (found.low, found.high)]
        numbers += [("interval's level", found.level)]
    for name, number in numbers:
        if not isinstance(number, Real):
            raise TypeError(f"the estimate's {name} is {number!r:.60}; expected a number")
        float(number)  # of a whole number that no float holds, an OverflowError
    for found in one.intervals:
        if found.low > found.high:
            raise ValueError(f"the estimate's interval {found} ends below where it begins")
    for said in one.warnings:
        said.encode()  # of what no file can hold, a UnicodeEncodeError


def _judged(row: Row, judge: Judge, estimate: Estimate | Exception, *, keep: bool) -> Row:
    """The row, or one that is refused where the data cannot tell its numbers."""
    if row.status != "ok" or isinstance(estimate, Exception):
        return row
    try:
        reasons = judge.reasons(row.policy, estimate)
    except Exception as error:  # as of an estimator: the other cells are worth having
        reason = f"Whether the data can tell it could not be seen: {reason_of(error)}"
        return Row.failed(row.estimator, row.policy, row.seed, reason, row.seconds)
    if not reasons:
        return row
    refused = replace(row, status="refused", reason=" ".join(reasons))
    return refused if keep else refused.without_numbers()

"""The unit of work: estimators that share a fit, at one seed, on every policy."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, cast

from lfiw_ope.answering import Estimator, Fitted
from lfiw_ope.behaviour_return import BehaviourReturn
from lfiw_ope.comparison.judging import Judge, Look
from lfiw_ope.comparison.rows import Row
from lfiw_ope.comparison.tasks import Cell, Inputs, Source, Task, Work
from lfiw_ope.errors import MissingDependencyError, OPEError
from lfiw_ope.estimand import Estimand
from lfiw_ope.intervals.record import Interval
from lfiw_ope.results import Estimate
from lfiw_ope.sharing import SharingEstimator
from lfiw_ope.torch_state import torch_state_kept
from lfiw_ope.types import Policy, Progress


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

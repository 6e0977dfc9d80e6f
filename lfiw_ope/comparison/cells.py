"""The unit of work: estimators that share a fit, at one seed, on every policy."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from lfiw_ope.answering import Estimator, Fitted
from lfiw_ope.comparison.judging import Judge, Look
from lfiw_ope.comparison.rows import Row
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import MissingDependencyError, OPEError
from lfiw_ope.refusal import Thresholds
from lfiw_ope.results import Estimate
from lfiw_ope.sharing import SharingEstimator
from lfiw_ope.types import Policy, Progress


@dataclass(frozen=True)
class Inputs:
    """What every unit of work is given.

    Attributes:
        data: the log.
        policies: by name.
        thresholds: beyond which an estimate is no answer; None takes every one.
    """

    data: Trajectories
    policies: Mapping[str, Policy]
    thresholds: Thresholds | None


@dataclass(frozen=True)
class Work:
    """Estimators that share a fit, by name, and a seed."""

    estimators: Mapping[str, Estimator]
    seed: int

    def failed(
        self, inputs: Inputs, reason: str, seconds: float = 0.0, *, lasting: bool = True
    ) -> "list[Cell]":
        """What it comes to where nothing came of it."""
        each = seconds / len(self.estimators) / len(inputs.policies)
        return [
            Cell(
                name,
                self.seed,
                tuple(
                    _without(name, policy, self.seed, reason, each) for policy in inputs.policies
                ),
                lasting,
            )
            for name in self.estimators
        ]


@dataclass(frozen=True)
class Cell:
    """What one estimator said at one seed: a row a policy.

    `lasting` is False of one that is worth another try: its process or machine was lost, or it
    failed by what the package does not raise of itself, such as memory, a package that is missing
    or an error in an estimator of the user's.
    """

    estimator: str
    seed: int
    rows: tuple[Row, ...]
    lasting: bool = True


def finish(
    inputs: Inputs, work: Work, progress: Progress, look: Look | None = None
) -> Iterator[Cell]:
    """Fit once, and let each of the estimators answer; a failure is a row with its reason.

    Args:
        inputs: of every unit.
        work: the unit.
        progress: told how far the work is.
        look: what units before this one have seen of log and policies.
    """
    started = time.perf_counter()
    first, fits = next(iter(work.estimators.values())), dict[str, Fitted | Exception]()
    try:
        fitted = first.fit(inputs.data, work.seed, progress=progress)
    except Exception as error:  # whatever it is, the other cells are worth having
        reason = f"The fit failed: {reason_of(error)}"
        seconds = time.perf_counter() - started
        yield from work.failed(inputs, reason, seconds, lasting=_lasts(error))
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
        yield _cell(inputs, name, work.seed, fit, shared, judge, progress)


def reason_of(error: BaseException) -> str:
    """What was raised, in words: the package's own messages say all, others need their type."""
    text = str(error).strip()
    if isinstance(error, OPEError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _lasts(error: BaseException) -> bool:
    """Whether the same would be raised again, whatever is mended around it."""
    return isinstance(error, OPEError) and not isinstance(error, MissingDependencyError)


def _adopted(estimator: Estimator, fitted: Fitted) -> Fitted | Exception:
    try:
        return cast(SharingEstimator, estimator).adopt(fitted)
    except Exception as error:
        return error


def _cell(
    inputs: Inputs,
    name: str,
    seed: int,
    fitted: Fitted | Exception,
    shared: float,
    judge: Judge | None,
    progress: Progress,
) -> Cell:
    started, policies, rows, lasting = time.perf_counter(), inputs.policies, [], True
    answers = _answers(fitted, list(policies.values()), progress)
    for policy, answer in zip(policies, answers, strict=True):
        if isinstance(answer, Exception):
            rows.append(_without(name, policy, seed, reason_of(answer)))
            lasting = lasting and _lasts(answer)
            continue
        row = Row.of(answer, name, policy, seed)
        rows.append(row if judge is None else _judged(row, judge, answer))
    each = (shared + time.perf_counter() - started) / len(policies)
    return Cell(name, seed, tuple(replace(row, seconds=each) for row in rows), lasting)


def _answers(
    fitted: Fitted | Exception, policies: Sequence[Policy], progress: Progress
) -> list[Estimate | Exception]:
    """Of all policies in one call; where that fails, of each alone, to see which is guilty."""
    if isinstance(fitted, Exception):
        return [fitted] * len(policies)
    try:
        found = fitted.estimate(policies, progress=progress)
        if len(found) != len(policies):
            raise ValueError(f"{len(found)} estimates of {len(policies)} policies")
        for one in found:
            if not isinstance(one, Estimate):
                raise TypeError(f"estimate gave a {type(one).__name__}; expected an Estimate")
        return list(found)
    except Exception as error:
        if len(policies) == 1:
            return [error]
    return [answer for policy in policies for answer in _answers(fitted, [policy], progress)]


def _judged(row: Row, judge: Judge, estimate: Estimate) -> Row:
    """The row, or one without numbers where the data cannot tell them."""
    if row.status != "ok":
        return row
    try:
        reasons = judge.reasons(row.policy, estimate)
    except Exception as error:  # as of an estimator: the other cells are worth having
        reason = f"Whether the data can tell it could not be seen: {reason_of(error)}"
        return _without(row.estimator, row.policy, row.seed, reason)
    if not reasons:
        return row
    told = " ".join(reasons)
    empty = _without(row.estimator, row.policy, row.seed, told, status="refused")
    return replace(empty, warnings=row.warnings)


def _without(
    estimator: str,
    policy: str,
    seed: int,
    reason: str,
    seconds: float = 0.0,
    status: Literal["failed", "refused"] = "failed",
) -> Row:
    return Row(
        estimator=estimator,
        policy=policy,
        seed=seed,
        status=status,
        reason=reason,
        seconds=seconds,
    )

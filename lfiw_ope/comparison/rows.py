"""A row of the table: one estimator, one policy, one seed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isclose, isfinite
from numbers import Real
from typing import Any, Literal, get_args

from lfiw_ope.errors import DataError
from lfiw_ope.results import Estimate

LEVEL = 0.95
"""Confidence level of the interval that a row carries."""

Status = Literal["ok", "failed", "refused"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one estimator said of one policy, or why it said nothing.

    Attributes:
        estimator: its name in the comparison.
        policy: its name in the comparison.
        seed: of the fit and of everything after it.
        status: "ok"; "failed", where something was raised; "refused", where the data cannot tell.
            "ok" alone is an answer; a refused row may keep its numbers, for whoever asks what
            refusing does.
        reason: why there is no answer; empty where there is one.
        value: the estimate, in units of return; None without one, like all numbers that follow.
        standard_error: from the sampling of the logged episodes; None where it is not known.
        low, high: ends of the 95 % interval; None where the estimate has none.
        ess: effective sample size of the weights; None where nothing is weighed.
        truth: the policy's value, where it was given.
        seconds: wall-clock, of which every policy of a call and every estimator of a shared fit
            bears an equal part, so that rows add up to what was spent. What an estimator finds
            done by another that shares its fit costs it nothing.
        judging_seconds: likewise, of looking whether the data can tell; no part of `seconds`.
        warnings: the estimate's.
    """

    estimator: str
    policy: str
    seed: int
    status: Status
    reason: str = ""
    value: float | None = None
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    ess: float | None = None
    truth: float | None = None
    seconds: float = 0.0
    judging_seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, estimate: Estimate, estimator: str, policy: str, seed: int) -> "Row":
        """What an estimate comes to in the table."""
        if not isfinite(estimate.value):
            return cls.failed(estimator, policy, seed, f"The estimate is {estimate.value}.")
        near = [one for one in estimate.intervals if isclose(one.level, LEVEL)]
        return cls(
            estimator=estimator,
            policy=policy,
            seed=seed,
            status="ok",
            value=float(estimate.value),
            standard_error=_finite(estimate.standard_error),
            low=_finite(near[0].low) if near else None,
            high=_finite(near[0].high) if near else None,
            ess=_finite(estimate.ess),
            warnings=tuple(estimate.warnings),
        )

    @classmethod
    def failed(
        cls, estimator: str, policy: str, seed: int, reason: str, seconds: float = 0.0
    ) -> "Row":
        """One where something was raised."""
        return cls(
            estimator=estimator,
            policy=policy,
            seed=seed,
            status="failed",
            reason=reason,
            seconds=seconds,
        )

    @property
    def covers(self) -> bool | None:
        """Whether the interval holds the truth; None where one of them is missing."""
        if self.low is None or self.high is None or self.truth is None:
            return None
        return self.low <= self.truth <= self.high

    @property
    def answer(self) -> float | None:
        """The value, where it is given as one: not where it is refused."""
        return self.value if self.status == "ok" else None

    def without_numbers(self) -> "Row":
        """The same row with nothing of the estimate but its warnings."""
        return replace(self, value=None, standard_error=None, low=None, high=None, ess=None)

    def told(self, truth: float | None) -> "Row":
        """The same row with the policy's value."""
        return replace(self, truth=truth)

    def _require_agreement(self) -> None:
        """That fields which were read do not contradict each other."""
        if self.status == "ok" and self.value is None:
            raise TypeError("it is ok and has no value")
        if self.status == "failed" and (self.value is not None or not self.reason):
            raise TypeError("it failed and has a value, or no reason")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise TypeError(f"its interval is from {self.low} to {self.high}")
        if min(self.seconds, self.judging_seconds) < 0:
            raise TypeError(f"its seconds are {self.seconds} and {self.judging_seconds}")

    def to_dict(self) -> dict[str, Any]:
        """As plain Python numbers, lists and strings."""
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Row":
        """The inverse of `to_dict`.

        Raises:
            DataError: if fields are missing or unknown, or hold what no row holds.
        """
        try:
            found = cls(**{**plain, "warnings": tuple(plain["warnings"])})
            require_kinds(found, _KINDS)
            require_one_of("status", found.status, get_args(Status))
            warnings = plain["warnings"]
            if not isinstance(warnings, list) or not all(isinstance(w, str) for w in warnings):
                raise TypeError(f"its warnings are {warnings!r:.40}")
            found._require_agreement()
        except (KeyError, TypeError) as error:
            raise DataError(f"This is no stored row of a comparison ({error}).") from error
        return found


Kinds = Mapping[tuple[str, ...], Any]
"""By names of fields, what `isinstance` has to say of them."""

_KINDS: Kinds = {
    ("estimator", "policy", "reason"): str,
    ("seed",): int,
    ("value", "standard_error", "low", "high", "ess", "truth"): Real | None,
    ("seconds", "judging_seconds"): Real,
}


def require_kinds(record: Any, kinds: Kinds) -> None:
    """That fields which were read hold what they say, and no number is infinite or NaN.

    Raises:
        TypeError: if one does not.
    """
    for names, kind in kinds.items():
        for name in names:
            value = getattr(record, name)
            other = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
            if other or (isinstance(value, Real) and not _is_finite(value)):
                raise TypeError(f"its {name} is {value!r:.40}")


def require_one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """That a field which was read is one of these words.

    Raises:
        TypeError: if it is not.
    """
    if value not in known:
        raise TypeError(f"its {name} is {value!r:.40} and none of {', '.join(known)}")


def _is_finite(value: Any) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _finite(value: float | None) -> float | None:
    """JSON has no number for infinity and NaN."""
    return None if value is None or not isfinite(value) else float(value)

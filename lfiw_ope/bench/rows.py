"""A row of a benchmark's results: a row of a comparison, and what it was a comparison on."""

from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any, get_args

from lfiw_envs.ladder import Purpose

from lfiw_ope.comparison.rows import Kinds, Row, require_kinds, require_one_of
from lfiw_ope.errors import DataError

Key = tuple[str, str, int, str, int]
"""Of a unit: task, data, transitions, question and seed."""


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """What one estimator said of one policy in one cell of a suite.

    Attributes:
        task: the ladder.
        purpose: of the ladder, "development" or "report".
        data: the data set's name.
        transitions: in it.
        question: the estimand's name.
        row: the answer, with its seed, its truth and its seconds.
        truth_error: standard error of the truth.
        scale: range of the true values of all targets of the ladder, the unit of errors.
        support: share of what the policy does that the data set supports, 0 to 1.
        supported: whether that is enough, by the rule fixed before any estimator ran.
        behaviour: mean return of the data set.
    """

    task: str
    purpose: Purpose
    data: str
    transitions: int
    question: str
    row: Row
    truth_error: float
    scale: float
    support: float
    supported: bool
    behaviour: float

    @property
    def unit(self) -> Key:
        """The log and the seed that it is of."""
        return (self.task, self.data, self.transitions, self.question, self.row.seed)

    @classmethod
    def columns(cls) -> list[str]:
        """Of a table with a line a row, in the order of `to_dict`."""
        own = [one.name for one in fields(cls) if one.name != "row"]
        return [*own, *(one.name for one in fields(Row))]

    def to_dict(self) -> dict[str, Any]:
        """As plain Python numbers, lists and strings, without nesting."""
        plain = asdict(self)
        del plain["row"]
        return {**plain, **self.row.to_dict()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "BenchRow":
        """The inverse of `to_dict`.

        Raises:
            DataError: if fields are missing or unknown, or hold what no row holds.
        """
        if not isinstance(plain, dict):
            raise DataError(f"This is no stored row of a benchmark ({plain!r:.40}).")
        own = {name: of for name, of in plain.items() if name in cls.__dataclass_fields__}
        rest = {name: of for name, of in plain.items() if name not in own}
        try:
            found = cls(row=Row.from_dict(rest), **own)
            require_kinds(found, _KINDS)
            require_one_of("purpose", found.purpose, get_args(Purpose))
        except TypeError as error:
            raise DataError(f"This is no stored row of a benchmark ({error}).") from error
        return found


_KINDS: Kinds = {
    ("task", "purpose", "data", "question"): str,
    ("transitions",): int,
    ("truth_error", "scale", "support", "behaviour"): Real,
    ("supported",): bool,
}

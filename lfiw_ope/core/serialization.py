"""Results in files: plain numbers, atomic writes, provenance, Markdown tables."""

import json
import math
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch

from lfiw_ope.core.errors import DataError

__version__ = "0.1.0"


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """The first column to the left, as it holds names, and the others, of numbers, to the right."""
    rules = ["---", *["---:"] * (len(head) - 1)]
    return "".join(
        "|" + "".join(f" {cell} |" if cell else " |" for cell in line) + "\n"
        for line in (head, rules, *lines)
    )


def counted(count: int, what: str) -> str:
    """A number and its noun: 1 seed, 2 seeds."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def provenance() -> dict[str, Any]:
    """What made a result: versions, for whoever wants the same number again."""
    versions = {"lfiw_ope": __version__, "python": platform.python_version()}
    return {"machine": {**versions, "torch": torch.__version__}}


def plain_settings(settings: Any) -> dict[str, Any]:
    """A configuration as JSON can hold it: infinity, which leaves a bound open, becomes None."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(of) for key, of in value.items()}
        if isinstance(value, list | tuple):
            return [plain(of) for of in value]
        return None if isinstance(value, float) and math.isinf(value) else value

    converted: dict[str, Any] = plain(asdict(settings))
    return converted


def write_text(path: str | Path, text: str) -> Path:
    """Write a file under a temporary name and rename it: never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # on a full disk it would take what little there is


def read_json(text: str) -> Any:
    """What is in a JSON text, without NaN and infinity, which JSON does not have.

    Raises:
        ValueError: if it is none.
    """

    def refused(said: str) -> None:
        raise ValueError(f"it holds {said}")

    try:
        return json.loads(text, parse_constant=refused)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


class Stored(ABC):
    """A record that is kept as JSON, by what it says of itself in plain numbers."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """As plain Python numbers, lists and strings."""

    @classmethod
    @abstractmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            DataError: if fields are missing or unknown.
        """

    def to_json(self, path: str | Path | None = None) -> str:
        """JSON text; written to `path` too, where one is given, whole or not at all."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        if path is not None:
            write_text(path, text + "\n")
        return text

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            DataError: if the text is no JSON, or of another record.
        """
        try:
            plain = read_json(text)
        except ValueError as error:
            raise DataError(f"This is no JSON ({error}).") from error
        return cls.from_dict(plain)

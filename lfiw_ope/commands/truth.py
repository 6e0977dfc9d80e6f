"""Policies' true values, from a file."""

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from lfiw_ope.errors import ConfigError, DataError


def read_truth(path: Path, policies: Iterable[str], terminal: Console) -> dict[str, float]:
    """The true values of these policies; what the file and the policies do not share is said.

    The file is JSON, `{"name": 12.3}` or `{"name": {"value": 12.3, …}}`, or CSV with columns
    `policy` and `value`; anything else in it, such as a standard error, is not read.

    Args:
        path: the file.
        policies: their names.
        terminal: where it is said.

    Raises:
        DataError: if there is no such file, or it is none of these.
        ConfigError: if it knows none of the policies.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path} of true values.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        known = _table(text, path) if path.suffix.lower() == ".csv" else _object(text, path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text file of true values ({error}).") from error
    names = list(policies)
    found = {name: known[name] for name in names if name in known}
    if not found:
        raise ConfigError(
            f"{path} has the true values of {_listed(known)}, and the policies are "
            f"{_listed(names)}; name them alike."
        )
    for said, missing in (
        (f"{path} has no true value of", [name for name in names if name not in known]),
        ("There is no policy for the true value of", [name for name in known if name not in found]),
    ):
        if missing:
            terminal.print(f"Warning: {said} {_listed(missing)}.", soft_wrap=True)
    return found


def _listed(names: Iterable[str], most: int = 5) -> str:
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return (", ".join(every[:most]) or "nothing") + more


def _object(text: str, path: Path) -> dict[str, float]:
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is neither JSON nor, by its name, CSV ({error}).") from error
    if not isinstance(plain, dict):
        raise DataError(
            f'{path} holds a {type(plain).__name__}; expected {{"policy": value, …}}, by name.'
        )
    return {
        name: _number(of.get("value") if isinstance(of, dict) else of, name, path)
        for name, of in plain.items()
    }


def _table(text: str, path: Path) -> dict[str, float]:
    rows = csv.DictReader(io.StringIO(text))
    if not {"policy", "value"} <= set(rows.fieldnames or ()):
        raise DataError(
            f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'of an empty file'}; "
            "expected policy and value among them."
        )
    found: dict[str, float] = {}
    for row in rows:
        if row["policy"] in found:
            raise DataError(f"{path} has two true values of {row['policy']}; leave one.")
        found[row["policy"]] = _number(row["value"], row["policy"], path)
    return found


def _number(value: Any, name: str, path: Path) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{path} says that {name} is worth {value!r}; expected a number.")
    return number

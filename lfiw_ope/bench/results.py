"""A benchmark's results on disk: JSON that tells everything, CSV with a row an estimate."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lfiw_ope.bench.rows import BenchRow
from lfiw_ope.comparison.rows import require_kinds
from lfiw_ope.errors import ConfigError, DataError
from lfiw_ope.stored import Stored, write_text

WRITTEN = ("results.json", "results.csv", *(f"leaderboard.{end}" for end in ("json", "md", "png")))
"""Files that a run leaves beside its cells."""


@dataclass(frozen=True)
class BenchResults(Stored):
    """What a suite came to.

    Attributes:
        about: what made the rows: suite, command, settings, versions.
        rows: of the trials that are finished, in their order, then by estimator and policy.
        trials: that the suite has; `finished` of them are in the rows.
        finished: trials of which every cell is there.
        without_log: trials whose log could not be had, by name, with the reason.
    """

    about: Mapping[str, Any]
    rows: tuple[BenchRow, ...]
    trials: int
    finished: int
    without_log: Mapping[str, str]

    @property
    def head(self) -> dict[str, Any]:
        """All but the rows: what made them, and how much of the suite they are."""
        return {
            **self.about,
            "trials": self.trials,
            "finished": self.finished,
            "without_log": dict(self.without_log),
        }

    def to_dict(self) -> dict[str, Any]:
        """As plain Python numbers, lists and strings."""
        return {**self.head, "rows": [row.to_dict() for row in self.rows]}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            DataError: if it is no stored benchmark.
        """
        own = ("trials", "finished", "without_log")
        try:
            rows = tuple(BenchRow.from_dict(row) for row in plain["rows"])
            about = {name: of for name, of in plain.items() if name not in (*own, "rows")}
            found = cls(about, rows, *(plain[name] for name in own))
            require_kinds(found, {own[:2]: int, own[2:]: dict})
            return found
        except (KeyError, TypeError) as error:
            raise DataError(f"These are no stored results of a benchmark ({error}).") from error

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """What `save` wrote as `results.json`.

        Raises:
            DataError: if it is not such a file.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, DataError) as error:
            raise DataError(
                f"{path} holds no results of a benchmark ({error}); expected the results.json that "
                "lfiw-ope bench writes."
            ) from error

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write `results.json` and `results.csv`; each appears whole or not at all."""
        plain = self.to_dict()
        text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
        saved = write_text(folder / "results.json", text)
        return saved, write_text(folder / "results.csv", _csv(plain["rows"]))


def require_free(folder: Path, *, resume: bool) -> None:
    """That a run may write its results into a folder, where other results are not lost by it.

    Args:
        folder: need not be there.
        resume: whether the run is to go on with what is there.

    Raises:
        ConfigError: if it holds a benchmark and `resume` is False, or results without the cells
            that they are of.
    """
    if (folder / "units").exists():
        if not resume:
            raise ConfigError(
                f"{folder} holds a benchmark; go on with it by resume=True (--resume), or name "
                "another folder."
            )
        return
    there = [name for name in WRITTEN if (folder / name).exists()]
    if there:
        raise ConfigError(
            f"{folder} holds {', '.join(there)}, and not the cells (units/) that they would be of; "
            "name another folder, so that they are not replaced."
        )


def finished_in(path: Path) -> int:
    """Trials that a file of results has; 0 where there is none."""
    try:
        return BenchResults.read(path).finished
    except DataError:
        return 0


def _csv(rows: list[dict[str, Any]]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, BenchRow.columns(), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "warnings": " ".join(row["warnings"])} for row in rows)
    return table.getvalue()

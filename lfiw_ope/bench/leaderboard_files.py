"""A leaderboard on disk: JSON, Markdown and a figure, from results that are on disk."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfiw_ope.bench.leaderboard import Leaderboard
from lfiw_ope.bench.leaderboard_figures import draw_leaderboard
from lfiw_ope.bench.leaderboard_text import as_markdown
from lfiw_ope.bench.rows import BenchRow
from lfiw_ope.errors import DataError
from lfiw_ope.plots import save_figure
from lfiw_ope.stored import provenance, write_text


def read_results(path: Path) -> tuple[list[BenchRow], dict[str, Any]]:
    """Rows of a benchmark's `results.json`, and what else it says: suite, command, settings.

    Raises:
        DataError: if it is not such a file.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows = [BenchRow.from_dict(one) for one in stored.pop("rows")]
    except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} holds no results of a benchmark ({error}); expected the results.json that "
            "lfiw-ope bench writes."
        ) from error
    return rows, stored


def write_leaderboard(
    rows: Sequence[BenchRow], folder: Path, about: Mapping[str, Any]
) -> tuple[Leaderboard, tuple[Path, ...]]:
    """Make the leaderboard and write `leaderboard.{json,md,png}`; each file whole or not at all.

    The same rows make the same files.

    Args:
        rows: of a benchmark.
        folder: where to.
        about: what made the rows; versions are this package's where it has none.

    Raises:
        DataError: if there is nothing to rank; see `Leaderboard.of`.
        MissingDependencyError: if matplotlib is not installed.
    """
    board = Leaderboard.of(rows, {**provenance(), **about})
    board.to_json(folder / "leaderboard.json")
    saved = (
        folder / "leaderboard.json",
        write_text(folder / "leaderboard.md", as_markdown(board)),
        save_figure(draw_leaderboard(rows, board), folder / "leaderboard.png"),
    )
    return board, saved

"""A leaderboard on disk: JSON, Markdown and a figure, from results that are on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfiw_ope.bench.leaderboard import Leaderboard
from lfiw_ope.bench.leaderboard_figures import draw_leaderboard
from lfiw_ope.bench.leaderboard_text import as_markdown
from lfiw_ope.bench.rows import BenchRow
from lfiw_ope.plots import save_figure
from lfiw_ope.stored import provenance, write_text


def write_leaderboard(
    rows: Sequence[BenchRow], folder: Path, about: Mapping[str, Any]
) -> tuple[Leaderboard, tuple[Path, ...]]:
    """Make the leaderboard and write `leaderboard.{json,md,png}`; each file whole or not at all.

    All is made before any is written, and the figure, which is what may fail then, is written
    first, so that no other file is of other rows.

    The same rows make the same files.

    Args:
        rows: of a benchmark.
        folder: where to.
        about: what made the rows, as `BenchResults.head` has it; versions are this package's where
            it has none.

    Raises:
        DataError: if there is nothing to rank; see `Leaderboard.of`.
        MissingDependencyError: if matplotlib is not installed.
    """
    board = Leaderboard.of(rows, {**provenance(), **about})
    page, plain = as_markdown(board), board.to_json()
    figure = save_figure(draw_leaderboard(rows, board), folder / "leaderboard.png")
    write_text(folder / "leaderboard.json", plain + "\n")
    text = write_text(folder / "leaderboard.md", page)
    return board, (folder / "leaderboard.json", text, figure)

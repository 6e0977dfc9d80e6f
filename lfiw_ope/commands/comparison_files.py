"""A comparison on disk: JSON, CSV and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lfiw_ope.comparison.figures import plot_errors, plot_scores, plot_values
from lfiw_ope.comparison.result import Comparison
from lfiw_ope.comparison.summary import Score
from lfiw_ope.plots import new_figure, save_figure
from lfiw_ope.stored import write_text


def save_comparison(
    result: Comparison, scores: Sequence[Score], text: str, folder: Path
) -> tuple[Path, ...]:
    """Write the table and the figures; each file whole or not at all.

    Args:
        result: the comparison.
        scores: its summary.
        text: JSON that `Comparison.from_json` reads.
        folder: where to.
    """
    table: Any = result.frame
    table["warnings"] = [" ".join(row.warnings) for row in result.rows]
    saved = [
        write_text(folder / "comparison.json", text + "\n"),
        write_text(folder / "comparison.csv", table.to_csv(index=False)),
    ]
    figure = new_figure(max(6.0, 3 + 0.9 * len(result.policies)), 4.5)
    plot_values(figure.subplots(), result.rows)
    saved.append(save_figure(figure, folder / "estimates.png"))
    if result.truth is not None:
        figure = new_figure(15, 0.4 * len(result.estimators) + 2.5)
        left, middle, right = figure.subplots(1, 3)
        result.plot(left)
        plot_errors(middle, result.rows)
        plot_scores(right, [score for score in scores if score.metric == "Spearman"])
        saved.append(save_figure(figure, folder / "truth.png"))
    return tuple(saved)

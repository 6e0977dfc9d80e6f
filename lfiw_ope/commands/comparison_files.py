"""A comparison on disk: JSON, CSV and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lfiw_ope.comparison.figures import plot_errors, plot_scores, plot_values
from lfiw_ope.comparison.result import Comparison
from lfiw_ope.comparison.summary import Score
from lfiw_ope.plots import TRUTH, new_figure, save_figure
from lfiw_ope.stored import write_text

MOST_INCHES = 30.0
"""Of a figure, however many policies there are."""

UPRIGHT = 30
"""More policies than these have their names upright."""


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
    saved.append(save_figure(_estimates(result), folder / "estimates.png"))
    if result.truth is not None:
        saved.append(save_figure(_against_truth(result, scores), folder / "truth.png"))
    return tuple(saved)


def _estimates(result: Comparison) -> Any:
    """By policy, with the true values and the behaviour's mean return."""
    policies, known = result.policies, result.truth or {}
    figure = new_figure(min(MOST_INCHES, max(6.0, 3 + 0.9 * len(policies))), 4.5)
    ax = figure.subplots()
    places = [index for index, name in enumerate(policies) if name in known]
    if places:
        true = [known[policies[index]] for index in places]
        ax.plot(places, true, ls="", marker="_", ms=30, mew=2, color=TRUTH, label="truth")
    mean = result.behaviour.mean
    ax.axhline(mean, color=TRUTH, lw=0.8, ls=":", label="behaviour's mean return")
    plot_values(ax, result.rows)
    if len(policies) > UPRIGHT:
        ax.tick_params(axis="x", rotation=90, labelsize=7)
    ax.set_title(_title(result))
    return figure


def _against_truth(result: Comparison, scores: Sequence[Score]) -> Any:
    """Estimates, errors and rank correlations."""
    figure = new_figure(16, max(4.0, 0.4 * len(result.estimators) + 2.5))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    result.plot(left)
    plot_errors(middle, result.rows)
    plot_scores(right, [score for score in scores if score.metric == "Spearman"])
    right.set_xticks((-1.0, -0.5, 0.0, 0.5, 1.0))
    figure.suptitle(_title(result))
    return figure


def _title(result: Comparison) -> str:
    return f"value over {result.estimand.horizon} steps, discount {result.estimand.discount:g}"

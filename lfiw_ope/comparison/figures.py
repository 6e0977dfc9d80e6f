"""Figures of a comparison: each function draws on the axes it is given and returns them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lfiw_ope.comparison.rows import Row
from lfiw_ope.comparison.summary import Score
from lfiw_ope.plots import TRUTH, WEIGHTED

COLOURS = ("#2f6f9f", "#d1733c", "#4f8f4f", "#8a5a9e", "#b03a48", "#6b6b6b", "#b8932f", "#3a9c9c")
MARKERS = "osD^vP*X"


def plot_against_truth(ax: Any, rows: Sequence[Row]) -> Any:
    """Estimates against true values, a colour an estimator; on the diagonal they agree.

    Bars are 95 % intervals, where there are any. Estimators stand a little beside each other, up to
    2 % of the range of true values, and the legend counts what each could not answer.
    """
    shown = [row for row in rows if row.answer is not None and row.truth is not None]
    truths = [row.truth for row in shown if row.truth is not None]
    names = list(dict.fromkeys(row.estimator for row in rows))
    apart = 0.02 * (max(truths) - min(truths)) if truths else 0.0
    for index, name in enumerate(names):
        mine = [row for row in shown if row.estimator == name]
        colour, marker = style(index)
        shift = apart * (2 * (index + 0.5) / len(names) - 1)
        ax.plot([], [], ls="", marker=marker, color=colour, ms=5, label=_counted(name, rows))
        _points(ax, mine, [(row.truth or 0.0) + shift for row in mine], colour, marker)
    if truths:
        ax.axline((truths[0], truths[0]), slope=1, color=TRUTH, lw=1, ls="--")
    ax.set_xlabel("true value")
    ax.set_ylabel("estimate")
    _legend(ax)
    return ax


def plot_values(ax: Any, rows: Sequence[Row]) -> Any:
    """Estimates by policy, a colour an estimator and a dot a seed; bars are 95 % intervals."""
    policies = list(dict.fromkeys(row.policy for row in rows))
    names = list(dict.fromkeys(row.estimator for row in rows))
    for index, name in enumerate(names):
        mine = [row for row in rows if row.estimator == name and row.answer is not None]
        shift = 0.6 * ((index + 0.5) / len(names) - 0.5)
        colour, marker = style(index)
        ax.plot([], [], ls="", marker=marker, color=colour, ms=5, label=_counted(name, rows))
        _points(ax, mine, [policies.index(row.policy) + shift for row in mine], colour, marker)
    ax.set_xticks(range(len(policies)), policies)
    if len(policies) > 4:
        ax.tick_params("x", rotation=30)
    ax.set_xlim(-0.6, len(policies) - 0.4)
    ax.set_ylabel("estimate")
    _legend(ax)
    return ax


def plot_errors(ax: Any, rows: Sequence[Row]) -> Any:
    """Mean absolute error by estimator: a dot a seed, over policies, and a bar for their mean."""
    names = list(dict.fromkeys(row.estimator for row in rows))
    places = np.arange(len(names))[::-1]
    for place, name in zip(places, names, strict=True):
        errors: dict[int, list[float]] = {}
        for row in rows:
            if row.estimator == name and row.answer is not None and row.truth is not None:
                errors.setdefault(row.seed, []).append(abs(row.answer - row.truth))
        means = [float(np.mean(of)) for of in errors.values()]
        if means:
            ax.barh(place, np.mean(means), color=WEIGHTED, alpha=0.35, height=0.6)
            ax.plot(means, np.full(len(means), place), ls="", marker="o", ms=4, color=WEIGHTED)
    _by_estimator(ax, places, [_counted(name, rows) for name in names])
    ax.set_xlim(left=0)
    ax.set_xlabel("mean absolute error (dots: seeds)")
    return ax


def plot_scores(ax: Any, scores: Sequence[Score]) -> Any:
    """One metric by estimator, such as the rank correlation, with its bootstrap interval."""
    places = np.arange(len(scores))[::-1]
    for place, score in zip(places, scores, strict=True):
        if score.value is None:
            ax.text(0.0, place, " undefined", va="center", fontsize=8, color="#888888")
            continue
        ax.barh(place, score.value, color=WEIGHTED, alpha=0.35, height=0.6)
        if score.low is not None and score.high is not None:
            ax.plot([score.low, score.high], [place, place], color=WEIGHTED, lw=2)
        ax.plot([score.value], [place], marker="o", ms=5, color=WEIGHTED)
    ax.axvline(0.0, color=TRUTH, lw=0.8)
    _by_estimator(ax, places, [score.estimator for score in scores])
    metrics = dict.fromkeys(score.metric for score in scores)
    ax.set_xlabel(f"{', '.join(metrics)} (lines: bootstrap interval)")
    return ax


def _points(ax: Any, rows: Sequence[Row], x: Sequence[Any], colour: str, marker: str) -> None:
    for place, row in zip(x, rows, strict=True):
        if row.low is not None and row.high is not None:
            ax.plot([place, place], [row.low, row.high], color=colour, lw=1, alpha=0.5)
    ax.plot(x, [row.answer for row in rows], ls="", marker=marker, color=colour, ms=4, alpha=0.8)


def _counted(name: str, rows: Sequence[Row]) -> str:
    """An estimator's name, and what it answered where that is not all."""
    mine = [row for row in rows if row.estimator == name]
    answered = sum(row.answer is not None for row in mine)
    return name if answered == len(mine) else f"{name} ({answered} of {len(mine)})"


def style(index: int) -> tuple[str, str]:
    """A colour and a marker, of which no two of the first 64 have both in common."""
    return COLOURS[index % len(COLOURS)], MARKERS[(index // len(COLOURS) + index) % len(MARKERS)]


def _by_estimator(ax: Any, places: Any, names: Sequence[str]) -> None:
    ax.set_yticks(places, names)
    ax.set_ylim(-0.7, len(names) - 0.3)


def _legend(ax: Any) -> None:
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))

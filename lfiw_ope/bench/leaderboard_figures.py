"""Figures of a leaderboard: estimates against true values, and standings with their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lfiw_ope.bench.leaderboard import Leaderboard
from lfiw_ope.bench.measures import MEASURES, NOMINAL
from lfiw_ope.bench.rows import BenchRow
from lfiw_ope.bench.standings import Slice
from lfiw_ope.bench.units import Units
from lfiw_ope.comparison.figures import style
from lfiw_ope.plots import PLAIN, TRUTH, WEIGHTED, new_figure

PANEL = 1.35
"""Inches of a panel of estimates against true values."""

MARGIN = 0.5
"""What the axes show beyond the true values, in units of their range: an estimate that is further
off stands on the edge, as a triangle."""

SHOWN = ("error", "near", "rank_correlation", "coverage", "won")


def draw_leaderboard(rows: Sequence[BenchRow], board: Leaderboard) -> Any:
    """A line of panels for each task and question, a panel an estimator, and the standings below.

    A data set has a colour; a policy that it does not support is hollow, and a refused answer a
    cross. Units that no table counts, as they are not finished, are not drawn either.
    """
    left_out = set(Units.of(rows).left_out)
    rows = [one for one in rows if one.unit not in left_out]
    rows.sort(key=lambda one: (one.data, one.transitions, one.row.seed, one.row.policy))
    order = [one.estimator for one in board.headline.standings]
    asked = sorted({(one.purpose != "report", one.task, one.question) for one in rows})
    tall = 0.3 * len(order) + 1.2
    width = max(9.0, PANEL * len(order) + 1.2)
    figure = new_figure(width, (PANEL + 0.15) * len(asked) + 0.6 + tall)
    above, below = figure.subfigures(2, 1, height_ratios=((PANEL + 0.15) * len(asked) + 0.6, tall))
    grid = above.subplots(len(asked), len(order), squeeze=False, sharex="row", sharey="row")
    colours = {name: style(i)[0] for i, name in enumerate(sorted({one.data for one in rows}))}
    for line, (development, task, question) in zip(grid, asked, strict=True):
        mine = [one for one in rows if (one.task, one.question) == (task, question)]
        for ax, name in zip(line, order, strict=True):
            plot_estimates_of(ax, [one for one in mine if one.row.estimator == name], mine, colours)
        said = f"{task}\n{question}" + "\n(development)" * development
        line[0].set_ylabel(said, fontsize=8)
    for ax, name in zip(grid[0], order, strict=True):
        ax.set_title(name, fontsize=8)
    above.supxlabel("true value", fontsize=8)
    above.supylabel("estimate", fontsize=8)
    _legend(grid[0][-1], colours)
    for ax, name in zip(below.subplots(1, len(SHOWN), sharey=True), SHOWN, strict=True):
        plot_standings(ax, board, name)
    _sides(ax)
    below.suptitle(f"{board.headline.of['purpose'].capitalize()} tasks", fontsize=9)
    return figure


def plot_estimates_of(
    ax: Any, rows: Sequence[BenchRow], among: Sequence[BenchRow], colours: dict[str, str]
) -> Any:
    """One estimator's estimates against true values; on the diagonal they agree.

    Args:
        ax: matplotlib axes.
        rows: the estimator's, of one task and question.
        among: every estimator's, so that panels have the same axes.
        colours: by data set.
    """
    truths = [one.row.truth for one in among if one.row.truth is not None]
    low, high = min(truths), max(truths)
    room = MARGIN * ((high - low) or 1.0)
    low, high = low - room, high + room
    alike: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for one in rows:
        if one.row.value is None or one.row.truth is None:
            continue
        marker = "X" if one.row.status == "refused" else "o"
        off = "v" if one.row.value < low else "^" if one.row.value > high else marker
        looks = (off, colours[one.data], colours[one.data] if one.supported else "none")
        at = (one.row.truth, min(max(one.row.value, low), high))
        alike.setdefault(looks, []).append(at)
    for (marker, edge, face), points in alike.items():
        size = 5.0 if marker == "X" else 3.5
        looks_like = {"ms": size, "mec": edge, "mfc": face, "mew": 0.8, "alpha": 0.8}
        ax.plot(*zip(*points, strict=True), marker, clip_on=False, **looks_like)
    silent = sum(one.row.value is None for one in rows)
    if silent:
        ax.text(0.96, 0.04, f"{silent} none", transform=ax.transAxes, ha="right", fontsize=6)
    ax.axline((low, low), slope=1, color=TRUTH, lw=0.7, ls="--", zorder=0)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_box_aspect(1)
    ax.locator_params(nbins=3)
    ax.tick_params(labelsize=6, length=2)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_offset_text().set_size(6)
    return ax


def plot_standings(ax: Any, board: Leaderboard, name: str) -> Any:
    """One measure by estimator, in the order of the ranks, with its bootstrap interval.

    A filled dot is of supported policies alone, a hollow one of unsupported ones. Coverage says in
    how many cells there is an interval, where it is not all.
    """
    whole = board.headline
    places = np.arange(len(whole.standings))[::-1]
    sides = {one.of["support"]: one for one in board.by("support", purpose=whole.of["purpose"])}
    for place, standing in zip(places, whole.standings, strict=True):
        found = standing.measured[name]
        if found.value is None:
            ax.plot([], [])
            continue
        ax.plot([found.value], [place], "D", ms=4.5, color=TRUTH, zorder=3)
        if found.low is not None and found.high is not None:
            ax.plot([found.low, found.high], [place, place], color=TRUTH, lw=1.5, zorder=2)
        for word, face in (("supported", WEIGHTED), ("unsupported", "none")):
            value = _value(sides.get(word), standing.estimator, name)
            if value is not None:
                ax.plot([value], [place], "o", ms=4, mec=WEIGHTED, mfc=face, zorder=1)
        share = standing.measured["intervals"].value or 0.0
        if name == "coverage" and share < 1.0:
            ax.text(0.0, place, f"in {share:.0%} of the cells", va="center", fontsize=6)
    _axis(ax, whole, name)
    ax.set_yticks(places, [one.estimator for one in whole.standings], fontsize=8)
    ax.set_ylim(-0.7, len(places) - 0.3)
    ax.grid(axis="y", color="#eeeeee", zorder=0)
    ax.tick_params("x", labelsize=7)
    ax.set_xlabel(_said(name), fontsize=8)
    return ax


def _axis(ax: Any, whole: Slice, name: str) -> None:
    """A logarithmic one where errors are of different orders, and lines to compare with."""
    values = [one.measured[name] for one in whole.standings]
    known = [of.value for of in values if of.value is not None]
    if name == "error":
        first = whole.standings[0]
        constant = (first.measured["error"].value or 0.0) + (first.measured["gain"].value or 0.0)
        ax.axvline(constant, color=PLAIN, lw=1, ls="--", zorder=0)
        if known and min(known) > 0 and max(known) > 20 * min(known):
            ax.set_xscale("log")
    elif name == "coverage":
        ax.axvline(NOMINAL, color=PLAIN, lw=1, ls="--", zorder=0)
        ax.set_xlim(-0.03, 1.03)
    else:
        ax.axvline(0.0, color=TRUTH, lw=0.8, zorder=0)


def _said(name: str) -> str:
    beside = {"error": " (dashed: the log's mean return)", "coverage": " of 95 % intervals"}
    return MEASURES[name].heading + beside.get(name, "")


def _value(part: Slice | None, estimator: str, name: str) -> float | None:
    return None if part is None else part.standing(estimator).measured[name].value


def _legend(ax: Any, colours: dict[str, str]) -> None:
    """What the dots of estimates are."""
    for name, colour in colours.items():
        ax.plot([], [], "o", ms=4, color=colour, label=name)
    ax.plot([], [], "o", ms=4, mec=TRUTH, mfc="none", label="unsupported")
    ax.plot([], [], "X", ms=4, color="#888888", label="refused")
    ax.plot([], [], "^", ms=4, color="#888888", label="beyond the axes")
    _beside(ax)


def _sides(ax: Any) -> None:
    """What the standings' dots are."""
    ax.plot([], [], "D", ms=4.5, color=TRUTH, label="all policies")
    ax.plot([], [], "o", ms=4, color=WEIGHTED, label="supported")
    ax.plot([], [], "o", ms=4, mec=WEIGHTED, mfc="none", label="unsupported")
    _beside(ax)


def _beside(ax: Any) -> None:
    ax.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.05))

"""A leaderboard on disk: JSON, Markdown and figures."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lfiw_ope.benchmark.leaderboard import Leaderboard
from lfiw_ope.benchmark.standings import MEASURES, NOMINAL, Measured, Slice, Standing
from lfiw_ope.benchmark.support import SUPPORTED
from lfiw_ope.benchmark.trials import BenchRow
from lfiw_ope.benchmark.units import Units
from lfiw_ope.core.serialization import counted, markdown_table, provenance, write_text
from lfiw_ope.evaluation.plots import PLAIN, TRUTH, WEIGHTED, new_figure, save_figure, style

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


ACCURACY = ("error", "gain", "kept_error", "near", "rank_correlation", "regret", "won")
OTHER = ("coverage", "width", "intervals", "refused", "failed", "seconds")
BY_PART = ("error", "near", "rank_correlation", "regret", "coverage")
PARTS = {
    ("task",): ("By task", BY_PART),
    ("data",): ("By data set", BY_PART),
    ("transitions",): ("By number of transitions", BY_PART),
    ("question",): ("By question", BY_PART),
    ("support",): ("By support", (*BY_PART, "refused")),
    ("task", "data"): ("By task and data set", ("error",)),
    ("task", "support"): ("By task and support", ("error",)),
}
"""What is told of parts of a benchmark; `leaderboard.json` has every measure of each."""

READING = (
    "A **unit** is one log and one seed; a **cell** is one policy in a unit. Errors are in units "
    "of the range of the true values of all policies of the task's ladder.",
    "The order is by **RMSE**. A missing answer counts there, and in Spearman and regret, as the "
    "log's mean return, which takes no estimator: keeping silent is as good as that constant and "
    "no better. Who answers nothing has no rank. Where it is order that counts, in Spearman and "
    "regret, estimates that are no further apart than a billionth of the range are the same, so "
    "that returns times weights of 1e-70 rank no policies.",
    "A refused answer, where the data were found not to tell the value, counts as the number that "
    "it would have been, so that all are measured on the same cells; *RMSE, kept* leaves it out.",
    "Bold: the best of its column, and those of which the difference to the best has an interval "
    "that holds 0, so that nothing sets them apart; of coverage, those that reach 95 %, or whose "
    "interval does, and that give intervals in half of the cells at least. *behind*: RMSE less "
    "that of the first.",
    "Every estimator is measured on the same resamples. Tasks are not resampled: a handful that "
    "somebody chose is no sample of all tasks, and no interval says what would come out on "
    "another.",
    "Policies are apart by **support**: whether the log's region, which holds 95 % of what its own "
    f"policies do, holds {SUPPORTED:.0%} or more of what the policy does, measured in the real "
    "simulator before any estimator ran.",
)


def as_markdown(board: Leaderboard) -> str:
    """The page: how to read it, then report tasks, then development tasks, then what made it."""
    suite = board.about.get("suite")
    parts = [f"# Leaderboard{f': {suite}' if suite else ''}\n", _opening(board)]
    parts += ["## How to read it\n", "".join(f"- {line}\n" for line in _reading(board))]
    for purpose in board.purposes:
        parts += _purpose(board, purpose)
    about = json.dumps(dict(board.about), indent=1, ensure_ascii=False)
    parts += ["## What made it\n", f"```json\n{about}\n```\n"]
    return "\n".join(parts)


def _opening(board: Leaderboard) -> str:
    command = board.about.get("command")
    made = f"Made by `{command}`. " if command else ""
    out = (
        f" Left out: {counted(board.left_out, 'unit')} that some estimator has not finished."
        if board.left_out
        else ""
    )
    if board.missing:
        out += (
            f" **This is not the whole suite**: of its {counted(board.about['trials'], 'trial')}, "
            f"not finished or without a log: {board.missing}."
        )
    size = f"{counted(len(board.estimators), 'estimator')} on {counted(board.units, 'unit')}."
    return (
        f"{made}{size}{out} {_first(board)}\n\n"
        "![Estimates against true values, and the standings](leaderboard.png)\n"
    )


def _first(board: Leaderboard) -> str:
    """Who is, and whom nothing sets it apart from."""
    where = _those(board, board.purposes[0])
    first, *others = board.headline.standings
    if first.rank is None:
        return f"No estimator has an answer on the {where}."
    ties = [one.estimator for one in others if one.measured["error"].best]
    apart = f"; nothing sets it apart from {', '.join(ties)}" if ties else ""
    error = _number("error", first.measured["error"])
    return f"First on the {where}: **{first.estimator}**, RMSE {error}{apart}."


def _reading(board: Leaderboard) -> Iterator[str]:
    yield from READING
    yield (
        f"In brackets: {100 * board.level:g} % intervals of a bootstrap over the policies of each "
        f"task and over seeds ({board.resamples} resamples); there is none where all resamples say "
        "the same. One that does not hold the number itself is widened to it. A resample lacks "
        "about a third of the policies, so that those of Spearman and "
        "regret reach rather low, and those of RMSE do too: a root of a resampled mean square is "
        "smaller on average. So the true one lies above an interval more often than below it, and "
        "outside more often than the level says. And a bootstrap over n of a kind has (n − 1)/n of "
        "the variance "
        "between them, half of it where seeds are two: the intervals are rather short."
    )
    yield (
        "True values are measured too: the largest of their standard errors is "
        f"{board.truth_error:.2g} of its ladder's range."
    )
    for name in (*ACCURACY, *OTHER):
        yield f"*{MEASURES[name].heading}*: {MEASURES[name].meaning}."


def _those(board: Leaderboard, purpose: str) -> str:
    tasks = len(_tasks(board, purpose))
    return f"{tasks} {purpose} tasks" if tasks > 1 else f"{purpose} task"


def _tasks(board: Leaderboard, purpose: str) -> list[str]:
    return [one.of["task"] for one in board.by("task", purpose=purpose)]


def _purpose(board: Leaderboard, purpose: str) -> Iterator[str]:
    """All that is told of the tasks of one purpose."""
    (whole,) = board.by(purpose=purpose)
    yield f"## {purpose.capitalize()} tasks\n"
    tasks = _tasks(board, purpose)
    named = f"{', '.join(tasks)}: " if tasks else ""
    size = f"{counted(whole.units, 'unit')}, {counted(whole.cells, 'cell')}."
    yield f"{named}{size}{_meant(purpose)}\n"
    columns = [("answered", lambda one: f"{one.answered}/{whole.cells}")]
    yield _standings(whole, ACCURACY, [("behind", lambda one: _behind(one))])
    yield _standings(whole, OTHER, columns)
    for fields, (title, names) in PARTS.items():
        slices = board.by(*fields, purpose=purpose)
        if not slices:  # of one task alone, "by task and data set" is "by data set"
            continue
        yield f"### {title}\n"
        for name in names:
            yield f"{MEASURES[name].heading}:\n"
            yield _matrix(whole, slices, fields, name)


def _meant(purpose: str) -> str:
    if purpose == "development":
        return " Settings may have been chosen by what comes out here."
    return " No setting was chosen by what comes out here."


def _standings(
    part: Slice, names: Sequence[str], more: Sequence[tuple[str, Callable[[Standing], str]]]
) -> str:
    """A line an estimator, by rank."""
    head = ["estimator", "rank", *(MEASURES[name].heading for name in names)]
    head[3:3] = [heading for heading, _ in more]
    lines = []
    for one in part.standings:
        line = [one.estimator, "–" if one.rank is None else str(one.rank)]
        line += [_number(name, one.measured[name]) for name in names]
        line[3:3] = [text(one) for _, text in more]
        lines.append(line)
    return markdown_table(head, lines)


def _matrix(whole: Slice, slices: Sequence[Slice], fields: Sequence[str], name: str) -> str:
    """One measure: a line an estimator, in the order of the whole, and a column a part."""
    head = ["estimator", *(", ".join(part.of[field] for field in fields) for part in slices)]
    cells = ["*cells*", *(str(part.cells) for part in slices)]
    lines = [
        [
            first.estimator,
            *(_number(name, part.standing(first.estimator).measured[name]) for part in slices),
        ]
        for first in whole.standings
    ]
    return markdown_table(head, [cells, *lines])


def _behind(one: Standing) -> str:
    return "" if one.behind.value == 0 else _number("error", one.behind)


def _number(name: str, found: Measured) -> str:
    """In bold where it is of the best, and with its interval."""
    if found.value is None:
        return "–"
    text = MEASURES[name].text
    value = f"**{text(found.value)}**" if found.best else text(found.value)
    if found.low is None or found.high is None:
        return value
    return f"{value} [{text(found.low)}, {text(found.high)}]"


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

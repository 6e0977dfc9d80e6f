"""A comparison on the terminal and on disk."""

import re
import statistics
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lfiw_ope.cli.terminal import digits
from lfiw_ope.core.serialization import write_text
from lfiw_ope.evaluation.plots import (
    TRUTH,
    new_figure,
    plot_errors,
    plot_scores,
    plot_values,
    save_figure,
)
from lfiw_ope.evaluation.summary import METRICS, Row, Score
from lfiw_ope.evaluation.table import Comparison

MOST_WARNINGS = 3
"""Of an estimator, in the terminal; all of them are in the JSON."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

Column = tuple[str, Sequence[str]]
"""A heading, and a text a line of the table, which may be of two lines itself."""


def estimates_tables(comparison: Comparison, console: Console) -> list[RenderableType]:
    """Each policy's value by each estimator, over seeds; in as many tables as it takes."""
    behaviour, estimand = comparison.behaviour, comparison.estimand
    seeds, episodes = len(comparison.seeds), behaviour.episodes
    error = behaviour.standard_error
    logged = digits(behaviour.mean, 4) + ("" if error is None else f" ± {digits(error, 2)}")
    said = (
        f"Means over {seeds} seeds ± their standard deviation, or, where a seed changes nothing, "
        "the standard error over logged episodes"
        if seeds > 1
        else "± is the standard error over logged episodes, where it is known"
    )
    by_cell: dict[tuple[str, str], list[Row]] = {}
    for row in comparison.rows:
        by_cell.setdefault((row.estimator, row.policy), []).append(row)
    fixed: list[Column] = [("", comparison.policies)]
    if comparison.truth is not None:
        known = comparison.truth
        fixed.append(
            ("truth", [digits(known[p], 4) if p in known else "–" for p in comparison.policies])
        )
    columns = [
        (name, [_cell(by_cell[name, policy]) for policy in comparison.policies])
        for name in comparison.estimators
    ]
    return _tables(
        console,
        f"Value over {estimand.horizon} steps, discount {estimand.discount:g}; the behaviour's "
        f"mean return is {logged} ({episodes} episodes)",
        f"{said}. In brackets 95 % intervals, where there are any"
        + ("; the means of their ends." if seeds > 1 else "."),
        fixed,
        columns,
    )


def _cell(rows: Sequence[Row]) -> str:
    """One policy by one estimator: its mean, its spread, its interval."""
    answered = [row for row in rows if row.answer is not None]
    if not answered:
        return rows[0].status
    values = [row.answer for row in answered if row.answer is not None]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    error = spread or answered[0].standard_error
    mean = digits(statistics.fmean(values), 4)
    text = mean if error is None else f"{mean} ± {digits(error, 2)}"
    if len(answered) < len(rows):
        text += f" ({len(answered)}/{len(rows)})"
    ends = [(row.low, row.high) for row in answered if row.low is not None and row.high is not None]
    if not ends:
        return text
    low, high = (statistics.fmean(end) for end in zip(*ends, strict=True))
    return f"{text}\n[{digits(low, 4)}, {digits(high, 4)}]"


def metrics_tables(
    comparison: Comparison, scores: Iterable[Score], k: int, console: Console
) -> list[RenderableType]:
    """Each metric that any estimator has, beside the truth, with its interval."""
    found = {(score.metric, score.estimator): score for score in scores}
    metrics = [
        metric
        for metric, of in METRICS.items()
        if of.needs_truth
        and any(known == metric and score.value is not None for (known, _), score in found.items())
    ]
    columns = []
    for name in comparison.estimators:
        of_one = [found[metric, name] for metric in metrics]
        counted = str(max((score.policies for score in of_one), default=0))
        columns.append((name, [counted, *map(_score, of_one)]))
    return _tables(
        console,
        "Against the truth",
        "Of policies whose truth is known and that an estimator answered at every seed. In "
        "brackets 95 % intervals, by a bootstrap over policies and seeds.",
        [("", ["policies", *(metric.replace("@k", f"@{k}") for metric in metrics)])],
        columns,
    )


def _score(score: Score) -> str:
    if score.value is None:
        return "–"
    text = digits(score.value, 3)
    if score.low is None or score.high is None:
        return text
    return f"{text}\n[{digits(score.low, 3)}, {digits(score.high, 3)}]"


def _tables(
    console: Console, title: str, caption: str, fixed: Sequence[Column], columns: Sequence[Column]
) -> list[RenderableType]:
    """As many columns a table as the console is wide enough for; the fixed ones stand in each."""
    blocks: list[list[Column]] = [[]]
    for column in columns:
        wider = _table([*fixed, *blocks[-1], column])
        needed = Measurement.get(console, console.options.update(max_width=10_000), wider).maximum
        if blocks[-1] and needed > console.width:
            blocks.append([])
        blocks[-1].append(column)
    # Not the table's own title and caption, which would be as narrow as the table is.
    return [title, *(_table([*fixed, *block]) for block in blocks), Text(caption, style="dim")]


def _table(columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for index, (heading, _) in enumerate(columns):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    for line in zip(*(texts for _, texts in columns), strict=True):
        table.add_row(*line)
    return table


def without_value(comparison: Comparison) -> Iterator[str]:
    """A line for each reason why an estimator has no value of some policies."""
    missing = [row for row in comparison.rows if row.status != "ok"]
    for (estimator, status, _), rows in _grouped(
        missing, lambda row: (row.estimator, row.status, _kind(row.reason))
    ).items():
        policies, seeds = ({row.policy for row in rows}, {row.seed for row in rows})
        names = [name for name in comparison.policies if name in policies]
        of = "every policy" if len(names) == len(comparison.policies) else _listed(names)
        at = "" if len(seeds) == len(comparison.seeds) else f", seed {_listed(sorted(seeds))}"
        yield f"{estimator} {status} for {of}{at}: {rows[0].reason}"


def warnings_of(comparison: Comparison) -> Iterator[str]:
    """What estimates warn of, estimator by estimator, those that differ in a number as one."""
    for estimator in comparison.estimators:
        rows = [row for row in comparison.rows if row.estimator == estimator]
        said = [(warning, row) for row in rows for warning in row.warnings]
        kinds = _grouped(said, lambda one: (_kind(one[0]),)).values()
        most = sorted(kinds, key=len, reverse=True)
        for same in most[:MOST_WARNINGS]:
            yield f"{estimator}, {len(same)} of {len(rows)} estimates: {same[0][0]}"
        if len(most) > MOST_WARNINGS:
            yield f"{estimator}: {len(most) - MOST_WARNINGS} more kinds; the JSON has all of them."


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def _kind(text: str) -> str:
    """What texts that differ in their numbers alone have in common."""
    return re.sub(r"[-+]?\d+([.,]\d+)*(e[-+]?\d+)?", "#", text)


def _listed(names: Sequence[object], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(name) for name in names[:most]) + more


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

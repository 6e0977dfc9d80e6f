"""Draw the ladders' learning curves, and tabulate what their policies are worth.

    python experiments/plot_ladders.py

Of the curves in `experiments/results/ladders/` and the values in
`envs/lfiw_envs/policies/<task>/<task>_values.json`, as far as there are any, it makes `curves.png`
and `ladders.md` beside the curves. Run it after `train_ladders.py`, and again after
`measure_ladders.py`.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from lfiw_envs import LADDERS, Ladder
from lfiw_envs.ladder import Play
from lfiw_envs.tasks import POLICIES

from lfiw_ope.benchmark import PLAYS
from lfiw_ope.cli.terminal import digits
from lfiw_ope.core import write_text
from lfiw_ope.evaluation import COLOURS, new_figure, save_figure

CURVES = Path(__file__).parent / "results" / "ladders"

SHOWN = ("T100", "g0.99")
"""Questions of the table; a ladder of shorter episodes has its undiscounted one for T100."""

COLUMNS = 3
"""Of the figure."""


def runs_of(ladder: Ladder) -> list[str]:
    """Of a ladder's training: its policies are called run_fraction."""
    return list(dict.fromkeys(policy.rsplit("_", 1)[0] for policy in ladder.targets))


def curve_of(ladder: Ladder, run: str) -> dict[str, Any] | None:
    path = CURVES / f"{ladder.folder.name}_{run}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def draw(ax: Any, ladder: Ladder) -> None:
    """Both runs, a dot where a target was taken and a cross where a maker of data was."""
    for run, colour in zip(runs_of(ladder), COLOURS, strict=False):
        found = curve_of(ladder, run)
        if found is None:
            continue
        steps = [point["steps"] for point in found["curve"]]
        returns = [point["mean_return"] for point in found["curve"]]
        label = f"{found['algorithm']}, {run}" if "_" in run else found["algorithm"]
        ax.plot(steps, returns, color=colour, lw=1.2, label=label)
        for names, marker in ((ladder.targets, "o"), (ladder.behaviours, "x")):
            fractions = [name.rsplit("_", 1)[1] for name in names if name.startswith(f"{run}_")]
            taken = [found["snapshots"][fraction] for fraction in fractions]
            heights = [nearest(steps, returns, step) for step in taken]
            ax.plot(taken, heights, ls="", marker=marker, color=colour, ms=5, mew=1.4)
    ax.set_title(f"{ladder.env_id.rpartition(':')[2]} ({ladder.purpose})", fontsize=9)
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:.0f}k" if step else "0")
    ax.tick_params(labelsize=8)
    if ax.lines:
        ax.legend(frameon=False, fontsize=8, loc="lower right")


def nearest(steps: list[int], returns: list[float], step: int) -> float:
    """The curve at a snapshot."""
    return min(zip(steps, returns, strict=True), key=lambda point: abs(point[0] - step))[1]


def table(ladder: Ladder) -> list[str]:
    """Rows of markdown: each target, the steps it was trained for, and its values."""
    lines = []
    for policy in ladder.targets:
        run, fraction = policy.rsplit("_", 1)
        curve = curve_of(ladder, run)
        steps = f"{curve['snapshots'][fraction]:,}" if curve else "not trained yet"
        cells = [
            said(ladder, policy, question, play) for question in shown(ladder) for play in PLAYS
        ]
        lines.append(f"| {ladder.name} | {policy} | {steps} | {' | '.join(cells)} |")
    return lines


def shown(ladder: Ladder) -> list[str]:
    """Questions of a ladder in the table's columns."""
    undiscounted = next(name for name, of in ladder.questions.items() if of.discount == 1.0)
    return [undiscounted if name == "T100" else name for name in SHOWN]


def said(ladder: Ladder, policy: str, question: str, play: Play) -> str:
    """A measured value and its standard error, or why there is none."""
    if question not in ladder.questions:
        return "not asked"
    try:
        value = ladder.value(policy, question, play)
    except ValueError:
        return "not measured yet"
    text = f"{value.mean:.1f} ± {digits(round(value.standard_error, 6), 1)}"
    return text if question in SHOWN else f"{text} ({question})"


def main(
    folder: Annotated[Path, typer.Option(help="of the policies, a folder a task")] = POLICIES,
) -> None:
    trained = [ladder for ladder in LADDERS.values() if ladder.folder.name == ladder.name]
    rows = -(-len(trained) // COLUMNS)
    figure = new_figure(3.6 * COLUMNS, 2.8 * rows)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for ax, ladder in zip(axes, trained, strict=False):
        draw(ax, ladder)
    for ax in axes[len(trained) :]:
        ax.remove()
    figure.supxlabel("steps of the environment", fontsize=9)
    figure.supylabel(
        "mean return of the training's episodes (dots: targets; crosses: makers of data)",
        fontsize=9,
    )
    save_figure(figure, CURVES / "curves.png")
    titles = [f"{question}, {play}" for question in SHOWN for play in PLAYS]
    lines = [
        f"| ladder | policy | steps | {' | '.join(titles)} |",
        f"| --- | --- | ---: | {' | '.join('---:' for _ in titles)} |",
    ]
    for ladder in LADDERS.values():
        lines += table(replace(ladder, folder=folder / ladder.folder.name))
    write_text(CURVES / "ladders.md", "\n".join(lines) + "\n")
    typer.echo(f"Wrote {CURVES / 'curves.png'} and ladders.md")


if __name__ == "__main__":
    typer.run(main)

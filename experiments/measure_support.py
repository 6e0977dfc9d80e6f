"""Measure how the ladders' data sets support their targets, in the real environments.

    python experiments/measure_support.py                     # what is missing, ladder by ladder
    python experiments/measure_support.py --task hopper
    python experiments/measure_support.py --figure-only

What support is, and what counts as enough, stands in `lfiw_ope/benchmark/support.py`; both were
fixed before any suite was run. Written to `envs/lfiw_envs/policies/<task>/` as
`<ladder>_support.json`, one data set after the other, so that a killed run goes on where it was;
the figure goes to `experiments/results/ladders/support.png`. Ladders whose policies are not all
exported yet are left out, and named.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from lfiw_envs import LADDERS, PAPER, Ladder
from lfiw_envs.tasks import POLICIES

from lfiw_ope.benchmark import SEED, SUPPORTED, write_support
from lfiw_ope.evaluation import new_figure, save_figure

FIGURE = Path(__file__).parent / "results" / "ladders" / "support.png"
COLUMNS = 3


def ladders_in(folder: Path) -> dict[str, Ladder]:
    """All that are shipped, with their policies and support in a folder of this one."""
    every = (*LADDERS.values(), *PAPER.values())
    return {one.name: replace(one, folder=folder / one.folder.name) for one in every}


def measure(ladder: Ladder, seed: int) -> None:
    needed = ladder.policies
    if missing := [one for one in needed if not ladder.policy_path(one).exists()]:
        typer.echo(f"{ladder.name}: {', '.join(missing)} not exported yet")
        return
    path = write_support(
        ladder,
        seed=seed,
        command=f"python experiments/measure_support.py --task {ladder.name} --seed {seed}",
        progress=lambda _, done, total, note="": typer.echo(
            f"{ladder.name}: {done} of {total} {note}"
        ),
    )
    typer.echo(f"Wrote {path}")


def draw(ladders: list[Ladder], path: Path) -> None:
    """A heat map for each ladder: data sets down, targets across; ladders of one data set last."""
    several = [ladder for ladder in ladders if len(ladder.recipes) > 1]
    single = [ladder for ladder in ladders if len(ladder.recipes) == 1]
    rows = [
        group[first : first + COLUMNS]
        for group in (several, single)
        for first in range(0, len(group), COLUMNS)
    ]
    heights = [max(2, max(len(ladder.recipes) for ladder in row)) for row in rows]
    figure = new_figure(5.2 * COLUMNS, 1.2 * len(rows) + 0.34 * sum(heights) + 0.5)
    grid = figure.add_gridspec(len(rows), COLUMNS, height_ratios=heights)
    for down, row in enumerate(rows):
        for across, ladder in enumerate(row):
            image = draw_one(figure.add_subplot(grid[down, across]), ladder)
    bar = figure.colorbar(image, ax=figure.axes, location="bottom", shrink=0.4, aspect=50, pad=0.01)
    bar.set_label(
        f"share of what the target does that the data support (bold: {SUPPORTED:g} or more)"
    )
    typer.echo(f"Wrote {save_figure(figure, path)}")


def draw_one(ax: Any, ladder: Ladder) -> Any:
    shares = np.array(
        [[ladder.support(one, data) for one in ladder.targets] for data in ladder.recipes]
    )
    image = ax.imshow(shares, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    ax.set_xticks(range(len(ladder.targets)), ladder.targets, rotation=45, ha="right", fontsize=7)
    ax.set_yticks(range(len(ladder.recipes)), list(ladder.recipes), fontsize=8)
    for (row, column), share in np.ndenumerate(shares):
        enough = share >= SUPPORTED
        ax.text(
            column,
            row,
            f"{share:.2f}",
            ha="center",
            va="center",
            fontsize=7,
            color="black" if share > 0.55 else "white",
            fontweight="bold" if enough else "normal",
        )
    ax.set_title(f"{ladder.name}, {ladder.purpose}", fontsize=9)
    return image


def is_whole(ladder: Ladder) -> bool:
    """Whether every pair of data set and target is in the file."""
    if not ladder.support_path.exists():
        return False
    found = json.loads(ladder.support_path.read_text(encoding="utf-8"))["support"]
    return all(one in found.get(data, {}) for data in ladder.recipes for one in ladder.targets)


def main(
    task: Annotated[str | None, typer.Option(help="one ladder, by name")] = None,
    seed: Annotated[int, typer.Option(help="of what is played and drawn")] = SEED,
    folder: Annotated[Path, typer.Option(help="of the policies, a folder a task")] = POLICIES,
    figure: Annotated[Path, typer.Option(help="where the heat maps go")] = FIGURE,
    figure_only: Annotated[bool, typer.Option(help="measure nothing")] = False,
) -> None:
    ladders = ladders_in(folder)
    if not figure_only:
        for name in [task] if task else ladders:
            measure(ladders[name], seed)
    if drawn := [ladder for ladder in ladders.values() if is_whole(ladder)]:
        draw(drawn, figure)


if __name__ == "__main__":
    typer.run(main)

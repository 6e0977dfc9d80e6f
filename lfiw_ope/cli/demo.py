"""`lfiw-ope demo`: the main job on a shipped task."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from lfiw_ope.cli.terminal import (
    Device,
    LiveProgress,
    Rollouts,
    Updates,
    check_folder,
    console,
    require,
    tell_end,
)
from lfiw_ope.core.errors import ConfigError

if TYPE_CHECKING:
    from lfiw_ope.benchmark.demo import DemoResult


def demo(
    task: Annotated[
        str, typer.Argument(help="ledge, swimmer, half_cheetah or humanoid_standup")
    ] = "ledge",
    seed: Annotated[int, typer.Option(help="of data, training and rollouts")] = 0,
    transitions: Annotated[
        int | None, typer.Option(help="logged transitions, in place of the task's own number")
    ] = None,
    rollouts: Rollouts = None,
    updates: Updates = None,
    device: Device = "cpu",
    output: Annotated[Path, typer.Option(help="folder for JSON and PNG")] = Path("results"),
) -> None:
    """Evaluate a shipped target policy from logged data, beside its true value."""
    require("demo", "gymnasium", "mujoco", "matplotlib")
    from lfiw_ope.benchmark.demo import DEMOS, run_demo, save_demo
    from lfiw_ope.estimators.registry import Options

    terminal = console()
    if task not in DEMOS:
        raise ConfigError(f"There is no task {task!r}; choose one of {', '.join(DEMOS)}.")
    case = DEMOS[task]
    options = Options(rollouts=rollouts, updates=updates, device=device)
    check_folder(output)
    started = time.perf_counter()
    terminal.print(case.said, soft_wrap=True)
    with LiveProgress(terminal) as progress:
        result = run_demo(
            task, seed=seed, transitions=transitions, options=options, progress=progress
        )
    terminal.print(_table(result))
    if result.chosen is not None:
        terminal.print(f"LFIW() chose {result.chosen} on held-out episodes.", soft_wrap=True)
    for warning in result.answer.warnings:
        terminal.print(f"Warning: {warning}", soft_wrap=True)
    replaced = (output / f"demo_{result.name}.json").exists()
    saved = save_demo(result, output)
    tell_end(terminal, started, saved, replaced=replaced)


def _table(result: "DemoResult") -> Table:
    truth = result.truth
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"True value: {truth.mean:.2f} ± {truth.standard_error:.2f} "
        f"(mean of {truth.episodes} real episodes)",
        title_justify="left",
    )
    for name in ("", "value", "95 % interval", "error", "in %", "seconds"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for row in result.rows:
        estimate = row.estimate
        interval = estimate.interval(0.95)
        table.add_row(
            row.name,
            f"{estimate.value:.2f}",
            "–" if interval is None else f"{interval.low:.2f} to {interval.high:.2f}",
            f"{row.error:+.2f}",
            f"{abs(row.error / truth.mean):.1%}",
            f"{sum(estimate.seconds.values()):.0f}",
        )
    return table

"""`lfiw-ope demo`: the main job on a shipped task."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from lfiw_ope.commands.options import Device, Rollouts, Updates
from lfiw_ope.commands.terminal import LiveProgress, check_folder, console, require, tell_end
from lfiw_ope.errors import ConfigError

if TYPE_CHECKING:
    from lfiw_ope.demo import DemoResult


def demo(
    task: Annotated[
        str, typer.Argument(help="swimmer, half_cheetah or humanoid_standup")
    ] = "swimmer",
    seed: Annotated[int, typer.Option(help="of data, training and rollouts")] = 0,
    episodes: Annotated[int, typer.Option(help="logged episodes of the behaviour policy")] = 500,
    rollouts: Rollouts = None,
    updates: Updates = None,
    device: Device = "cpu",
    output: Annotated[Path, typer.Option(help="folder for JSON and PNG")] = Path("results"),
) -> None:
    """Evaluate a shipped target policy from data of a shipped behaviour policy."""
    from lfiw_envs import TASKS

    from lfiw_ope.catalogue import Options
    from lfiw_ope.demo import run_demo, save_demo

    terminal = console()
    if task not in TASKS:
        raise ConfigError(f"There is no task {task!r}; choose one of {', '.join(TASKS)}.")
    require("demo", "gymnasium", "mujoco", "matplotlib")
    record = TASKS[task]
    options = Options(rollouts=rollouts, updates=updates, device=device)
    check_folder(output)
    started = time.perf_counter()
    terminal.print(
        f"{record.env_id}, {record.horizon} steps, discount {record.discount:g}: {episodes} "
        f"episodes of the behaviour policy, then the target policy's value."
    )
    with LiveProgress(terminal) as progress:
        result = run_demo(record, seed=seed, episodes=episodes, options=options, progress=progress)
    terminal.print(_table(result))
    widest = result.answer.intervals[-1:]
    interval = f"interval: {widest[0]}" if widest else f"no interval: {result.answer.no_interval}"
    terminal.print(f"LFIW() has {interval}", soft_wrap=True)
    for warning in result.answer.warnings:
        terminal.print(f"Warning: {warning}", soft_wrap=True)
    thin = [e.estimator for e in result.estimates if e.mc_standard_error is None]
    if thin:
        terminal.print(
            f"Warning: a handful of rollouts carries the weights of {', '.join(thin)}: logged and "
            "simulated transitions are too far apart for these forms, and their values mean little."
        )
    replaced = (output / f"demo_{result.task}.json").exists()
    saved = save_demo(result, output)
    tell_end(terminal, started, saved, replaced=replaced)


def _table(result: "DemoResult") -> Table:
    from lfiw_ope.demo import relative_error

    truth = result.truth
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Target policy on {result.task}: truth {truth.mean:.2f} ± "
        f"{truth.standard_error:.2f} ({truth.episodes} real episodes)",
        title_justify="left",
        caption="± noise: of the simulation only; – where too few rollouts carry the weights.",
        caption_justify="left",
    )
    for name in ("", "value", "± noise", "error", "in %", "ESS", "seconds"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    behaviour = result.behaviour
    table.add_row(
        "behaviour's mean return",
        f"{behaviour:.2f}",
        "",
        f"{behaviour - truth.mean:+.2f}",
        f"{abs(behaviour - truth.mean) / abs(truth.mean):.1%}",
        "",
        "",
    )
    rows = [(estimate.estimator, estimate) for estimate in result.estimates]
    for name, estimate in [*rows, ("LFIW() says", result.answer)]:
        table.add_row(
            name,
            f"{estimate.value:.2f}",
            "–" if estimate.mc_standard_error is None else f"{estimate.mc_standard_error:.2f}",
            f"{result.error(estimate):+.2f}",
            f"{relative_error(result, estimate):.1%}",
            estimate.ess_of,
            f"{sum(estimate.seconds.values()):.0f}",
        )
    return table

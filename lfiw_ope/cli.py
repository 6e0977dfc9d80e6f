"""The command line: `lfiw-ope`."""

import importlib.util
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from lfiw_ope import __version__
from lfiw_ope.errors import ConfigError, MissingDependencyError, OPEError

if TYPE_CHECKING:
    from lfiw_ope.demo import DemoResult

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Off-policy evaluation by likelihood-free importance weighting.",
)


class LiveProgress:
    """Bars on a terminal, a line for each tenth of a stage in a log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.perf_counter()
        self.tenths: dict[str, int] = {}
        self.tasks: dict[str, TaskID] = {}
        self.bars: Progress | None = None
        if console.is_terminal:
            self.bars = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )

    def __enter__(self) -> "LiveProgress":
        if self.bars is not None:
            self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if self.bars is not None:
            if stage not in self.tasks:
                self.tasks[stage] = self.bars.add_task(stage, total=total, note="")
            self.bars.update(self.tasks[stage], completed=done, total=total)
            if note:
                self.bars.update(self.tasks[stage], note=note)
            return
        tenth = 10 * done // total
        if tenth > self.tenths.get(stage, -1):
            self.tenths[stage] = tenth
            seconds = time.perf_counter() - self.started
            self.console.print(f"{seconds:6.1f} s  {stage} {done}/{total}  {note}".rstrip())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lfiw-ope {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Off-policy evaluation by likelihood-free importance weighting."""


@app.command()
def demo(
    task: Annotated[
        str, typer.Argument(help="swimmer, half_cheetah or humanoid_standup")
    ] = "swimmer",
    seed: Annotated[int, typer.Option(help="of data, training and rollouts")] = 0,
    episodes: Annotated[int, typer.Option(help="logged episodes of the behaviour policy")] = 500,
    rollouts: Annotated[int, typer.Option(help="simulated rollouts of the target policy")] = 1000,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    output: Annotated[Path, typer.Option(help="folder for JSON and PNG")] = Path("results"),
) -> None:
    """Evaluate a shipped target policy from data of a shipped behaviour policy."""
    from lfiw_envs import TASKS

    from lfiw_ope.demo import run_demo, save_demo
    from lfiw_ope.estimators.lfiw import LFIWConfig

    console = _console()
    if task not in TASKS:
        raise ConfigError(f"There is no task {task!r}; choose one of {', '.join(TASKS)}.")
    _require("gymnasium", "mujoco", "matplotlib")  # before minutes of work, not after
    record = TASKS[task]
    config = LFIWConfig(rollouts=rollouts)
    _check_folder(output)
    started = time.perf_counter()
    console.print(
        f"{record.env_id}, {record.horizon} steps, discount {record.discount:g}: {episodes} "
        f"episodes of the behaviour policy, then the target policy's value."
    )
    with LiveProgress(console) as progress:
        result = run_demo(
            record, seed=seed, episodes=episodes, config=config, device=device, progress=progress
        )
    console.print(_table(result))
    thin = [e.estimator for e in result.estimates if e.mc_standard_error is None]
    if thin:
        console.print(
            f"Warning: a handful of rollouts carries the weights of {', '.join(thin)}: logged and "
            "simulated transitions are too far apart for these forms, and their values mean little."
        )
    replaced = (output / f"demo_{result.task}.json").exists()
    saved = save_demo(result, output)
    seconds = time.perf_counter() - started
    console.print(
        f"{seconds:.0f} s in all. Saved {saved[0]} and {saved[1]}"
        + (", in place of an earlier run's." if replaced else "."),
        soft_wrap=True,
    )


def _console() -> Console:
    """As wide as the terminal; in a log, wide enough for a table."""
    console = Console()
    return console if console.is_terminal else Console(width=100)


def _require(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"The demo needs {package}, which is not installed: pip install 'lfiw-ope[demo]'."
            )


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"The output {folder} is a file; name a folder.")


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
    for estimate in result.estimates:
        table.add_row(
            estimate.estimator,
            f"{estimate.value:.2f}",
            "–" if estimate.mc_standard_error is None else f"{estimate.mc_standard_error:.2f}",
            f"{result.error(estimate):+.2f}",
            f"{relative_error(result, estimate):.1%}",
            f"{estimate.ess:.1f}/{estimate.rollouts}",
            f"{sum(estimate.seconds.values()):.0f}",
        )
    return table


def main() -> None:
    """Run the command line: 2 and one sentence for bad input, 1 for a run that failed."""
    try:
        app()
    except OPEError as error:
        console = Console(stderr=True)
        console.print(f"lfiw-ope: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1 if isinstance(error, RuntimeError | ImportError) else 2)

"""`lfiw-ope bench`: a benchmark of estimators, run here or on a cluster, and its leaderboard."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from lfiw_ope.cli.terminal import (
    Device,
    LiveProgress,
    check_folder,
    console,
    listed_in,
    plain_warnings,
    require,
    require_engine,
    tell_end,
    typed,
    whole_in,
)
from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.serialization import counted
from lfiw_ope.core.validation import whole
from lfiw_ope.estimators.registry import CATALOGUE

if TYPE_CHECKING:
    from lfiw_ope.benchmark.run import BenchResults
    from lfiw_ope.benchmark.suites import Suite


def bench_command(
    suite: Annotated[
        str | None, typer.Argument(help="which benchmark; without one, all are listed")
    ] = None,
    estimators: Annotated[
        str | None,
        typer.Option(
            help=f"in place of the suite's: some of {', '.join(CATALOGUE)}, or package.module:NAME "
            "of your own, by commas"
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="in place of the suite's: ladders, or package.module:NAME of your own"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="in place of the suite's: data sets")] = None,
    questions: Annotated[
        str | None, typer.Option(help="in place of the suite's: such as T100,g0.99")
    ] = None,
    policies: Annotated[
        int | None, typer.Option(help="how many targets of each task, evenly along its ladder")
    ] = None,
    transitions: Annotated[
        str | None, typer.Option(help="in place of the suite's: in each log, such as 1e4,1e5")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="in place of the suite's: how many, 0, 1, …")
    ] = None,
    jobs: Annotated[int, typer.Option(help="processes")] = 1,
    engine: Annotated[
        Literal["joblib", "ray"], typer.Option(help="this machine, or a Ray cluster")
    ] = "joblib",
    device: Device = "cpu",
    output: Annotated[
        Path | None, typer.Option(help="folder of the results; results/bench/SUITE by default")
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on with the output folder's cells")] = False,
) -> None:
    """Run a benchmark of estimators offline, and rank them."""
    require("envs", "gymnasium")
    from lfiw_ope.benchmark.run import run_suite
    from lfiw_ope.benchmark.suites import SUITES, get_suite

    terminal = console()
    if suite is None:
        given = (estimators, tasks, data, questions, policies, transitions, seeds, output)
        others = (resume, jobs, engine, device) != (False, 1, "joblib", "cpu")
        if others or any(one is not None for one in given):
            raise ConfigError(f"Name a suite to run: {', '.join(SUITES)}.")
        terminal.print(_listed())
        return
    chosen = _changed(
        get_suite(suite),
        estimators=estimators,
        tasks=tasks,
        data=data,
        questions=questions,
        policies=policies,
        transitions=transitions,
        seeds=seeds,
        device=device,
    )
    folder = output or Path("results") / "bench" / suite
    here = Path.cwd()  # an estimator may go elsewhere
    _check_saving(folder, resume=resume, jobs=jobs, engine=engine)
    replaced = (folder / "results.json").exists()
    terminal.print(_in_words(chosen), soft_wrap=True)
    started = time.perf_counter()
    with plain_warnings(terminal), LiveProgress(terminal) as progress:
        found = run_suite(
            chosen,
            output=folder,
            jobs=jobs,
            engine=engine,
            resume=resume,
            command=typed(),
            progress=progress,
        )
    os.chdir(here)
    _conclude(terminal, found, folder, started, replaced=replaced)
    if not any(row.row.status == "ok" for row in found.rows):
        if found.rows:
            terminal.print("No cell has an answer: all were refused, or failed.", soft_wrap=True)
        raise typer.Exit(1)


def _changed(
    suite: "Suite",
    *,
    estimators: str | None,
    tasks: str | None,
    data: str | None,
    questions: str | None,
    policies: int | None,
    transitions: str | None,
    seeds: int | None,
    device: str,
) -> "Suite":
    """The suite with what was asked for in place of its own."""
    from lfiw_ope.benchmark.suites import estimator_entries, ladders_named

    change: dict[str, Any] = {}
    if estimators is not None:
        change["estimators"] = listed_in("--estimators", estimators, "by commas")
        estimator_entries(change["estimators"])  # refused before anything is said
    if tasks is not None:
        change["ladders"] = ladders_named(listed_in("--tasks", tasks, "by commas"))
    if data is not None:
        change["data"] = listed_in("--data", data, "by commas")
    if questions is not None:
        ladders = change.get("ladders", suite.ladders)
        asked = listed_in("--questions", questions, "by commas")
        change["questions"] = {ladder.name: asked for ladder in ladders}
    if policies is not None:
        change["policies"] = policies
    if transitions is not None:
        said = listed_in("--transitions", transitions, "by commas")
        change["transitions"] = tuple(whole_in("--transitions", one) for one in said)
    if seeds is not None:
        change["seeds"] = tuple(range(whole("seeds", seeds, least=1)))
    changed = suite.changed(**change)
    return changed if device == "cpu" else changed.on(device)


def _check_saving(folder: Path, *, resume: bool, jobs: int, engine: str) -> None:
    """What is needed besides the suite, looked for before the work and not after."""
    from lfiw_ope.benchmark.run import require_free

    require_engine(jobs, engine)
    check_folder(folder)
    require("compare", "filelock", "matplotlib")
    require_free(folder, resume=resume)


def _in_words(suite: "Suite") -> str:
    logs = sum(len(suite.asked(ladder)) for ladder in suite.ladders)
    logs *= len(suite.data) * len(suite.transitions) * len(suite.seeds)
    tasks = ", ".join(f"{ladder.name} ({ladder.purpose})" for ladder in suite.ladders)
    return (
        f"{suite.name}: {suite.in_words}\n{tasks}; data sets {', '.join(suite.data)} of "
        f"{', '.join(f'{count:,}' for count in suite.transitions)} transitions; "
        f"{counted(len(suite.seeds), 'seed')}; {counted(len(suite.estimators), 'estimator')} in "
        f"each of {counted(logs, 'trial')}."
    )


def _listed() -> Table:
    """Every suite, and what it is for."""
    from lfiw_ope.benchmark.suites import SUITES

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("suite", "what it is for", "tasks", "data sets", "seeds"):
        table.add_column(name, overflow="fold")
    for suite in SUITES.values():
        tasks = ", ".join(ladder.name for ladder in suite.ladders)
        counts = ", ".join(f"{count:,}" for count in suite.transitions)
        data = f"{', '.join(suite.data)} of {counts} transitions"
        table.add_row(suite.name, suite.in_words, tasks, data, str(len(suite.seeds)))
    return table


def _failures(found: "BenchResults") -> Iterator[str]:
    """Of each estimator that something was raised by, how often, and what it was first."""
    every = Counter(row.row.estimator for row in found.rows)
    for name, cells in every.items():
        reasons = [
            row.row.reason
            for row in found.rows
            if (row.row.estimator, row.row.status) == (name, "failed")
        ]
        if reasons:
            yield f"{name} failed in {len(reasons)} of {cells} cells; first: {reasons[0]}"


def _conclude(
    terminal: Console, found: "BenchResults", folder: Path, started: float, *, replaced: bool
) -> None:
    """The leaderboard, what has no log, and where all was saved."""
    from lfiw_ope.benchmark.report import write_leaderboard
    from lfiw_ope.cli.leaderboard_table import leaderboard_table

    for trial, reason in found.without_log.items():
        terminal.print(f"{trial} is left out. {reason}", soft_wrap=True)
    saved: tuple[Path, ...] = (folder / "results.json", folder / "results.csv")
    if found.rows:
        board, boards = write_leaderboard(found.rows, folder, found.head)
        terminal.print(leaderboard_table(board, terminal))
        for line in _failures(found):
            terminal.print(line, soft_wrap=True)
        saved += boards
    elif (folder / "leaderboard.md").exists():
        terminal.print(f"The leaderboard in {folder} is of an earlier run.", soft_wrap=True)
    tell_end(terminal, started, saved, replaced=replaced)

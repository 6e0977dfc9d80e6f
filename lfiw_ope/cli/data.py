"""`lfiw-ope data`: the benchmark's data sets, made, found and exported."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from lfiw_ope.cli.info import in_words
from lfiw_ope.cli.terminal import (
    LiveProgress,
    check_folder,
    console,
    plain_warnings,
    require,
    saved_note,
    whole_in,
)
from lfiw_ope.core.errors import ConfigError

if TYPE_CHECKING:
    from lfiw_ope.benchmark.datasets import DataSet


def data_command(
    task: Annotated[
        str | None, typer.Argument(help="a ladder; without one, all are listed")
    ] = None,
    data: Annotated[str | None, typer.Argument(help="one of its data sets")] = None,
    transitions: Annotated[str, typer.Option(help="R, exactly, such as 1e4")] = "1e5",
    seed: Annotated[int, typer.Option(help="of resets, draws and the order of episodes")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="an .npz file, or with --minari a new folder, to export to")
    ] = None,
    minari: Annotated[
        str | None, typer.Option(help="Minari's id of the export, such as swimmer/replay-v0")
    ] = None,
) -> None:
    """Make a data set of the benchmark with shipped policies, or find it where it was kept."""
    from lfiw_envs.ladders import LADDERS, get_ladder

    from lfiw_ope.benchmark.datasets import find_or_play
    from lfiw_ope.data.minari import require_dataset_id

    terminal = console()
    if task is None:
        if output is not None or minari is not None:
            raise ConfigError(f"Name a task and its data set to export: {', '.join(LADDERS)}.")
        terminal.print(_listed())
        return
    try:
        ladder = get_ladder(task)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if data is None:
        raise ConfigError(f"Name a data set of {task}: {', '.join(ladder.recipes)}.")
    count = whole_in("--transitions", transitions)
    _check_output(output, minari)
    require("envs", "gymnasium")
    if minari is not None:
        require("minari", "minari")
        require_dataset_id(minari)
    started = time.perf_counter()
    with plain_warnings(terminal), LiveProgress(terminal) as progress:
        made = find_or_play(ladder, data, count, seed, progress=progress)
    seconds = time.perf_counter() - started
    _say(terminal, f"{task}/{data}", made, seconds)
    if output is not None:
        _export(terminal, made, output, minari, ladder.episode)


def _listed() -> Table:
    """Every ladder, with what it is for and the policies behind each data set."""
    from lfiw_envs.ladders import LADDERS, PAPER

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("task", "environment", "purpose", "data set", "made by"):
        table.add_column(name, overflow="fold", no_wrap=name in ("task", "environment"))
    for ladder in (*LADDERS.values(), *PAPER.values()):
        environment = ladder.env_id.rpartition(":")[2]  # without the module that registers it
        first: tuple[str, str, str] = (ladder.name, environment, ladder.purpose)
        for data, recipe in ladder.recipes.items():
            table.add_row(*first, data, ", ".join(recipe))
            first = ("", "", "")
    return table


def _check_output(output: Path | None, minari: str | None) -> None:
    """That it can be exported, before minutes of play and not after."""
    if minari is not None and output is None:
        raise ConfigError(f"--minari {minari} needs --output, a new folder for the data set.")
    if output is None:
        return
    check_folder(output.parent)
    if minari is not None and output.exists():
        raise ConfigError(f"The output {output} exists; name a new folder, or delete it first.")
    if minari is None and (output.suffix.lower() != ".npz" or output.is_dir()):
        raise ConfigError(f"The output {output} is no .npz file; name one, or give --minari ID.")


def _say(terminal: Console, name: str, made: "DataSet", seconds: float) -> None:
    from lfiw_ope.data.summary import describe

    done = "found" if made.found else "played"
    where = "not kept" if made.path is None else f"{'in' if made.found else 'kept in'} {made.path}"
    terminal.print(f"{name}: {done} in {seconds:.1f} s, {where}", soft_wrap=True)
    terminal.print(in_words(name, describe(made.log)), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("played by", "episodes", "transitions", "mean return"):
        table.add_column(column, justify="left" if column == "played by" else "right")
    returns = made.log.returns()
    for i, policy in enumerate(made.policies):
        here = made.player == i
        rows = int(made.log.lengths[here].sum())
        table.add_row(policy, str(int(here.sum())), str(rows), f"{np.mean(returns[here]):.6g}")
    terminal.print(table)


def _export(
    terminal: Console, made: "DataSet", output: Path, minari: str | None, episode: int
) -> None:
    from lfiw_ope.data.files import save_npz
    from lfiw_ope.data.minari import save_minari

    replaced = output.exists()
    if minari is not None:
        save_minari(made.log, output, dataset_id=minari, max_episode_steps=episode)
    else:
        save_npz(made.log, output)
    terminal.print(saved_note((output,), replaced=replaced), soft_wrap=True)
    if minari is None:
        terminal.print(
            f"Such a file is read with --env {made.log.env_id} --max-episode-steps {episode}.",
            soft_wrap=True,
        )

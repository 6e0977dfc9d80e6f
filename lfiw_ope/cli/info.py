"""`lfiw-ope info`: what is in a log."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lfiw_ope.cli.inputs import SOURCES, Actions, DropTerminal, Episodes, MaxEpisodeSteps, read_log
from lfiw_ope.cli.terminal import check_folder, console, require, saved_note
from lfiw_ope.core.errors import ConfigError, NonFiniteError
from lfiw_ope.core.serialization import write_text
from lfiw_ope.data.summary import Description, Spread, describe

if TYPE_CHECKING:
    from lfiw_ope.data.trajectories import Trajectories


def info(
    data: Annotated[str, typer.Argument(help=SOURCES)],
    env: Annotated[str | None, typer.Option(help="Gymnasium id, for a file's spaces")] = None,
    max_episode_steps: MaxEpisodeSteps = None,
    drop_terminal: DropTerminal = False,
    actions: Actions = None,
    episodes: Episodes = None,
    output: Annotated[Path | None, typer.Option(help="folder for JSON and PNG")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON alone to stdout")] = False,
) -> None:
    """Say what is in a log: episodes, lengths, returns, spaces, NaNs, log-probabilities."""
    if output is not None:
        check_folder(output)
        require("plots", "matplotlib")
    terminal, counts = console(stderr=as_json), {}
    try:
        log = read_log(
            data,
            env,
            max_episode_steps=max_episode_steps,
            drop_terminal=drop_terminal,
            episodes=episodes,
            actions=actions,
            terminal=terminal,
        )
    except NonFiniteError as error:
        log, counts = error.data, error.counts
    if env is not None and log.env_id not in (None, env):
        raise ConfigError(f"The data are of {log.env_id}, and --env says {env}; leave it out.")
    found = describe(log, not_finite=counts)
    text = json.dumps({"source": data, **found.to_dict()}, indent=1)
    if as_json:
        typer.echo(text)
    else:
        terminal.print(in_words(data, found), soft_wrap=True)
    if output is not None:
        # An id's whole name: mujoco/hopper/medium-v0 and mujoco/walker2d/medium-v0 are two.
        name = Path(data).stem if Path(data).exists() else data.replace("/", "_")
        replaced = (output / f"info_{name}.json").exists()
        paths = write_text(output / f"info_{name}.json", text + "\n"), _figure(log, output, name)
        terminal.print(saved_note(paths, replaced=replaced), soft_wrap=True)


def in_words(source: str, found: Description) -> str:
    """A line for each thing worth knowing."""
    kwargs = ", ".join(f"{key}={value!r}" for key, value in found.env_kwargs.items())
    lines = {
        "source": source,
        "environment": f"{found.env_id or 'not said'}{f' ({kwargs})' if kwargs else ''}",
        "episodes": f"{found.episodes}: {found.terminated} terminated, {found.truncated} truncated",
        "transitions": f"{found.transitions} ({found.mebibytes:.1f} MiB in memory)",
        "lengths": _spread(found.lengths),
        "returns": _spread(found.returns),
        "states": f"{found.states} entries"
        + (f", {found.constant_states} of them never vary" if found.constant_states else ""),
        "actions": found.actions
        + ("" if found.at_bounds is None else f", {found.at_bounds:.1%} of entries on a bound"),
        "log-probabilities": ("carried" if found.log_prob else "absent")
        + (", of the behaviour's own draws, before clipping" if found.proposed_actions else ""),
        "not finite": ", ".join(f"{count} entries of {n}" for n, count in found.not_finite.items())
        or "none",
    }
    if found.not_finite:
        lines["warning"] = "nothing can be estimated until these episodes are dropped or repaired"
    return "\n".join(f"{name:<19}{said}" for name, said in lines.items())


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "no finite one"
    return (
        f"mean {spread.mean:.6g}, median {spread.median:.6g}, "
        f"from {spread.lowest:.6g} to {spread.highest:.6g}"
    )


def _figure(log: "Trajectories", folder: Path, name: str) -> Path:
    from lfiw_ope.evaluation.plots import new_figure, plot_histogram, plot_state_ranges, save_figure

    figure = new_figure(13, 4)
    left, middle, right = figure.subplots(1, 3)
    plot_histogram(left, log.returns(), "return of an episode")
    plot_histogram(middle, log.lengths, "steps of an episode")
    plot_state_ranges(right, log.states)
    figure.suptitle(f"{name}: {log.num_episodes} episodes, {log.num_transitions} transitions")
    return save_figure(figure, folder / f"info_{name}.png")

"""How the commands read a log: common options, and what the reader warns of, in plain lines."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lfiw_ope.checks import whole
from lfiw_ope.commands.rules import has_rules
from lfiw_ope.commands.terminal import plain_warnings
from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import ConfigError

MaxEpisodeSteps = Annotated[
    int | None, typer.Option(help="time limit, for a file that marks no truncation")
]
DropTerminal = Annotated[
    bool, typer.Option(help="leave out terminal transitions that lack their next state")
]
Episodes = Annotated[int | None, typer.Option(help="the first ones alone")]
Actions = Annotated[
    int | None, typer.Option(help="how many discrete actions, for a file of whole numbers")
]
SOURCES = "Minari id or folder, D4RL .hdf5, or .npz"


def read_log(
    source: str,
    env: str | None,
    *,
    max_episode_steps: int | None,
    drop_terminal: bool,
    episodes: int | None,
    actions: int | None,
    terminal: Console,
) -> Trajectories:
    """The log. A file is told its environment; a Minari data set says its own.

    Args:
        source: the id, folder or file.
        env: a Gymnasium id, an import path (which says nothing of spaces), or None.
        max_episode_steps, drop_terminal, episodes: see `lfiw_ope.load_data`.
        actions: A, where actions are discrete and only the user knows how many there are.
        terminal: where warnings go.
    """
    from lfiw_ope.data.load import FILES, load_data

    spec = None if actions is None else ActionSpec.discrete(whole("actions", actions, least=1))

    def load(env_id: str | None) -> Trajectories:
        return load_data(
            source,
            env_id=env_id,
            max_episode_steps=max_episode_steps,
            drop_terminal=drop_terminal,
            episodes=episodes,
            action_space=spec,
        )

    is_file = Path(source).suffix.lower() in FILES
    of_spaces = env if is_file and env is not None and ":" not in env else None
    with plain_warnings(terminal):
        try:
            return load(of_spaces)
        except ConfigError as error:
            # Old versions, whose rules are known, cannot be made any more to look at their spaces.
            if of_spaces is None or not has_rules(of_spaces):
                raise
            terminal.print(f"Warning: {error} Actions are taken as unbounded.", soft_wrap=True)
            return load(None)

"""One door for every kind of log that is a file, a folder or a name."""

from pathlib import Path
from typing import Any

from lfiw_ope.data.d4rl import load_d4rl
from lfiw_ope.data.minari import load_minari
from lfiw_ope.data.npz import load_npz
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import ConfigError, DataError

FILES = (".hdf5", ".h5", ".npz")
"""Endings of logs that are one file, and do not name their environment."""


def load_data(
    source: str | Path,
    *,
    action_space: Any = None,
    env_id: str | None = None,
    max_episode_steps: int | None = None,
    drop_terminal: bool = False,
    episodes: int | None = None,
) -> Trajectories:
    """Read a log by what it is.

    * a Minari data set: its folder, or its id, such as "mujoco/hopper/medium-v0";
    * `.hdf5` or `.h5`: a file in D4RL's layout;
    * `.npz`: an archive of the arrays that `from_arrays` takes, see `load_npz`.

    Args:
        source: the id, folder or file.
        action_space: a Gymnasium Box or Discrete, or an `ActionSpec`, for a file, which does not
            say what its actions are; without `env_id`, observations then stand as they are.
        env_id: the Gymnasium environment that gives spaces and time limit to a file, which does
            not say them itself; a Minari data set does.
        max_episode_steps: the time limit, for a file that does not mark truncation.
        drop_terminal: leave out terminal transitions whose next state is not in the file.
        episodes: how many to keep, the first ones; all where None.

    Raises:
        DataError: if it is none of these, or cannot be what it claims to be.
        ConfigError: if `env_id` is not known, or something is given that a Minari data set says.
        InsufficientMemoryError: if the episodes would not fit into memory.
        MissingDependencyError: if what reads it is not installed.
        UntrustedFileError: if an archive holds pickled objects.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (".pkl", ".pickle", ".zip"):
        raise DataError(
            f"{source} is a kind of file that executes code when it is read; a replay buffer of "
            "stable-baselines3 is loaded by lfiw_ope.load_sb3_buffer, with trust=True."
        )
    if suffix in FILES and not path.is_dir():
        if not path.is_file():
            raise DataError(f"There is no file {source}.")
        read = load_npz if suffix == ".npz" else load_d4rl
        return read(
            path,
            action_space=action_space,
            env_id=env_id,
            max_episode_steps=max_episode_steps,
            drop_terminal=drop_terminal,
            episodes=episodes,
        )
    if path.is_file():
        raise DataError(
            f"{source} is no kind of file that is known; expected a Minari data set's folder or "
            "id, an .hdf5 file in D4RL's layout, or an .npz of arrays."
        )
    said = (action_space, env_id, max_episode_steps)
    if any(one is not None for one in said) or drop_terminal:
        raise ConfigError(
            "A Minari data set says its environment, its actions, its ends and its last states "
            "itself; leave env_id, action_space, max_episode_steps and drop_terminal out."
        )
    return load_minari(source, episodes=episodes)

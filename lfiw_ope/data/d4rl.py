"""Trajectories from HDF5 files in D4RL's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfiw_ope.data.arrays import from_arrays
from lfiw_ope.data.columns import UNREADABLE
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError
from lfiw_ope.extras import needed

_COLUMNS = (
    *("observations", "actions", "rewards", "terminals", "timeouts", "next_observations"),
    "infos/action_log_probs",
)

_ELSEWHERE = (
    "{path} has {name} in another file, which is not read, since whoever wrote this one chose its "
    "path; copy the array into this file."
)


def load_d4rl(
    path: str | Path,
    *,
    observation_space: Any = None,
    action_space: Any = None,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    drop_terminal: bool = False,
    episodes: int | None = None,
) -> Trajectories:
    """Read an HDF5 file in the layout of D4RL (Fu et al., 2020), a chunk at a time.

    The file holds `observations`, `actions`, `rewards` and `terminals`, `timeouts` or else
    `max_episode_steps`, where present `next_observations`, and where present
    `infos/action_log_probs`, which become `log_prob`. What a file without `next_observations`
    gives is said at `from_arrays`, as are the arguments. The file does not say what bounds its
    actions have: without `env_id` or `action_space` they have none.

    Args:
        path: the file.
        observation_space: a Gymnasium space; without one, observations are flattened as they are.
        action_space: a Gymnasium Box or Discrete, or an `ActionSpec`.
        env_id: the Gymnasium environment whose spaces the data have, such as "Hopper-v5"; D4RL's
            own names are not known to Gymnasium.
        env_kwargs: what `gymnasium.make` was given beside the id.
        max_episode_steps: the time limit, for a file without `timeouts`.
        drop_terminal: leave out terminal transitions whose next state is not in the file.
        episodes: how many to keep, the first ones; all where None.

    Raises:
        DataError: if it is no such file, or for what `from_arrays` refuses.
        ConfigError: if `env_id` is not known and no `action_space` is given.
        InsufficientMemoryError: if the episodes would not fit into memory.
        MissingDependencyError: if h5py is not installed.
    """
    with needed("HDF5 files need h5py", extra="d4rl"):
        import h5py
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} is not an HDF5 file ({error}).") from error
    with file:
        if "episode_0" in file:
            raise DataError(f"{path} is part of a Minari data set; load the folder that holds it.")
        links = {name: _link(file, name) for name in _COLUMNS}
        found = {name: _data_set(file, name) for name, link in links.items() if link is not None}
        if "infos/action_log_probs" in found:
            found["log_prob"] = found.pop("infos/action_log_probs")
        return from_arrays(
            found,
            observation_space=observation_space,
            action_space=action_space,
            env_id=env_id,
            env_kwargs=env_kwargs,
            max_episode_steps=max_episode_steps,
            drop_terminal=drop_terminal,
            episodes=episodes,
            source=str(path),
        )


def _link(file: Any, name: str) -> Any:
    """What the file has under the name, or None; no link to another file is followed.

    Raises:
        DataError: if there is such a link on the way.
    """
    import h5py

    link, parts = None, name.split("/")
    for i in range(len(parts)):
        link = file.get("/".join(parts[: i + 1]), getlink=True)
        if link is None:
            break
        if isinstance(link, h5py.ExternalLink):
            raise DataError(_ELSEWHERE.format(path=file.filename, name=name))
    return link


def _data_set(file: Any, name: str) -> Any:
    """An array of the file itself.

    Raises:
        DataError: if it is none, leads nowhere, or its rows lie in another file.
    """
    import h5py

    try:
        column = file[name]
    except UNREADABLE as error:
        raise DataError(f"{file.filename} has {name} that cannot be opened ({error}).") from error
    if not isinstance(column, h5py.Dataset):
        raise DataError(f"{file.filename} has {name} as a group; D4RL has an array there.")
    # A soft link may lead through an external one.
    if column.external or column.is_virtual or column.file.filename != file.filename:
        raise DataError(_ELSEWHERE.format(path=file.filename, name=name))
    return column

"""Trajectories from files: .npz, D4RL's HDF5, and one loader for every kind."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.errors import ConfigError, DataError, UntrustedFileError
from lfiw_ope.core.runtime import needed
from lfiw_ope.data.arrays import from_arrays
from lfiw_ope.data.minari import load_minari
from lfiw_ope.data.tables import UNREADABLE
from lfiw_ope.data.trajectories import Trajectories

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class ArchivedArray:
    """One array of an archive. `numpy.load` would hold the whole of it.

    Attributes:
        shape: the array's.
        dtype: the array's.

    Args:
        archive: open for as long as rows are read.
        member: the array's file in it.

    Raises:
        DataError: if it is no array that can be read by rows.
        UntrustedFileError: if it holds pickled objects.
    """

    def __init__(self, archive: zipfile.ZipFile, member: str) -> None:
        try:
            self._stream = archive.open(member)
            header = _HEADERS[np.lib.format.read_magic(self._stream)]
            self.shape, by_columns, self.dtype = header(self._stream)
        except UNREADABLE as error:
            raise DataError(
                f"{archive.filename} has {member}, which is no array that can be read "
                f"({type(error).__name__}: {error})."
            ) from error
        if self.dtype.hasobject:
            raise UntrustedFileError(
                f"{archive.filename} has pickled objects in {member}; save arrays of numbers."
            )
        if by_columns and len(self.shape) > 1:
            raise DataError(
                f"{archive.filename} has {member} in Fortran order; save it with "
                "numpy.ascontiguousarray."
            )
        self._begin = self._stream.tell()
        self._row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        self._stream.seek(self._begin + start * self._row_bytes)
        content = self._stream.read((stop - start) * self._row_bytes)
        if len(content) < (stop - start) * self._row_bytes:
            raise EOFError("the array is shorter than its header says")
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])


def load_npz(
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
    """Read the arrays that `from_arrays` takes from an archive that `numpy.savez` wrote.

    They are read a chunk at a time, and nothing is unpickled. The arguments are those of
    `from_arrays`; a file does not say its spaces, so give them or `env_id`.

    Args:
        path: the archive.
        observation_space: a Gymnasium space; without one, observations are flattened as they are.
        action_space: a Gymnasium Box or Discrete, or an `ActionSpec`.
        env_id: the Gymnasium environment that gives the spaces and the time limit.
        env_kwargs: what `gymnasium.make` was given beside the id.
        max_episode_steps: the time limit, for an archive without `truncated`.
        drop_terminal: leave out terminal transitions whose next state is not in the archive.
        episodes: how many to keep, the first ones; all where None.

    Raises:
        DataError: if it is no archive of arrays, or for what `from_arrays` refuses.
        ConfigError: if `env_id` is not known and no `action_space` is given.
        InsufficientMemoryError: if the episodes would not fit into memory.
        UntrustedFileError: if it holds pickled objects.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not an .npz archive ({error}).") from error
    with archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        return from_arrays(
            {name.removesuffix(".npy"): ArchivedArray(archive, name) for name in names},
            observation_space=observation_space,
            action_space=action_space,
            env_id=env_id,
            env_kwargs=env_kwargs,
            max_episode_steps=max_episode_steps,
            drop_terminal=drop_terminal,
            episodes=episodes,
            source=str(path),
        )


def save_npz(data: Trajectories, path: str | Path) -> Path:
    """Write an archive that `load_npz` reads; it appears whole or not at all.

    Discrete actions are written as whole numbers from 0 on. Such a file says neither its
    environment nor its actions' bounds or number: `load_npz` is told them by `env_id` or
    `action_space`, and where episodes are longer than the environment's own limit, that by
    `max_episode_steps`.

    Args:
        data: the log.
        path: ends in .npz; a file that is there is replaced.

    Raises:
        ConfigError: if it has another ending.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise ConfigError(f"{path} ends in {path.suffix or 'nothing'}; name an .npz file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        arrays = log_arrays(data)
        if data.action_spec.kind == "discrete":
            arrays["actions"] = arrays["actions"].argmax(1)
        write_npz(partial, arrays)
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def log_arrays(data: Trajectories) -> dict[str, NDArray[Any]]:
    """A log's arrays under the names that `from_arrays` knows."""
    arrays: dict[str, NDArray[Any] | None] = {
        "observations": data.states,
        "actions": data.actions,
        "rewards": data.rewards,
        "lengths": data.lengths,
        "terminated": data.terminated,
        "truncated": data.truncated,
        "log_prob": data.log_prob,
        "proposed_actions": data.proposed_actions,
    }
    return {name: of for name, of in arrays.items() if of is not None}


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to this very file: `numpy.savez` adds an ending to a name, not to a file."""
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the rest for a flag


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

"""Trajectories from and to Minari data sets."""

import copy
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.errors import ConfigError, DataError, MissingDependencyError, warn
from lfiw_ope.core.runtime import needed
from lfiw_ope.core.validation import whole
from lfiw_ope.data.spaces import (
    action_spec,
    decode_actions,
    encode_actions,
    flatten_states,
    gymnasium,
    spaces_of,
    state_size,
)
from lfiw_ope.data.tables import leaves
from lfiw_ope.data.trajectories import Column, EpisodeStorage, Trajectories, chunks, rows_of

LOG_PROB, PROPOSED = "behaviour_log_prob", "behaviour_proposed_action"
"""Names among a Minari episode's infos."""


class EpisodeColumns(NamedTuple):
    """One episode of T steps, not yet read where it is a data set of an HDF5 file.

    Attributes:
        observations: `[T + 1, ...]`, or a dict or tuple of such columns.
        actions: `[T, ...]`.
        rewards: `[T]`.
        terminated: the last step led to a terminal state.
        truncated: the last step was cut off.
        infos: those that this package wrote.
    """

    observations: Any
    actions: Any
    rewards: Column
    terminated: bool
    truncated: bool
    infos: dict[str, Any]


def in_slices(data_set: Any) -> bool:
    """Whether episodes are read a chunk at a time, not whole: from HDF5, but for encoded images."""
    if data_set.storage.metadata["data_format"] != "hdf5":
        return False
    import h5py

    with h5py.File(data_set.storage.data_path / "main_data.hdf5", "r") as file:
        group = file[f"episode_{data_set.episode_indices[0]}"]
        columns = [*leaves(_tree(group["observations"])), *leaves(_tree(group["actions"]))]
        return all(column.dtype.kind in "biuf" for column in columns)


def read_episodes(
    data_set: Any, chosen: NDArray[np.int64], sliced: bool
) -> Iterator[EpisodeColumns]:
    """The chosen episodes, each valid until the next one is asked for."""
    size = max(1, min(16, len(chosen) // 32))
    # A few at a time: HDF5 keeps what it knows of each, Arrow reads ahead of its user.
    for start in range(0, len(chosen), size):
        part = chosen[start : start + size]
        if sliced:
            yield from _from_hdf5(data_set, part)
        else:
            for one in data_set.iterate_episodes(part):
                yield _columns(vars(one))


def _from_hdf5(data_set: Any, chosen: NDArray[np.int64]) -> Iterator[EpisodeColumns]:
    import h5py

    with h5py.File(data_set.storage.data_path / "main_data.hdf5", "r") as file:
        for number in chosen:
            group = file[f"episode_{number}"]
            named = {name: group[name] for name in ("rewards", "terminations", "truncations")}
            parts = {name: _tree(group[name]) for name in ("observations", "actions")}
            yield _columns({**named, **parts, "infos": group.get("infos")})


def _columns(episode: Mapping[str, Any]) -> EpisodeColumns:
    infos = episode["infos"] or {}
    terminated, truncated = (
        bool(np.any(episode[name][-1:])) for name in ("terminations", "truncations")
    )
    return EpisodeColumns(
        episode["observations"],
        episode["actions"],
        episode["rewards"],
        terminated,
        truncated,
        {name: infos[name] for name in (LOG_PROB, PROPOSED) if name in infos},
    )


def _tree(node: Any) -> Any:
    """The data sets under a node as a dict of them; Minari numbers the parts of a tuple."""
    if hasattr(node, "dtype"):
        return node
    if all(name.startswith("_index_") for name in node):
        return tuple(_tree(node[f"_index_{i}"]) for i in range(len(node)))
    return {name: _tree(node[name]) for name in node}


def check_episode(episode: EpisodeColumns, index: int, length: int, source: str) -> None:
    """Refuse an episode whose columns do not have the rows that its steps need.

    Raises:
        DataError: if it is one.
    """
    steps = len(episode.rewards)  # type: ignore[arg-type]
    for column in leaves(episode.observations):
        if steps < 1 or len(column) != steps + 1:
            raise DataError(
                f"Episode {index} of {source} has {len(column)} observations and {steps} rewards; "
                "an episode of T steps needs T + 1 observations, T of 1 or more."
            )
    if steps != length:
        raise DataError(
            f"Episode {index} of {source} is read with {steps} steps but says that it has "
            f"{length}; the data set is damaged, or stored as Arrow or Parquet, of "
            "which Minari gives no more than the first part of an episode so long: load it anew, "
            "or convert it to HDF5."
        )


def in_declared_order(data_set: Any, source: str) -> Any:
    """The observation space with the parts of a Dict in the order of the environment's own space.

    Minari's file keeps the parts in alphabetical order, while a policy takes the environment's. A
    `DataWarning` says so where the data set names no environment that can be made and has the
    same parts.
    """
    space, env = data_set.observation_space, data_set.env_spec
    if not _has_order(space):
        return space
    ordered = None
    if env is not None:
        try:
            ordered = _ordered(space, spaces_of(str(env.id), dict(env.kwargs))[0])
        except ConfigError:
            ordered = None
    if ordered is None:
        warn(
            f"{source} has Dict observations and no environment that can be made to say in which "
            "order it declared their parts: they are taken in alphabetical order. A policy that "
            "takes another order needs its inputs permuted."
        )
        return space
    return ordered


def _has_order(space: Any) -> bool:
    spaces = gymnasium().spaces
    if isinstance(space, spaces.Dict):
        return len(space.spaces) > 1 or any(map(_has_order, space.spaces.values()))
    return isinstance(space, spaces.Tuple) and any(map(_has_order, space.spaces))


def _ordered(space: Any, known: Any) -> Any:
    """The space in the order of a known one, or None where its parts are others."""
    spaces = gymnasium().spaces
    if isinstance(space, spaces.Dict) and isinstance(known, spaces.Dict):
        if space.spaces.keys() != known.spaces.keys():
            return None
        parts = [(key, _ordered(space[key], known[key])) for key in known.spaces]
        return None if any(part is None for _, part in parts) else spaces.Dict(parts)
    if isinstance(space, spaces.Tuple) and isinstance(known, spaces.Tuple):
        if len(space) != len(known):
            return None
        several = [_ordered(one, other) for one, other in zip(space, known, strict=True)]
        return None if any(part is None for part in several) else spaces.Tuple(several)
    same = type(space) is type(known) and state_size(space) == state_size(known)
    return space if same else None


_IS_ID = re.compile(r"[-\w/.]+-v\d+")


def load_minari(source: Any, *, episodes: int | None = None) -> Trajectories:
    """Read a Minari data set, by id or by the folder that holds it, a chunk at a time.

    A data set that is not there under its id is downloaded, where the network allows. Episodes
    keep their last observation; one that was neither terminated nor truncated when the recording
    stopped counts as truncated. HDF5, Arrow and Parquet storage are read alike; but Arrow, Parquet
    and images give whole episodes, so the longest one is held several times while it is read.

    The parts of a Dict observation come in the order in which the data set's environment declares
    them. Minari's file keeps them in alphabetical order: where the environment cannot be made,
    they stay in it, and a `DataWarning` says so.

    Args:
        source: an id such as "mujoco/hopper/medium-v0"; a folder with `metadata.json` in it or in
            its `data/`; or a `minari.MinariDataset`, filtered where you like.
        episodes: how many to keep, the first ones; all where None.

    Raises:
        DataError: if it is no Minari data set, holds no episode, or has spaces that are not
            supported.
        InsufficientMemoryError: if the episodes would not fit into memory.
        MissingDependencyError: if Minari is not installed.
    """
    if episodes is not None:
        whole("episodes", episodes, least=1)
    data_set, name = _open(source)
    observation_space = in_declared_order(data_set, name)
    action_space = data_set.action_space
    spec, size = action_spec(action_space), state_size(observation_space)
    chosen = data_set.episode_indices[:episodes]
    if len(chosen) == 0:
        raise DataError(f"The Minari data set {name} holds no episode; at least one is needed.")
    said = data_set.storage.get_episode_metadata(chosen)
    lengths = np.array([int(one["total_steps"]) for one in said], np.int64)
    sliced = in_slices(data_set)
    carried: set[str] = set(next(read_episodes(data_set, chosen[:1], sliced)).infos)
    storage = EpisodeStorage(
        lengths,
        size,
        spec,
        source=name,
        log_prob=LOG_PROB in carried,
        proposed_actions=PROPOSED in carried,
        whole_episodes=not sliced,
    )
    terminated, truncated = np.empty(len(chosen), bool), np.empty(len(chosen), bool)
    for i, episode in enumerate(read_episodes(data_set, chosen, sliced)):
        check_episode(episode, i, int(lengths[i]), name)
        _read_states(storage, i, observation_space, episode.observations)
        _read_steps(storage, i, action_space, episode)
        _read_infos(storage, i, episode.infos, carried, name)
        terminated[i] = episode.terminated
        truncated[i] = not episode.terminated or episode.truncated
    env = data_set.env_spec
    return storage.trajectories(
        terminated,
        truncated,
        env_id=None if env is None else str(env.id),
        env_kwargs={} if env is None else dict(env.kwargs),
    )


def _read_states(storage: EpisodeStorage, index: int, space: Any, column: Any) -> None:
    first, last = storage.state_offsets[index : index + 2]
    for rows in chunks(0, int(last - first), 4 * storage.states.shape[1]):
        states = flatten_states(space, rows_of(column, rows))
        storage.states[first + rows.start : first + rows.stop] = states


def _read_steps(storage: EpisodeStorage, index: int, space: Any, episode: EpisodeColumns) -> None:
    first, last = storage.offsets[index : index + 2]
    for rows in chunks(0, int(last - first), 4 * storage.actions.shape[1]):
        to = slice(first + rows.start, first + rows.stop)
        storage.actions[to] = encode_actions(space, rows_of(episode.actions, rows))
        storage.rewards[to] = np.reshape(episode.rewards[rows], -1)


def _read_infos(
    storage: EpisodeStorage, index: int, infos: dict[str, Any], carried: set[str], source: str
) -> None:
    if infos.keys() != carried:
        raise DataError(
            f"Episode {index} of {source} carries {' and '.join(infos) or 'no behaviour infos'}, "
            f"the first one {' and '.join(sorted(carried)) or 'none'}; all must carry the same."
        )
    steps = slice(storage.offsets[index], storage.offsets[index + 1])
    for name, kept in ((LOG_PROB, storage.log_prob), (PROPOSED, storage.proposed_actions)):
        if kept is not None:
            # Minari's collector records an info at the reset too: the last rows are the steps'.
            values = np.asarray(infos[name][-len(kept[steps]) :])
            kept[steps] = values.reshape(kept[steps].shape)


def installed_minari() -> Any:
    """Minari itself.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    with needed("Minari data sets need Minari", extra="minari"):
        import minari
    return minari


def _open(source: Any) -> tuple[Any, str]:
    """The data set, and what messages call it."""
    minari = installed_minari()
    if isinstance(source, minari.MinariDataset):
        return source, str(source.id)
    folder = Path(source)
    if not folder.exists() and (folder.is_absolute() or str(source).startswith(".")):
        raise DataError(f"There is no folder {source}; name one with a Minari data set, or an id.")
    if not folder.exists() and not _IS_ID.fullmatch(str(source)):
        raise DataError(
            f"There is no file or folder {source}, and a Minari id looks like "
            "'mujoco/hopper/medium-v0'."
        )
    try:
        if folder.is_dir():
            folder = folder / "data" if (folder / "data").is_dir() else folder
            return minari.MinariDataset(folder), str(source)
        return minari.load_dataset(str(source), download=True), str(source)
    except ImportError as error:
        raise MissingDependencyError(
            f"{source} cannot be had with what is installed ({error}): pip install "
            "'lfiw-ope[minari]'."
        ) from error
    except Exception as error:  # Minari raises many types, for the network as for the format
        raise DataError(
            f"{source} is no Minari data set that can be loaded, here or by download "
            f"({type(error).__name__}: {error})."
        ) from error


def save_minari(
    data: Trajectories,
    folder: str | Path,
    *,
    dataset_id: str,
    max_episode_steps: int | None = None,
) -> Path:
    """Write a Minari data set (HDF5) that `load_minari` and Minari itself read.

    Args:
        data: the log.
        folder: a folder that does not exist yet; it appears whole or not at all.
        dataset_id: Minari's name for it, such as "swimmer/behaviour-v0".
        max_episode_steps: after which the log's environment was truncated, for Minari's
            `recover_environment`; the environment's own limit where None.

    Raises:
        ConfigError: if Minari takes no such name.
        DataError: if the folder exists.
        MissingDependencyError: if Minari is not installed.
    """
    require_dataset_id(dataset_id)
    minari = installed_minari()
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    folder = Path(folder)
    if folder.exists():
        raise DataError(f"{folder} exists; name a new folder, or delete it first.")
    spaces = gymnasium().spaces
    spec = data.action_spec
    observation_space = spaces.Box(-np.inf, np.inf, (data.state_size,), np.float32)
    action_space = spaces.Discrete(spec.size)
    if spec.kind == "continuous":
        action_space = spaces.Box(
            np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32), dtype=np.float32
        )
    # Absolute: of a relative folder Minari joins the path to itself.
    partial = folder.absolute().with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "data").mkdir(parents=True)
    try:
        storage = MinariStorage.new(
            partial / "data",
            observation_space=observation_space,
            action_space=action_space,
            env_spec=_environment(data, max_episode_steps),
            data_format="hdf5",
        )
        storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__})
        storage.update_episodes(
            EpisodeBuffer(**_episode(data, i, action_space)) for i in range(data.num_episodes)
        )
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def require_dataset_id(said: str) -> None:
    """That Minari can call a data set so: one of another name is written, and cannot be read.

    Raises:
        ConfigError: if it cannot.
        MissingDependencyError: if Minari is not installed.
    """
    installed_minari()
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(said)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"Minari takes no data set called {said!r}; name it such as swimmer/replay-v0, with "
            "two letters or more before a slash."
        ) from error


def _environment(data: Trajectories, max_episode_steps: int | None) -> Any:
    """Gymnasium's specification of the environment, or None where Gymnasium does not know it."""
    if data.env_id not in gymnasium().registry:
        return None
    spec = copy.deepcopy(gymnasium().spec(data.env_id))
    spec.kwargs.update(data.env_kwargs)
    spec.max_episode_steps = max_episode_steps or spec.max_episode_steps
    return spec


def _episode(data: Trajectories, i: int, action_space: Any) -> dict[str, Any]:
    rows = slice(data.offsets[i], data.offsets[i + 1])
    steps = int(data.lengths[i])
    infos: dict[str, Any] = {}
    if data.log_prob is not None:
        infos[LOG_PROB] = data.log_prob[rows]
    if data.proposed_actions is not None:
        infos[PROPOSED] = data.proposed_actions[rows]
    ends = np.arange(steps) == steps - 1
    return {
        "id": i,
        "observations": data.states[data.state_offsets[i] : data.state_offsets[i + 1]],
        "actions": decode_actions(action_space, data.actions[rows]),
        "rewards": data.rewards[rows],
        "terminations": ends & data.terminated[i],
        "truncations": ends & data.truncated[i],
        "infos": infos or None,
    }

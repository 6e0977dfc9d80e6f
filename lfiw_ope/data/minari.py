"""Trajectories from Minari data sets."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from lfiw_ope.checks import whole
from lfiw_ope.data.chunks import chunks, rows_of
from lfiw_ope.data.minari_episodes import (
    LOG_PROB,
    PROPOSED,
    EpisodeColumns,
    check_episode,
    in_declared_order,
    in_slices,
    read_episodes,
)
from lfiw_ope.data.spaces import (
    action_spec,
    encode_actions,
    flatten_states,
    state_size,
)
from lfiw_ope.data.storage import EpisodeStorage
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError, MissingDependencyError
from lfiw_ope.extras import needed

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

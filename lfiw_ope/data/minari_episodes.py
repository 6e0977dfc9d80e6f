"""Episodes of a Minari data set as columns, read a chunk at a time where its storage allows."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.data.chunks import Column
from lfiw_ope.data.columns import leaves
from lfiw_ope.data.spaces import gymnasium, spaces_of, state_size
from lfiw_ope.errors import ConfigError, DataError, warn

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

"""Trajectories from plain arrays, in memory or in a file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.errors import DataError
from lfiw_ope.core.validation import whole
from lfiw_ope.data.spaces import spaces_of
from lfiw_ope.data.tables import check_rows, encoding, named_columns, read_flags, time_limits
from lfiw_ope.data.trajectories import EpisodeStorage, Trajectories, chunks, rows_of
from lfiw_ope.data.transitions import Encoding, TransitionLog, find_breaks, read_transitions

JUMP = 1e-4
"""Next observations this far from the row that follows, in standard deviations, are of another
episode: less than a step of an environment moves."""


def from_arrays(
    arrays: Mapping[str, Any],
    *,
    observation_space: Any = None,
    action_space: Any = None,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    drop_terminal: bool = False,
    episodes: int | None = None,
    source: str = "The log",
) -> Trajectories:
    """Episodes from a dict of arrays, one row a transition, in time order.

    The keys are `observations` [R, ...], `actions` [R, ...], `rewards` [R], `terminated` [R] and
    `truncated` [R], which are True where an episode ends; D4RL's names `terminals` and `timeouts`
    and Minari's `terminations` and `truncations` do as well. Optional are `next_observations`
    [R, ...], `log_prob` [R] (the behaviour policy's, of its own draw) and `proposed_actions`
    [R, A] (that draw, before the bounds clipped it). A last episode without an end is truncated.

    Without `next_observations` the state that the last transition of an episode led to is
    unknown. That transition is left out and its observation becomes the episode's last state; a
    `DataWarning` counts them. Terminal ones are left out only where `drop_terminal` says so,
    because with them the data lose every termination and its reward.

    A dict with `lengths` [N] is read as `Trajectories` stores it: `observations` [R + N, ...] with
    each episode's last one, `terminated` [N] and, optionally, `truncated` [N].

    Args:
        arrays: NumPy arrays, or what slices like them: memory maps, h5py data sets. They are read
            a chunk at a time. Of a Dict observation space `observations` is a dict of arrays.
        observation_space: a Gymnasium space; without one, observations are flattened as they are.
        action_space: a Gymnasium Box or Discrete, or an `ActionSpec`; without one, actions are
            continuous and unbounded, and whole numbers are refused.
        env_id: the environment's Gymnasium id. Where no `action_space` is given, the spaces and
            the time limit are taken from it.
        env_kwargs: what `gymnasium.make` was given beside the id.
        max_episode_steps: the time limit. It marks truncation where the arrays do not; where they
            do, no episode may be longer.
        drop_terminal: see above.
        episodes: how many to keep, the first ones; all where None.
        source: what messages call the log.

    Raises:
        DataError: if keys are missing or unknown, lengths disagree, values are none of the spaces
            or not finite, actions lie outside their bounds, next observations contradict the rows
            that follow, an episode is longer than the time limit, or terminal transitions have no
            next state.
        ConfigError: if `env_id` is not known and no `action_space` is given, or a setting is
            outside its range.
        InsufficientMemoryError: if the episodes would not fit into memory.
    """
    if episodes is not None:
        whole("episodes", episodes, least=1)
    if max_episode_steps is not None:
        whole("max_episode_steps", max_episode_steps, least=1)
    columns = named_columns(arrays, source)
    if env_id is not None and action_space is None:
        known, action_space, limit = spaces_of(env_id, env_kwargs or {})
        observation_space = known if observation_space is None else observation_space
        max_episode_steps = limit if max_episode_steps is None else max_episode_steps
    read_as = encoding(columns, observation_space, action_space, source)
    if "lengths" in columns:
        storage, terminated, truncated = _read_states(
            columns, read_as, episodes, max_episode_steps, source
        )
        return storage.trajectories(
            terminated, truncated, env_id=env_id, env_kwargs=env_kwargs or {}
        )
    check_rows(columns, dict.fromkeys(columns, columns["rewards"].shape[0]), source)
    terminated = read_flags(columns["terminated"], "terminated", source)
    truncated = _truncated(columns, terminated, max_episode_steps, source)
    ends = np.flatnonzero(terminated | truncated)
    _check_limit(np.diff(ends, prepend=-1, append=terminated.size - 1), max_episode_steps, source)
    log = TransitionLog(
        source=source,
        terminated=terminated,
        truncated=truncated,
        observations=columns["observations"],
        actions=columns["actions"],
        rewards=columns["rewards"],
        read_as=read_as,
        next_observations=columns.get("next_observations"),
        log_prob=columns.get("log_prob"),
        proposed_actions=columns.get("proposed_actions"),
        env_id=env_id,
        env_kwargs=env_kwargs or {},
    )
    _check_continuity(log)
    return read_transitions(log, episodes=episodes, drop_terminal=drop_terminal)


def _truncated(
    columns: Mapping[str, Any], terminated: NDArray[np.bool_], limit: int | None, source: str
) -> NDArray[np.bool_]:
    if "truncated" in columns:
        return read_flags(columns["truncated"], "truncated", source)
    if limit is None:
        raise DataError(
            f"{source} has no truncated (timeouts), so episodes that a time limit ended would run "
            "into the next; pass max_episode_steps=, or zeros where there is no time limit."
        )
    return time_limits(terminated, limit)


def _check_limit(lengths: NDArray[Any], limit: int | None, source: str) -> None:
    """Refuse ends that are not marked where the time limit says that there is one."""
    longest = int(lengths.max(initial=0))
    if limit is not None and longest > limit:
        raise DataError(
            f"{source} has an episode of {longest} steps, more than the time limit of {limit}, so "
            "ends are not marked; mark them as truncated (timeouts), leave that column out so that "
            "the limit marks them, or pass the max_episode_steps= that was recorded with."
        )


def _check_continuity(log: TransitionLog) -> None:
    """Refuse rows that are not in time order, or ends that are not marked."""
    if log.next_observations is None:
        return
    breaks = find_breaks(log, JUMP)
    if breaks.size:
        raise DataError(
            f"{log.source}: after row {breaks[0]} the next observation is not the observation of "
            f"the next row, though no episode ends there; {breaks.size} of {log.terminated.size} "
            "rows are like that. Mark these ends as truncated; shuffled rows are no episodes."
        )


def _read_states(
    columns: Mapping[str, Any],
    read_as: Encoding,
    episodes: int | None,
    limit: int | None,
    source: str,
) -> tuple[EpisodeStorage, NDArray[np.bool_], NDArray[np.bool_]]:
    """Columns that keep R + N observations, as `Trajectories` does."""
    lengths = np.asarray(columns["lengths"][:])
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 1).any():
        raise DataError(f"{source} has lengths that are no whole numbers of 1 or more.")
    _check_limit(lengths, limit, source)
    if "next_observations" in columns:
        raise DataError(f"{source} has lengths and next_observations; leave one of them out.")
    rows, count = int(lengths.sum()), lengths.size
    expected = dict.fromkeys(("actions", "rewards", "log_prob", "proposed_actions"), rows)
    expected |= dict.fromkeys(("terminated", "truncated"), count)
    check_rows(columns, expected | {"observations": rows + count}, source)
    terminated = read_flags(columns["terminated"], "terminated", source)[:episodes]
    truncated = ~terminated
    if "truncated" in columns:
        truncated = read_flags(columns["truncated"], "truncated", source)[:episodes]
    storage = EpisodeStorage(
        lengths[:episodes].astype(np.int64),
        read_as.state_size,
        read_as.action_spec,
        source=source,
        log_prob="log_prob" in columns,
        proposed_actions="proposed_actions" in columns,
    )
    for part in chunks(0, len(storage.states), 4 * read_as.state_size):
        storage.states[part] = read_as.flatten(rows_of(columns["observations"], part))
    for part in chunks(0, len(storage.rewards), 4 * read_as.action_spec.size):
        storage.actions[part] = read_as.encode(columns["actions"][part])
        for name in ("rewards", "log_prob", "proposed_actions"):
            kept = getattr(storage, name)
            if kept is not None:
                kept[part] = np.reshape(columns[name][part], kept[part].shape)
    return storage, terminated, truncated

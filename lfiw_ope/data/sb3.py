"""Trajectories from stable-baselines3's replay and rollout buffers.

What a buffer keeps was read off stable-baselines3 2.9: `common/buffers.py` and the two
`collect_rollouts`, of `off_policy_algorithm.py` and `on_policy_algorithm.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.errors import DataError, UntrustedFileError, warn
from lfiw_ope.core.runtime import needed
from lfiw_ope.core.validation import whole
from lfiw_ope.data.spaces import action_spec, encode_actions, flatten_states, gymnasium, state_size
from lfiw_ope.data.trajectories import FloatArray, Trajectories
from lfiw_ope.data.transitions import Encoding, TransitionLog, find_breaks, read_transitions


class Unrolled:
    """`[size, n_envs, ...]` as rows `[n_envs · count, ...]`: environment after environment.

    Args:
        array: the buffer's, written in a ring.
        first: the place of the oldest row.
        count: rows of each environment.
    """

    def __init__(self, array: NDArray[Any], first: int, count: int) -> None:
        self.array, self.first, self.count = array, first, count
        self.shape = (array.shape[1] * count, *array.shape[2:])
        self.dtype = array.dtype

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        env, step = np.divmod(np.arange(*rows.indices(self.shape[0])), self.count)
        chosen: NDArray[Any] = self.array[(self.first + step) % len(self.array), env]
        return chosen


def unroll(column: Any, first: int, count: int) -> Any:
    """An array, or each part of a dict of arrays, as `Unrolled`."""
    if isinstance(column, Mapping):
        return {name: unroll(part, first, count) for name, part in column.items()}
    return Unrolled(column, first, count)


def replay_log(buffer: Any, scaled: bool, limit: int | None, keep_partial: bool) -> TransitionLog:
    first, count = (buffer.pos, buffer.buffer_size) if buffer.full else (0, buffer.pos)
    one_array = bool(buffer.optimize_memory_usage)
    if one_array and buffer.full:
        # The newest transition's next observation stands where the oldest one's observation was.
        first, count = first + 1, count - 1
    rows = partial(unroll, first=first, count=count)
    begins = np.arange(0, buffer.n_envs * count, count)
    done = rows(buffer.dones)[:] > 0
    marked = bool(getattr(buffer, "handle_timeout_termination", False))
    timed_out = rows(buffer.timeouts)[:] > 0 if marked else np.zeros_like(done)
    truncated = done & timed_out
    truncated[begins + count - 1] |= ~done[begins + count - 1]
    flatten = partial(flatten_states, buffer.observation_space)
    encode = partial(encode_actions, buffer.action_space)
    if scaled and isinstance(buffer.action_space, gymnasium().spaces.Box):
        encode = partial(_unscale, buffer.action_space)
    log = TransitionLog(
        source=f"The {type(buffer).__name__}",
        observations=rows(buffer.observations),
        actions=rows(buffer.actions),
        rewards=rows(buffer.rewards),
        terminated=done & ~timed_out,
        truncated=truncated,
        read_as=Encoding(
            flatten, encode, state_size(buffer.observation_space), action_spec(buffer.action_space)
        ),
        next_observations=None if one_array else rows(buffer.next_observations),
        headless=begins if buffer.full else begins[:0],
    )
    if not one_array:
        # A second call of learn resets the environments without a word in the buffer.
        truncated[find_breaks(log, 0.0)] = True
    return log if marked else _with_time_limit(log, limit, keep_partial)


def _with_time_limit(log: TransitionLog, limit: int | None, keep_partial: bool) -> TransitionLog:
    """Ends that the buffer calls terminal, truncated where the time limit is what ended them."""
    ends = np.flatnonzero(log.terminated | log.truncated)
    steps = np.diff(ends, prepend=-1)
    if limit is None:
        if log.terminated.any():
            warn(
                f"{log.source} was made with handle_timeout_termination=False, so all its "
                f"{int(log.terminated.sum())} ends count as terminal; pass max_episode_steps= if "
                "the environment has a time limit."
            )
        return log
    unclear = np.isin(ends - steps + 1, log.headless) & log.terminated[ends]
    # Without next observations the last transition, and what it claims, is left out anyway.
    if keep_partial and unclear.any() and log.next_observations is not None:
        raise DataError(
            f"{log.source} was made with handle_timeout_termination=False and holds the end of "
            f"{int(unclear.sum())} episodes without their beginning, so their steps do not tell "
            "whether the time limit ended them; leave keep_partial out, or train with "
            "handle_timeout_termination=True."
        )
    timed_out = ends[log.terminated[ends] & (steps == limit)]
    terminated, truncated = log.terminated.copy(), log.truncated.copy()
    terminated[timed_out], truncated[timed_out] = False, True
    return replace(log, terminated=terminated, truncated=truncated)


def _unscale(space: Any, scaled: NDArray[Any]) -> FloatArray:
    """Actions of [-1, 1] in the environment's units, as `BasePolicy.unscale_action` gives them."""
    if (np.abs(scaled) > 1.0 + 1e-5).any():
        raise DataError(
            "Actions of the ReplayBuffer lie outside [-1, 1], so they are not scaled; pass "
            "scaled_actions=False."
        )
    low, high = space.low.ravel(), space.high.ravel()
    # Rounding may carry an action at a bound past it.
    actions: FloatArray = np.clip(low + 0.5 * (scaled + 1.0) * (high - low), low, high)
    return actions.astype(np.float32)


def rollout_log(buffer: Any, drop_terminal: bool) -> TransitionLog:
    count, n_envs = buffer.size(), buffer.n_envs
    rows = partial(unroll, first=0, count=count)
    box = isinstance(buffer.action_space, gymnasium().spaces.Box)
    starting = rows(_by_step(buffer, "episode_starts", 0))[:] > 0
    begins = np.arange(0, n_envs * count, count)
    ended = np.roll(starting, -1)
    ended[begins + count - 1] = False
    if ended.any() and not drop_terminal:
        raise DataError(
            f"A RolloutBuffer does not say whether its {int(ended.sum())} ended episodes were "
            "terminal, nor where their last transitions led, and the rewards of those that timed "
            "out hold a value estimate; drop_terminal=True leaves these transitions out and counts "
            "the episodes as truncated."
        )
    ended[begins + count - 1] = True
    observation_space, action_space = buffer.observation_space, buffer.action_space
    encode = partial(_clip if box else encode_actions, action_space)
    observations = buffer.observations
    if isinstance(observations, Mapping):
        observed: Any = {
            name: _by_step(buffer, name, len(buffer.obs_shape[name])) for name in observations
        }
    else:
        observed = _by_step(buffer, "observations", len(buffer.obs_shape))
    actions = rows(_by_step(buffer, "actions", 1))
    return TransitionLog(
        source=f"The {type(buffer).__name__}",
        observations=rows(observed),
        actions=actions,
        rewards=rows(_by_step(buffer, "rewards", 0)),
        terminated=np.zeros_like(ended),
        truncated=ended,
        read_as=Encoding(
            partial(flatten_states, observation_space),
            encode,
            state_size(observation_space),
            action_spec(action_space),
        ),
        log_prob=rows(_by_step(buffer, "log_probs", 0)),
        proposed_actions=actions if box else None,
        headless=begins[~starting[begins]],
    )


def _by_step(buffer: Any, name: str, axes: int) -> NDArray[Any]:
    """A rollout buffer's column as `[steps, n_envs, ...]`, though training may have flattened it.

    Args:
        buffer: the buffer.
        name: of the column, or of one part of its observations.
        axes: how many axes a single entry has.
    """
    observations = buffer.observations
    parts = observations if isinstance(observations, Mapping) else {}
    array: NDArray[Any] = parts[name] if name in parts else getattr(buffer, name)
    if array.shape[:2] == (buffer.buffer_size, buffer.n_envs) and array.ndim == 2 + axes:
        return array
    # `swap_and_flatten` puts environment after environment, and gives a scalar an axis.
    entry = array.shape[1:] if axes else ()
    return array.reshape(buffer.n_envs, buffer.buffer_size, *entry).swapaxes(0, 1)


def _clip(space: Any, proposed: NDArray[Any]) -> FloatArray:
    clipped: FloatArray = np.clip(proposed, space.low.ravel(), space.high.ravel())
    return clipped.astype(np.float32)


def from_sb3_buffer(
    buffer: Any,
    *,
    scaled_actions: bool = True,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    drop_terminal: bool = False,
    keep_partial: bool = False,
    episodes: int | None = None,
) -> Trajectories:
    """The episodes in a `ReplayBuffer` or `RolloutBuffer` of stable-baselines3.

    Episodes come environment by environment, each in time order. One that the buffer cut off is
    truncated; one whose beginning it overwrote or never saw is left out, because its first state
    is no initial state, and a `DataWarning` counts such.

    A `ReplayBuffer` keeps actions scaled to [-1, 1]; they are given back in the environment's
    units. With `handle_timeout_termination` it tells time limits from terminal states. Without, it
    counts every end as terminal, unless `max_episode_steps` says which are not. With
    `optimize_memory_usage` it loses the state that each episode's last transition led to.

    A `RolloutBuffer` keeps the policy's draws and their log-probabilities; actions are the draws
    clipped to the bounds. It keeps neither the state that the last transition of an episode led to
    nor whether it was terminal, and stable-baselines3 adds its value estimate to the reward of one
    that timed out: these transitions can only be left out, which `drop_terminal` allows.

    Args:
        buffer: the buffer, or better the model that owns it, which knows its environment and
            whether `VecNormalize` changed what a `RolloutBuffer` holds.
        scaled_actions: whether the actions of a `ReplayBuffer` are scaled to [-1, 1], as those
            of every buffer that stable-baselines3 filled itself are.
        env_id: the environment's Gymnasium id, where the buffer's model does not say it.
        env_kwargs: what `gymnasium.make` was given beside the id.
        max_episode_steps: the time limit, for a buffer that does not mark it.
        drop_terminal: leave out terminal transitions whose next state the buffer does not keep.
        keep_partial: keep episodes whose beginning is not in the buffer. Where their lengths would
            have to tell time limits from terminal states, they are refused.
        episodes: how many to keep, the first ones; all where None.

    Raises:
        DataError: if it is no such buffer, is empty, has spaces that are not supported, or
            terminal transitions have no next state.
        InsufficientMemoryError: if the episodes would not fit into memory.
    """
    if episodes is not None:
        whole("episodes", episodes, least=1)
    if max_episode_steps is not None:
        whole("max_episode_steps", max_episode_steps, least=1)
    model = buffer if hasattr(buffer, "policy") else None
    if model is not None:
        buffer = getattr(model, "replay_buffer", None) or getattr(model, "rollout_buffer", None)
    rollout = hasattr(buffer, "episode_starts")
    if not rollout and not hasattr(buffer, "dones"):
        raise DataError(
            f"{type(model or buffer).__name__} is or has no ReplayBuffer or RolloutBuffer of "
            "stable-baselines3."
        )
    if model is not None:
        spec = _environment(model, rollout)
        if env_id is None and spec is not None:
            env_id, env_kwargs = str(spec.id), dict(spec.kwargs)
        if max_episode_steps is None and spec is not None:
            max_episode_steps = spec.max_episode_steps
    if buffer.size() == 0:
        raise DataError(f"The {type(buffer).__name__} is empty; train or collect first.")
    if rollout:
        log = rollout_log(buffer, drop_terminal)
    else:
        log = replay_log(buffer, scaled_actions, max_episode_steps, keep_partial)
    log = replace(log, env_id=env_id, env_kwargs=env_kwargs or {})
    return read_transitions(
        log, episodes=episodes, drop_terminal=drop_terminal, keep_partial=keep_partial
    )


def load_sb3_buffer(
    path: str | Path,
    *,
    trust: bool = False,
    scaled_actions: bool = True,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    drop_terminal: bool = False,
    keep_partial: bool = False,
    episodes: int | None = None,
) -> Trajectories:
    """A replay buffer that stable-baselines3's `save_replay_buffer` wrote: `from_sb3_buffer` of it.

    Args:
        path: the pickle.
        trust: execute the pickle. Only for files of your own.
        scaled_actions: as in `from_sb3_buffer`, as are the rest.
        env_id: likewise.
        env_kwargs: likewise.
        max_episode_steps: likewise.
        drop_terminal: likewise.
        keep_partial: likewise.
        episodes: likewise.

    Raises:
        UntrustedFileError: without `trust`.
        DataError: if there is no such file, it is no pickle, or for what `from_sb3_buffer` refuses.
        MissingDependencyError: if stable-baselines3 is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no replay buffer {path}.")
    if not trust:
        raise UntrustedFileError(
            f"{path} is a pickle, which executes code when it is read; pass trust=True if the file "
            "is yours."
        )
    with needed("Saved replay buffers need stable-baselines3", extra="sb3"):
        from stable_baselines3.common.save_util import load_from_pkl
    try:
        buffer = load_from_pkl(path)
    except Exception as error:  # a pickle can raise anything
        raise DataError(f"{path} cannot be unpickled ({type(error).__name__}: {error}).") from error
    return from_sb3_buffer(
        buffer,
        scaled_actions=scaled_actions,
        env_id=env_id,
        env_kwargs=env_kwargs,
        max_episode_steps=max_episode_steps,
        drop_terminal=drop_terminal,
        keep_partial=keep_partial,
        episodes=episodes,
    )


def _environment(model: Any, rollout: bool) -> Any:
    """The specification of a model's environment, or None.

    Raises:
        DataError: if the model's rollout buffer does not hold what the environment saw.
    """
    if rollout and model.get_vec_normalize_env() is not None:
        raise DataError(
            "The model trains under VecNormalize, so its RolloutBuffer holds observations and "
            "rewards in no environment's units, normalised by statistics that moved meanwhile; "
            "collect with lfiw_ope.collect instead."
        )
    if rollout and getattr(model.policy, "squash_output", False):
        raise DataError(
            "The model's policy squashes its output, so its RolloutBuffer holds no actions in the "
            "environment's units; collect with lfiw_ope.collect instead."
        )
    env = model.get_env()
    return None if env is None else env.get_attr("spec")[0]

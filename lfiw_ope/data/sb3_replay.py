"""What stable-baselines3's replay buffers hold, as a log of transitions."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.data.log import FloatArray
from lfiw_ope.data.sb3_columns import unroll
from lfiw_ope.data.spaces import (
    action_spec,
    encode_actions,
    flatten_states,
    gymnasium,
    state_size,
)
from lfiw_ope.data.transitions import Encoding, TransitionLog, find_breaks
from lfiw_ope.errors import DataError, warn


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

"""What stable-baselines3's rollout buffers hold, as a log of transitions."""

from collections.abc import Mapping
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
from lfiw_ope.data.transitions import Encoding, TransitionLog
from lfiw_ope.errors import DataError


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

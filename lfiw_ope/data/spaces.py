"""Gymnasium spaces to flat arrays and back: the one place that knows about both."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import ConfigError, DataError
from lfiw_ope.core.runtime import needed
from lfiw_ope.data.trajectories import FloatArray

MOST_NUMBERED = 10_000
"""Combinations of discrete actions that it is sensible to number: each is an entry of a row."""


def gymnasium() -> Any:
    """The package, imported only where an environment or its spaces are met.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    with needed("Environments need Gymnasium", extra="envs"):
        import gymnasium as package
    return package


def spaces_of(env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[Any, Any, int | None]:
    """Observation space, action space and time limit of a registered environment.

    Raises:
        ConfigError: if Gymnasium does not know the environment, or cannot make it.
    """
    if env_id not in gymnasium().registry:
        raise ConfigError(
            f"Gymnasium knows no environment {env_id!r} to take the spaces from; pass "
            "action_space= as well, or import the package that registers it."
        )
    try:
        with warnings.catch_warnings():
            # That an environment is an old version is known to whoever has its data.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*out of date.*")
            env = gymnasium().make(env_id, **env_kwargs)
    except Exception as error:  # what making an environment raises is the environment's choice
        raise ConfigError(
            f"{env_id} cannot be made to take its spaces from ({type(error).__name__}: {error}); "
            "pass action_space= as well."
        ) from error
    env.close()
    return env.observation_space, env.action_space, env.spec.max_episode_steps


def action_spec(space: Any) -> ActionSpec:
    """What actions of a Gymnasium space are.

    Raises:
        DataError: if the space is neither Box nor Discrete.
    """
    spaces = gymnasium().spaces
    if isinstance(space, spaces.Box):
        return ActionSpec.continuous(space.low, space.high)
    if isinstance(space, spaces.Discrete):
        return ActionSpec.discrete(int(space.n))
    advice = ""
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        discrete = isinstance(space, spaces.MultiDiscrete)
        sizes = np.ravel(space.nvec) if discrete else np.full(math.prod(space.shape), 2)
        combinations = math.prod(sizes.tolist())
        if combinations <= MOST_NUMBERED:
            advice = f"; number its {combinations} combinations and log that number as Discrete"
    raise DataError(f"The action space is {space}; Box and Discrete are supported{advice}.")


def state_size(space: Any) -> int:
    """S, the entries of a flattened observation.

    Raises:
        DataError: if the space has no flattening of a fixed size.
    """
    spaces = gymnasium().spaces
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return sum(state_size(part) for part in parts)
    kinds = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    if not isinstance(space, kinds):
        raise DataError(
            f"The observation space is {space}; Box, Discrete, MultiDiscrete, MultiBinary, and "
            "Dict or Tuple of them are supported."
        )
    return int(spaces.flatdim(space))


def flatten_states(space: Any, observations: Any) -> FloatArray:
    """Observations `[rows, ...]` as states `[rows, S]`, each row as `gymnasium.spaces.flatten`.

    Box and MultiBinary are flattened, Discrete and MultiDiscrete one-hot, the parts of Dict and
    Tuple one after the other in the space's order.

    Args:
        space: the space of one observation.
        observations: an array; of a Dict space a dict of arrays, of a Tuple space a tuple.

    Raises:
        DataError: if the observations are none of the space.
    """
    spaces = gymnasium().spaces
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        try:
            return np.concatenate(
                [flatten_states(part, observations[key]) for key, part in parts], axis=1
            )
        except (KeyError, IndexError, TypeError) as error:
            raise DataError(
                f"The observations lack {error} of the space {space}; a Dict space needs a dict "
                "of arrays, a Tuple space a tuple."
            ) from error
    rows, size = np.asarray(observations), state_size(space)
    if isinstance(space, spaces.Discrete):
        return one_hot(rows.reshape(len(rows), -1), [size], [int(space.start)])
    if isinstance(space, spaces.MultiDiscrete):
        return one_hot(rows.reshape(len(rows), -1), np.ravel(space.nvec), np.ravel(space.start))
    if math.prod(rows.shape[1:]) != size:
        raise DataError(
            f"The rows have shape {rows.shape[1:]}; the space {space} has {space.shape}."
        )
    return rows.reshape(len(rows), size).astype(np.float32)


def one_hot(values: NDArray[Any], counts: Any, starts: Any) -> FloatArray:
    """Whole numbers `[rows, k]`, one-hot over `counts[j]` values from `starts[j]` on each.

    Raises:
        DataError: if one of them is out of range or not whole.
    """
    counts, starts = np.asarray(counts), np.asarray(starts)
    if values.shape[1] != len(counts):
        raise DataError(
            f"A discrete value has {values.shape[1]} entries; the space has {len(counts)}."
        )
    wrong = (values < starts) | (values >= starts + counts) | (values != np.floor(values))
    if wrong.any():
        column = int(np.argwhere(wrong)[0][1])
        raise DataError(
            f"A discrete value is {values[wrong][0]}; the space has the whole numbers "
            f"{starts[column]} to {starts[column] + counts[column] - 1}."
        )
    first = np.concatenate(([0], np.cumsum(counts)))
    rows = np.zeros((len(values), first[-1]), np.float32)
    rows[np.arange(len(values))[:, None], values.astype(np.int64) - starts + first[:-1]] = 1.0
    return rows


def encode_actions(space: Any, actions: Any) -> FloatArray:
    """Environment actions `[rows, ...]` as `[rows, A]`: Box flattened, Discrete one-hot.

    Args:
        space: a Gymnasium space, or an `ActionSpec`, whose discrete actions are 0 to A - 1.
        actions: in the environment's units.

    Raises:
        DataError: if the actions are none of the space.
    """
    if not isinstance(space, ActionSpec):
        return flatten_states(space, actions)
    rows = np.asarray(actions)
    size = math.prod(rows.shape[1:])
    if space.kind == "discrete" and size == 1:
        return one_hot(rows.reshape(len(rows), 1), [space.size], [0])
    if size != space.size:
        raise DataError(f"The actions have shape {rows.shape[1:]}; expected {space.size} entries.")
    return rows.reshape(len(rows), size).astype(np.float32)


def decode_actions(space: Any, actions: FloatArray) -> NDArray[Any]:
    """The inverse: `[rows, A]` as the environment takes them.

    Raises:
        DataError: if an action lies outside the space.
    """
    if isinstance(space, gymnasium().spaces.Discrete):
        return np.asarray(actions.argmax(1) + int(space.start), dtype=space.dtype)
    shaped = actions.reshape(len(actions), *space.shape)
    # Compared as float32, which actions are: a float64 bound of 0.1 is below its own rounding.
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    if not ((shaped >= low) & (shaped <= high)).all():
        raise DataError(
            f"An action lies outside the action space {space}; where a policy gave it, give the "
            "policy the bounds, so that it clips as it did in training."
        )
    inside: NDArray[Any] = np.clip(shaped.astype(space.dtype), space.low, space.high)
    return inside

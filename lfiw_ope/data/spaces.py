"""Gymnasium spaces to flat arrays and back: the one place that knows about both."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.data.log import FloatArray
from lfiw_ope.errors import DataError, MissingDependencyError


def gymnasium() -> Any:
    """The package, imported only where an environment or its spaces are met.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import gymnasium as package
    except ImportError as error:
        raise MissingDependencyError(
            "Environments need Gymnasium: pip install 'lfiw-ope[envs]'."
        ) from error
    return package


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
    raise DataError(f"The action space is {space}; Box and Discrete are supported.")


def state_size(space: Any) -> int:
    """S, the entries of a flattened observation.

    Raises:
        DataError: if the space is neither Box nor Discrete.
    """
    spaces = gymnasium().spaces
    if not isinstance(space, spaces.Box | spaces.Discrete):
        raise DataError(f"The observation space is {space}; Box and Discrete are supported.")
    return int(spaces.flatdim(space))


def flatten_states(space: Any, observations: Any) -> FloatArray:
    """Observations `[rows, ...]` as states `[rows, S]`: Box flattened, Discrete one-hot."""
    rows = np.asarray(observations)
    if isinstance(space, gymnasium().spaces.Discrete):
        one_hot: FloatArray = np.eye(int(space.n), dtype=np.float32)[rows - int(space.start)]
        return one_hot
    flat: FloatArray = rows.reshape(len(rows), -1).astype(np.float32)
    return flat


def encode_actions(space: Any, actions: Any) -> FloatArray:
    """Environment actions `[rows, ...]` as `[rows, A]`: Box flattened, Discrete one-hot."""
    return flatten_states(space, actions)


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

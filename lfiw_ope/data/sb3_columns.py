"""Columns of stable-baselines3's buffers, which are rings for several environments."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


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

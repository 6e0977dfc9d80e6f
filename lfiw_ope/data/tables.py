"""Named columns of a log: their names, their agreement, and what they mean in a space."""

import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import DataError
from lfiw_ope.data.spaces import action_spec, encode_actions, flatten_states, state_size
from lfiw_ope.data.trajectories import Column, FloatArray, chunks
from lfiw_ope.data.transitions import Encoding

_SYNONYMS = {  # D4RL's and Minari's names
    "terminals": "terminated",
    "terminations": "terminated",
    "timeouts": "truncated",
    "truncations": "truncated",
}
_NEEDED = ("observations", "actions", "rewards", "terminated")
_KNOWN = (*_NEEDED, "truncated", "next_observations", "log_prob", "proposed_actions", "lengths")

UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(ValueError, TypeError, KeyError, RuntimeError),
)
"""What zip archives, HDF5 files and arrays raise where their content cannot be had."""


class NamedColumn:
    """A column whose rows come as an array, or as a `DataError` that says whose they are.

    Args:
        column: what rows are read from.
        name: of the column.
        source: what messages call the log.

    Raises:
        DataError: if it has no rows, or does not hold numbers.
    """

    def __init__(self, column: Column, name: str, source: str) -> None:
        self.column, self.name, self.source = column, name, source
        self.shape, self.dtype = column.shape, column.dtype
        if not self.shape:
            raise DataError(f"{source} has {name} of shape {self.shape or ()}; expected rows.")
        if self.dtype.kind not in "biuf":
            raise DataError(f"{source} has {name} of type {self.dtype}; expected real numbers.")

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        try:
            values = np.asarray(self.column[rows])
        except UNREADABLE as error:
            raise DataError(
                f"Rows {start} to {stop - 1} of {self.name} of {self.source} cannot be read "
                f"({type(error).__name__}: {error}); the file is damaged."
            ) from error
        return values


def named_columns(arrays: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arrays under this package's names.

    Raises:
        DataError: if a name is not known, given twice or missing, or an array has no rows or
            holds something else than real numbers.
    """
    if not isinstance(arrays, Mapping):
        raise DataError(f"{source} is a {type(arrays).__name__}; expected a dict of arrays.")
    columns: dict[str, Any] = {}
    for given, array in arrays.items():
        name = _SYNONYMS.get(given, given)
        if name in columns:
            raise DataError(f"{source} has {name} under two names; leave one of them out.")
        if name not in _KNOWN:
            advice = "; say whether an end is terminated or truncated" if name == "dones" else ""
            raise DataError(f"{source} has {given!r}{advice}; known are {', '.join(_KNOWN)}.")
        columns[name] = _column(array, name, source)
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise DataError(f"{source} has no {' and no '.join(missing)}.")
    return columns


def _column(array: Any, name: str, source: str) -> Any:
    if isinstance(array, Mapping):
        return {part: _column(array[part], f"{name}/{part}", source) for part in array}
    if isinstance(array, tuple):
        return tuple(_column(part, f"{name}/{i}", source) for i, part in enumerate(array))
    if not (hasattr(array, "shape") and isinstance(getattr(array, "dtype", None), np.dtype)):
        try:
            array = np.asarray(array)  # a list, or a tensor of another library
        except UNREADABLE as error:
            raise DataError(f"{source} has {name} that are no array ({error}).") from error
    return NamedColumn(array, name, source)


def leaves(column: Any) -> list[Any]:
    """The columns in a dict or tuple of columns, or the one that it is."""
    if isinstance(column, Mapping | tuple):
        parts = column.values() if isinstance(column, Mapping) else column
        return [leaf for part in parts for leaf in leaves(part)]
    return [column]


def check_rows(columns: Mapping[str, Any], rows: Mapping[str, int], source: str) -> None:
    """Refuse columns that do not have the rows that they should.

    Args:
        columns: by name.
        rows: what each of them should have.
        source: for the message.

    Raises:
        DataError: if one has not; it names both.
    """
    for name, column in columns.items():
        for leaf in leaves(column) if name in rows else ():
            if leaf.shape[0] != rows[name]:
                raise DataError(
                    f"{source} has {name} of shape {tuple(leaf.shape)}; its other columns need "
                    f"{rows[name]} rows."
                )
        scalar = name in ("rewards", "log_prob", "terminated", "truncated")
        if scalar and math.prod(column.shape[1:]) != 1:
            raise DataError(
                f"{source} has {name} of shape {tuple(column.shape)}; expected one number a row."
            )


def encoding(
    columns: Mapping[str, Any], observation_space: Any, action_space: Any, source: str
) -> Encoding:
    """What the columns' rows mean, in the given spaces or, where None is given, as they stand.

    Raises:
        DataError: if whole numbers stand where only a space says what they mean, or a space is not
            supported.
    """
    observations, actions = columns["observations"], columns["actions"]
    flatten: Callable[[Any], FloatArray] = _flat
    if observation_space is not None:
        flatten, size = partial(flatten_states, observation_space), state_size(observation_space)
    else:
        if isinstance(observations, Mapping | tuple):
            raise DataError(
                f"The observations of {source} have parts; pass their observation_space=, which "
                "says in which order they are flattened."
            )
        size = math.prod(observations.shape[1:])
        if size == 1 and observations.dtype.kind not in "f":
            raise DataError(
                f"The observations of {source} are single whole numbers; pass "
                "observation_space=, such as gymnasium.spaces.Discrete(16)."
            )
    if action_space is None:
        if actions.dtype.kind != "f":
            raise DataError(
                f"The actions of {source} are of type {actions.dtype}, which does not say how many "
                "there are; pass action_space=, such as lfiw_ope.ActionSpec.discrete(4)."
            )
        width = math.prod(actions.shape[1:])
        action_space = ActionSpec.continuous([-math.inf] * width, [math.inf] * width)
    spec = action_space if isinstance(action_space, ActionSpec) else action_spec(action_space)
    proposed = columns.get("proposed_actions")
    if proposed is not None and math.prod(proposed.shape[1:]) != spec.size:
        raise DataError(
            f"{source} has proposed_actions of shape {tuple(proposed.shape)}; expected "
            f"{spec.size} entries a row, as an encoded action has."
        )
    return Encoding(flatten, partial(encode_actions, action_space), size, spec)


def _flat(rows: Any) -> FloatArray:
    rows = np.asarray(rows)
    flat: FloatArray = rows.reshape(len(rows), math.prod(rows.shape[1:])).astype(np.float32)
    return flat


def read_flags(column: Any, name: str, source: str) -> NDArray[np.bool_]:
    """A column of `[R]` or `[R, 1]` booleans, or of numbers that are 0 or 1.

    Raises:
        DataError: if one is neither.
    """
    flags = np.empty(column.shape[0], bool)
    for rows in chunks(0, flags.size, 8):
        values = np.reshape(column[rows], -1)
        flags[rows] = values == 1
        if not (flags[rows] | (values == 0)).all():
            raise DataError(f"{source} has {name} that are neither 0 nor 1.")
    return flags


def time_limits(terminated: NDArray[np.bool_], limit: int) -> NDArray[np.bool_]:
    """Where episodes reach a time limit `[R]`, counted anew after every end."""
    row = np.arange(terminated.size)
    ends = np.flatnonzero(terminated)
    begins = np.concatenate(([0], ends + 1))[np.searchsorted(ends, row, side="left")]
    reached: NDArray[np.bool_] = (row - begins + 1) % limit == 0
    return reached

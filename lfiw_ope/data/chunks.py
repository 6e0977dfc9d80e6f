"""Reading a chunk at a time what is too long to be held twice."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

CHUNK = 2**22
"""Bytes of float32 that are read at a time."""


class Column(Protocol):
    """What rows are read from: an array, a memory map, a data set of an HDF5 file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


def chunks(first: int, last: int, row_bytes: int) -> Iterator[slice]:
    """Consecutive slices of [first, last) of at most `CHUNK` bytes, or of one row."""
    step = max(1, CHUNK // max(1, row_bytes))
    for start in range(first, last, step):
        yield slice(start, min(start + step, last))


def rows_of(column: Any, rows: slice) -> Any:
    """These rows of a column, or of each column of a dict or tuple."""
    if isinstance(column, Mapping):
        return {name: rows_of(part, rows) for name, part in column.items()}
    if isinstance(column, tuple):
        return tuple(rows_of(part, rows) for part in column)
    return column[rows]

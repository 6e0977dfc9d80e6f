"""The package's exceptions. Each is also the built-in a caller would expect to catch.

Every message is one sentence or two: what was found, what was expected, what to do.
"""

import sys
import warnings
from functools import partial
from typing import Any


class OPEError(Exception):
    """Base of every exception that the package raises on purpose."""


class DataError(OPEError, ValueError):
    """Logged data that cannot be what it claims to be: wrong shapes, NaN, no episodes."""


class NonFiniteError(DataError):
    """Data with NaN or infinity in them, which nothing can be estimated from.

    Attributes:
        data: the `Trajectories` as they are, for whoever looks for the cause.
        counts: entries that are not finite, by array.
    """

    def __init__(self, found: dict[str, tuple[int, int]], *, data: Any) -> None:
        """Of each array that has any: entries that are not finite, and the first one's row."""
        name, (bad, first) = next(iter(found.items()))
        super().__init__(
            f"{name} holds {bad} entries that are not finite, the first in row {first}; "
            "drop or repair the episodes that hold them."
        )
        self.data, self.counts = data, {name: count for name, (count, _) in found.items()}
        self._found = found

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy for another process."""
        return partial(NonFiniteError, data=self.data), (self._found,)


class ConfigError(OPEError, ValueError):
    """A setting outside its range, or settings that contradict each other."""


class PolicyError(OPEError, ValueError):
    """A policy that does not fit the data, or cannot do what an estimator needs of it."""


class UntrustedFileError(OPEError, ValueError):
    """A file whose content could only be had by executing code in it."""


class DivergedError(OPEError, RuntimeError):
    """A training or simulation whose numbers stopped being finite."""


class RefusedError(OPEError, RuntimeError):
    """A value that the data cannot tell, and that is not given because it was so wished.

    Attributes:
        reasons: why, a sentence each.
    """

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(reasons)  # what a copy in another process is made of
        self.reasons = reasons

    def __str__(self) -> str:
        return f"The data cannot tell this value: {' '.join(self.reasons)}"


class MissingDependencyError(OPEError, ImportError):
    """An optional package is needed and not installed."""


class InsufficientMemoryError(OPEError, MemoryError):
    """Data whose arrays would not fit into the memory that is free."""


class DataWarning(UserWarning):
    """Something of a log was left out or had to be assumed; the message counts it."""


def warn(message: str) -> None:
    """Give a `DataWarning` at the line outside the package from which the package was called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("lfiw_ope."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, DataWarning, stacklevel=level)

"""What an action is."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ActionSpec:
    """What an action is.

    Attributes:
        kind: "continuous" (a vector in the environment's units) or "discrete" (one-hot).
        size: A, the entries of an action.
        low: A lower bounds of a continuous action, -inf where it has none; empty if discrete.
        high: A upper bounds, likewise.
    """

    kind: Literal["continuous", "discrete"]
    size: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def continuous(cls, low: ArrayLike, high: ArrayLike) -> "ActionSpec":
        lows, highs = np.ravel(np.asarray(low, float)), np.ravel(np.asarray(high, float))
        return cls("continuous", lows.size, tuple(lows.tolist()), tuple(highs.tolist()))

    @classmethod
    def discrete(cls, n: int) -> "ActionSpec":
        return cls("discrete", n)

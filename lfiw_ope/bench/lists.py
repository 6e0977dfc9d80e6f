"""Policies of one unit, as a resample draws them, and what is said of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lfiw_ope.bench.draws import Indices
from lfiw_ope.bench.units import Numbers, Unit


@dataclass(frozen=True)
class Lists:
    """B lists of k policies of one unit, and what is said of them.

    Attributes:
        unit: the unit.
        chosen: `[B, k]` indices of its policies.
    """

    unit: Unit
    chosen: Indices

    @property
    def filled(self) -> Numbers:
        """`[E, B, k]` estimates, the log's mean return for those that are missing."""
        return self.unit.filled[:, self.chosen]

    @property
    def ordered(self) -> Numbers:
        """`filled` for what goes by order: what differs by rounding alone is equal."""
        grain = EQUAL * self.unit.scale
        near = np.abs(self.filled) < self.unit.scale / EQUAL
        return np.where(
            near, np.round(np.where(near, self.filled, 0.0) / grain), self.filled / grain
        )

    @property
    def truth(self) -> Numbers:
        """`[B, k]`"""
        return self.unit.truth[self.chosen]

    def pooled(self, per_cell: Any, over: Any = None) -> "Part":
        """A mean over cells: `[E, P]` numbers, over the cells where `over` `[E, P]` holds."""
        over = np.ones(per_cell.shape, bool) if over is None else over
        within = np.where(over, per_cell, 0.0)[:, self.chosen].sum(-1)
        return within, over[:, self.chosen].sum(-1).astype(np.float64)


EQUAL = 1e-9
"""In units of a ladder's range: estimates that are no further apart are the same."""

Part = tuple[Numbers, Numbers]
"""What a unit adds to a mean: sum and count, each `[E, B]`."""

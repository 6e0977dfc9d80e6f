"""An estimate over logged episodes as a function of sums, which can be had of any sample of them.

Importance sampling in every form, doubly robust values, corrections of a model and the plain mean
return are all of one form: a sum of ratios of sums over episodes,

    v = Σ_k Σ_i x_ik / Σ_i y_ik

IS has one x (weight times return) over one y of 1, WIS has the weight for y, the stepwise forms
have a pair for each step, and a doubly robust value one more, V̂_0(s_0) over 1. What bootstrap,
jackknife and point estimate want is then one thing: v where episode i counts c_i times. A y is the
episode's standing where weights are not self-normalised (`lfiw_ope.padding`), so that standings,
weights' shapes and all that was fitted are taken as given.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RatioSums:
    """What each episode adds to the sums that an estimate is made of.

    Attributes:
        numerator: `[N, K]` float64, x.
        denominator: `[N, K]` float64, y, 0 or more. A ratio whose y are all 0 is 0.
    """

    numerator: Floats
    denominator: Floats

    @classmethod
    def of(cls, numerator: Tensor, denominator: Tensor) -> "RatioSums":
        """From `[N, K]` and `[N, K]`; ratios that all have the same y become one."""
        x, y = numerator.double().numpy(), denominator.double().numpy()
        if (y == y[:, :1]).all():
            return cls(x.sum(1, keepdims=True), y[:, :1])
        return cls(x, y)

    def __len__(self) -> int:
        """N"""
        return len(self.numerator)

    @property
    def value(self) -> float:
        """v, every episode counted once."""
        return float(self._ratios.sum())

    def counted(self, counts: Floats) -> Floats:
        """v `[B]`, of samples in which the episodes count so often, `[B, N]`.

        Where a sample has no y of a ratio, as it has drawn no episode with a weight, the ratio of
        all episodes stands in.
        """
        return self._value(counts @ self.numerator, counts @ self.denominator)

    @property
    def influence(self) -> Floats:
        """`[N]`, what each episode adds to v's deviation (delta method); they sum to 0."""
        over = self.denominator.sum(0)
        deviation = self.numerator - self._ratios * self.denominator
        shares: Floats = np.divide(deviation, over, out=np.zeros_like(deviation), where=over > 0)
        found: Floats = shares.sum(1)
        return found

    @property
    def _ratios(self) -> Floats:
        x, y = self.numerator.sum(0), self.denominator.sum(0)
        ratios: Floats = np.divide(x, y, out=np.zeros_like(x), where=y > 0)
        return ratios

    def _value(self, x: Floats, y: Floats) -> Floats:
        stand_in = np.broadcast_to(self._ratios, x.shape).copy()
        ratios: Floats = np.divide(x, y, out=stand_in, where=y > 0)
        found: Floats = np.add.reduce(ratios, axis=-1)
        return found

"""The distribution of the return under a policy, from weighted simulated or logged returns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfiw_ope.core.errors import DataError
from lfiw_ope.core.validation import real

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReturnDistribution:
    """Returns with weights that sum to 1.

    F̂(x) = Σ_i W_i 1(G_i ≤ x)

    Self-normalised, so that it is a distribution: it starts at 0, ends at 1 and never falls
    (Chandak et al. 2021, "Universal off-policy evaluation"; Huang et al. 2021, "Off-policy risk
    assessment in contextual bandits"). With equal weights it is the empirical distribution.

    Attributes:
        returns: `[n]`, G_i, in units of return.
        log_weights: `[n]`, log W_i; −∞ is a weight of 0.

    Raises:
        DataError: if the two differ in shape, or there is none, or a return is not finite, or the
            weights do not sum to 1.
    """

    returns: Array
    log_weights: Array

    def __post_init__(self) -> None:
        returns, weights = (np.asarray(of, float) for of in (self.returns, self.log_weights))
        if returns.ndim != 1 or returns.shape != weights.shape or not returns.size:
            raise DataError(
                f"There are returns of the shape {list(returns.shape)} and log-weights of "
                f"{list(weights.shape)}; a distribution needs [n] of both."
            )
        if not np.isfinite(returns).all():
            raise DataError("A return is not finite, and would have no place in a distribution.")
        if not abs(np.exp(weights).sum() - 1.0) < 1e-6:
            raise DataError(
                f"The weights sum to {np.exp(weights).sum():.6g}; normalise them to 1 first."
            )

    @property
    def weights(self) -> Array:
        """`[n]`, W_i."""
        return np.exp(self.log_weights)

    @property
    def mean(self) -> float:
        """Σ_i W_i G_i: of whole-trajectory weights, the self-normalised estimate."""
        return float(self.weights @ self.returns)

    @property
    def std(self) -> float:
        """The standard deviation of the return: of one episode, not of the estimate."""
        return float(np.sqrt(self.weights @ (self.returns - self.mean) ** 2))

    def cdf(self, x: ArrayLike) -> Array:
        """F̂ at one point or several, in the argument's shape."""
        order = np.argsort(self.returns, kind="stable")
        reached = np.concatenate(([0.0], np.cumsum(self.weights[order])))
        found = np.searchsorted(self.returns[order], np.asarray(x, float), side="right")
        share: Array = np.minimum(reached[found] / reached[-1], 1.0)
        return share

    def quantile(self, q: ArrayLike) -> Array:
        """The smallest return with F̂ of q or more, for q in [0, 1], in the argument's shape.

        Raises:
            ConfigError: if a q is not in [0, 1].
        """
        for one in np.ravel(q).tolist():
            real("The quantile's q", one, least=0.0, most=1.0)
        kept = np.flatnonzero(self.weights > 0)
        order = kept[np.argsort(self.returns[kept], kind="stable")]
        reached = np.cumsum(self.weights[order])
        # A sum of ten tenths may be a little less than 1, and must reach q = 1 all the same.
        wanted = np.asarray(q, float) * reached[-1] * (1.0 - 1e-12)
        found: Array = self.returns[order[np.searchsorted(reached, wanted, side="left")]]
        return np.asarray(found)

    def cvar(self, alpha: float) -> float:
        """Conditional value at risk: the mean of the worst share α of returns.

        (1/α) ∫_0^α F̂⁻¹(u) du (Rockafellar and Uryasev 2000); α = 1 is the mean.

        Raises:
            ConfigError: if α is not in (0, 1].
        """
        alpha = real("α", alpha, least=1e-12, most=1.0)
        order = np.argsort(self.returns, kind="stable")
        reached = np.cumsum(self.weights[order])
        taken = np.diff(np.minimum(np.concatenate(([0.0], reached)), alpha))
        return float(taken @ self.returns[order] / taken.sum())

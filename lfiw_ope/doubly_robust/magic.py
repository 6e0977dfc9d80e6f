"""MAGIC: direct method and weighted doubly robust, blended by what each is likely to be wrong by.

Thomas and Brunskill (2016). The blend is over the lengths j = 0 … T of corrected
returns: g_j uses the log's weighted residuals of the first j steps and the value function
afterwards, so that g_0 is the direct method and g_T is WDR.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from lfiw_ope.doubly_robust.terms import (
    CorrectedValue,
    Terms,
    corrected,
    normalised,
    weighted_doubly_robust,
)


@dataclass(frozen=True, kw_only=True)
class Blend(CorrectedValue):
    """MAGIC's value, and what it is blended from.

    Attributes:
        lengths: `[J]`, how many steps of each return are corrected, 0 to T.
        weights: `[J]`, of the returns; they sum to 1.
        returns: `[J]`, the partially corrected values.
    """

    lengths: Tensor
    weights: Tensor
    returns: Tensor


def lengths_of(horizon: int, most: int) -> Tensor:
    """At most `most` lengths from 0 to T, evenly spread, both ends among them."""
    spread = torch.linspace(0, horizon, min(most, horizon + 1), dtype=torch.float64)
    return torch.tensor(sorted(set(spread.round().long().tolist())))


def resample_counts(episodes: int, resamples: int, generator: torch.Generator) -> Tensor:
    """`[resamples, N]` float64, how often each episode is in each bootstrap sample of episodes."""
    drawn = torch.randint(episodes, (resamples, episodes), generator=generator)
    counts = torch.zeros((resamples, episodes), dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts))


def magic(terms: Terms, lengths: Tensor, counts: Tensor, confidence: float = 0.9) -> Blend:
    """v = Σ_j x_j g_j, x on the simplex, the minimiser of x' (Ω + b b') x.

    g_j = mean_i V̂_0(s_i0) + Σ_{t<j} Σ_i w_it γ^t δ_it. Ω is the sample covariance of the episodes'
    shares in the g_j, weights and standings taken as given; b_j, the bias, is how far g_j lies from
    a percentile bootstrap interval of WDR, which is widened to hold WDR itself. The standard error
    takes x as given and is the delta method's for the weights.

    Args:
        terms: of one policy.
        lengths: `[J]` int64, rising, of the j that are blended; T is to be among them.
        counts: `[resamples, N]`, how often each episode is in each bootstrap sample.
        confidence: of the interval; 0.9 is the paper's.
    """
    share = normalised(terms)
    n, horizon = share.shape
    term = share * terms.residual
    blended = (torch.arange(horizon) < lengths[:, None]).double()  # [J, T]
    of_episode = terms.initial[:, None] / n + term @ blended.T  # [N, J]
    returns = of_episode.sum(0)
    centred = of_episode - returns / n
    covariance = centred.T @ centred * n / max(n - 1, 1)
    whole = weighted_doubly_robust(terms).value
    low, high = _interval(terms, counts, confidence)
    low, high = min(low, whole), max(high, whole)
    bias = (returns - returns.clamp(low, high)).abs()
    error = (covariance + bias[:, None] * bias).numpy()
    weights = torch.from_numpy(least_on_simplex(error))
    blend = weights @ blended  # [T], how much of each step's correction is in
    found = corrected(terms.initial, term * blend, share, terms.ess_by_step)
    return Blend(**vars(found), lengths=lengths, weights=weights, returns=returns)


def _interval(terms: Terms, counts: Tensor, confidence: float) -> tuple[float, float]:
    """Percentile bootstrap of WDR. A resample with no weight at a step corrects nothing there."""
    log_weight = terms.seen_log_weight
    top = log_weight.amax(0)
    # Relative to each step's largest: a resample's weights are normalised, whatever the unit.
    weight = (log_weight - torch.where(top.isfinite(), top, 0.0)).exp()
    total = counts @ weight
    correction = torch.where(total > 0, (counts @ (weight * terms.residual)) / total, 0.0)
    values = (counts @ terms.initial) / len(terms.initial) + correction.sum(1)
    tails = torch.tensor([0.5 - confidence / 2, 0.5 + confidence / 2], dtype=torch.float64)
    low, high = torch.quantile(values, tails).tolist()
    return low, high


def least_on_simplex(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x ≥ 0 with Σ x = 1 that minimises x' M x, for a positive semi-definite M `[J, J]`.

    By non-negative least squares, exactly: with M = A'A, y that minimises ‖A y‖² + (1'y − 1)² is
    x / (1 + x'Mx), because for a given direction the best length of y leaves x'Mx / (1 + x'Mx),
    which rises with x'Mx.
    """
    diagonal = np.diagonal(error)
    # In units of the best single return: the two parts of the sum are then of one size.
    unit = max(diagonal.min(), 1e-9 * diagonal.max())
    if unit <= 0.0:  # every return is certain: all are the same
        last: NDArray[np.float64] = np.eye(len(error))[-1]
        return last
    level, direction = np.linalg.eigh(error / unit)
    root = np.sqrt(np.clip(level, 0.0, None))[:, None] * direction.T
    matrix = np.concatenate((root, np.ones((1, len(error)))))
    # scipy stops after 3 J exchanges, which returns of sizes far apart can need more of.
    found, _ = nnls(matrix, np.eye(len(matrix))[-1], maxiter=1000 * len(error))
    weights: NDArray[np.float64] = found / found.sum()
    return weights

"""How far a classifier's probabilities can be believed: its log-loss, and its reliability curve.

Two sets of samples, the numerator's and the denominator's of a density ratio, count the same in all
of these, however many there are of each; a logit is then an estimate of the log-ratio.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.checks import whole
from lfiw_ope.errors import DataError

MOST_BINS = 15
"""As Guo et al. (2017) have."""

LEAST_IN_A_BIN = 50
"""Samples on average: the observed share of fewer has a standard error above 0.07."""


def log_loss(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Balanced binary cross-entropy of logits `[..., R] -> [...]`, in nats; log 2 is chance."""
    softplus = torch.nn.functional.softplus
    return 0.5 * (softplus(-numerator).mean(-1) + softplus(denominator).mean(-1))


@dataclass(frozen=True)
class ReliabilityCurve:
    """Predicted probability of the numerator against the share of it that was observed.

    Bins hold equal weight and not equal widths: a good model is hard to tell from the truth, so
    most probabilities lie near 1/2, where a few bins of equal width would hold them all. Equal
    probabilities are never parted, so there may be fewer bins than were asked for.

    Attributes:
        edges: ascending, from 0 to 1, one more than bins; a bin does not hold its lower edge.
        predicted: mean predicted probability of each bin.
        observed: share of the bin that is of the numerator, either set counting the same in all.
        count: samples in each bin.
        weight: of each bin, summing to 1; in proportion to the counts where the sets are of a size.
    """

    edges: tuple[float, ...]
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]
    weight: tuple[float, ...]

    @classmethod
    def of(
        cls,
        numerator: Tensor | NDArray[np.floating],
        denominator: Tensor | NDArray[np.floating],
        bins: int | None = None,
    ) -> "ReliabilityCurve":
        """From log-ratios (or logits) of samples of either set.

        Args:
            numerator: `[R]`, of samples of the numerator.
            denominator: `[R']`, of samples of the denominator.
            bins: at most so many; where None, `MOST_BINS`, and fewer of `LEAST_IN_A_BIN` samples.

        Raises:
            ConfigError: if `bins` is below 1.
            DataError: if a set is empty or a log-ratio is NaN.
        """
        from scipy.special import expit

        up, down = (_flat(side) for side in (numerator, denominator))
        if bins is None:
            bins = max(1, min(MOST_BINS, (len(up) + len(down)) // LEAST_IN_A_BIN))
        whole("bins", bins, least=1)
        probability = expit(np.concatenate((up, down)))
        is_up = np.repeat([True, False], [len(up), len(down)])
        weight = np.where(is_up, 0.5 / len(up), 0.5 / len(down))
        order = np.argsort(probability)
        reached = np.cumsum(weight[order])
        last = np.searchsorted(reached, np.arange(1, bins) / bins)
        inner = np.unique(probability[order][np.minimum(last, len(order) - 1)])
        inner = inner[inner < probability.max()]
        place = np.searchsorted(inner, probability)

        def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(place, values, minlength=len(inner) + 1).astype(np.float64)

        in_bin = total(weight)
        return cls(
            edges=(0.0, *inner.tolist(), 1.0),
            predicted=tuple((total(weight * probability) / in_bin).tolist()),
            observed=tuple((total(weight * is_up) / in_bin).tolist()),
            count=tuple(np.bincount(place, minlength=len(inner) + 1).tolist()),
            weight=tuple(in_bin.tolist()),
        )


def _flat(log_ratio: Tensor | NDArray[np.floating]) -> NDArray[np.float64]:
    if isinstance(log_ratio, Tensor):
        log_ratio = log_ratio.detach().cpu().numpy()
    flat = np.asarray(log_ratio, np.float64).ravel()
    if not flat.size or np.isnan(flat).any():
        raise DataError(
            f"A reliability curve was asked for with {flat.size} log-ratios on one side, "
            f"{np.isnan(flat).sum()} of them NaN; it needs one or more of each side, and no NaN."
        )
    return flat


def expected_calibration_error(curve: ReliabilityCurve) -> float:
    """Σ_b weight_b |observed_b − predicted_b|: how far off a probability is, on average.

    Naeini et al. (2015); Guo et al. (2017), there with bins of equal width. Chance alone makes it
    positive: of R samples in b bins a calibrated classifier has 0.4 √(b / R) about 1/2.
    """
    observed, predicted = np.array(curve.observed), np.array(curve.predicted)
    return float(np.array(curve.weight) @ np.abs(observed - predicted))

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
"""Effective samples on average: the observed share of fewer has a standard error above 0.07."""

LEAST_BINS = 5
"""Whatever that leaves in each: one bin alone has the mean probability and the observed share both
near 1/2 by construction, and would call a worthless classifier calibrated."""


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
        count: samples in each bin; of several classifiers, the rounded mean over them.
        weight: of each bin, summing to 1; in proportion to the counts where the sets are of a size.
        standard_error: of each bin's observed share, were the predicted probability right.
    """

    edges: tuple[float, ...]
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]
    weight: tuple[float, ...]
    standard_error: tuple[float, ...]

    @classmethod
    def of(
        cls,
        numerator: Tensor | NDArray[np.floating],
        denominator: Tensor | NDArray[np.floating],
        bins: int | None = None,
    ) -> "ReliabilityCurve":
        """From log-ratios (or logits) of samples of either set.

        Several classifiers' log-ratios of the same samples, `[C, R]` and `[C, R']`, make one curve
        of all their probabilities. Its bins, counts and standard errors are those of R and R'
        samples: C opinions of a sample are not C samples.

        Args:
            numerator: `[R]`, of samples of the numerator.
            denominator: `[R']`, of samples of the denominator.
            bins: at most so many. Where None, as many as hold `LEAST_IN_A_BIN` of 4 / (1/R + 1/R')
                effective samples each, but `LEAST_BINS` to `MOST_BINS`: of a handful of samples
                the curve is noisy, as its standard errors say.

        Raises:
            ConfigError: if `bins` is below 1.
            DataError: if a set is empty, a log-ratio is NaN or the sets' classifiers differ.
        """
        from scipy.special import expit

        above, below = _by_classifier(numerator), _by_classifier(denominator)
        classifiers, sizes = len(above), (above.shape[1], below.shape[1])
        if len(below) != classifiers:
            raise DataError(
                f"A reliability curve was asked for with {classifiers} classifiers' log-ratios of "
                f"the numerator and {len(below)} of the denominator; give the same of both."
            )
        if bins is None:
            effective = int(4 / (1 / sizes[0] + 1 / sizes[1]))
            bins = max(min(LEAST_BINS, effective), min(MOST_BINS, effective // LEAST_IN_A_BIN))
        whole("bins", bins, least=1)
        probability = expit(np.concatenate((above.ravel(), below.ravel())))
        is_up = np.repeat([True, False], [above.size, below.size])
        weight = np.where(is_up, 0.5 / above.size, 0.5 / below.size)
        order = np.argsort(probability)
        reached = np.cumsum(weight[order])
        # A sum's rounding must not put one sample more into a bin, or into one of its own.
        last = np.searchsorted(reached, np.arange(1, bins) / bins - 1e-9)
        inner = probability[order][np.minimum(last, len(order) - 1)]
        # The first bin holds 0, and ends above it.
        inner = np.unique(np.maximum(inner, np.finfo(np.float64).tiny))
        inner = inner[inner < probability.max()]
        place = np.searchsorted(inner, probability)

        def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(place, values, minlength=len(inner) + 1).astype(np.float64)

        in_bin = total(weight)
        predicted = total(weight * probability) / in_bin
        return cls(
            edges=(0.0, *inner.tolist(), 1.0),
            predicted=tuple(predicted.tolist()),
            observed=tuple((total(weight * is_up) / in_bin).tolist()),
            count=tuple(np.rint(total(np.ones_like(weight)) / classifiers).astype(int).tolist()),
            weight=tuple(in_bin.tolist()),
            standard_error=tuple(_standard_error(predicted, in_bin, *sizes).tolist()),
        )


def _standard_error(
    p: NDArray[np.float64], weight: NDArray[np.float64], numerator: int, denominator: int
) -> NDArray[np.float64]:
    """Of the share A / (A + B) in a bin, A and B being what either set's samples weigh there.

    The numerator's n samples weigh 1 / 2n each, the denominator's m weigh 1 / 2m. In a bin of
    weight w whose probability p is right, E A = w p and E B = w (1 − p); their numbers are Poisson
    in the limit of narrow bins, so Var A = w p / 2n and Var B = w (1 − p) / 2m. The share moves by
    ((1 − p) dA − p dB) / w, which gives the variance

        p (1 − p) ((1 − p) / 2n + p / 2m) / w,

    the binomial p (1 − p) / count where n = m.
    """
    scatter = (1 - p) * 0.5 / numerator + p * 0.5 / denominator
    return np.asarray(np.sqrt(p * (1 - p) * scatter / weight), np.float64)


def _by_classifier(log_ratio: Tensor | NDArray[np.floating]) -> NDArray[np.float64]:
    """`[R]` or `[C, R]` -> `[C, R]`"""
    if isinstance(log_ratio, Tensor):
        log_ratio = log_ratio.detach().cpu().numpy()
    values = np.asarray(log_ratio, np.float64)
    if not values.size or np.isnan(values).any():
        raise DataError(
            f"A reliability curve was asked for with {values.size} log-ratios on one side, "
            f"{np.isnan(values).sum()} of them NaN; it needs one or more of each side, and no NaN."
        )
    return values.reshape(-1, values.shape[-1] if values.ndim else 1)


def expected_calibration_error(curve: ReliabilityCurve) -> float:
    """Σ_b weight_b |observed_b − predicted_b|: how far off a probability is, on average.

    Naeini et al. (2015); Guo et al. (2017), there with bins of equal width. Chance alone makes it
    positive: in b bins a calibrated classifier has 0.4 √(b / R) about 1/2, where R is the effective
    number of samples, 4 / (1/n + 1/m) of n and m: all of them where the sets are of a size.
    """
    observed, predicted = np.array(curve.observed), np.array(curve.predicted)
    return float(np.array(curve.weight) @ np.abs(observed - predicted))

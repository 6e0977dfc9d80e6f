"""Calibration of a classifier's logits, and how reliable its probabilities are.

Two sets of samples, the numerator's and the denominator's of a density ratio, count the same in all
of these, however many there are of each; a logit is then an estimate of the log-ratio.

Training makes classifiers over-confident, and a log-ratio that is summed over a horizon carries
the excess along. Every map here is increasing, so calibration never changes which of two samples
has the larger ratio. Either set of samples counts the same, however many there are of each.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfiw_ope.core.errors import DataError
from lfiw_ope.core.runtime import needed
from lfiw_ope.core.validation import whole

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


CalibrationKind = Literal["temperature", "platt", "isotonic", "none"]

LOG_TEMPERATURE_BOUNDS = (-0.7, 5.0)
"""Early-stopped classifiers are hardly under-confident: logits are at most doubled, so that a
handful of held-out rows, which chance may separate, cannot sharpen noise into weights."""


class AffineCalibration(nn.Module):
    """slope · logit + offset, for each of G classifiers; the identity until it is given others.

    Temperature scaling (Guo et al. 2017) is a slope of 1 / temperature without an offset, Platt's
    scaling (1999) has both.
    """

    slope: Tensor
    offset: Tensor

    def __init__(self, slope: Tensor, offset: Tensor) -> None:
        """From `[G]` each."""
        super().__init__()
        self.register_buffer("slope", slope.float()[:, None])
        self.register_buffer("offset", offset.float()[:, None])

    def forward(self, logits: Tensor) -> Tensor:
        """`[G, B] -> [G, B]`"""
        return logits * self.slope + self.offset


class IsotonicCalibration(nn.Module):
    """An increasing map without a shape of its own (Zadrozny and Elkan 2002), for G classifiers.

    Log-ratios are interpolated between knots; beyond the held-out logits the map is constant, so
    what no held-out sample speaks for gets no larger a ratio than one that some do.
    """

    knots: Tensor
    log_ratios: Tensor

    def __init__(self, knots: Tensor, log_ratios: Tensor) -> None:
        """From `[G, k]` each, k of 2 or more, knots ascending."""
        super().__init__()
        self.register_buffer("knots", knots.float())
        self.register_buffer("log_ratios", log_ratios.float())
        self.register_load_state_dict_pre_hook(_take_shape)  # type: ignore[no-untyped-call]

    def forward(self, logits: Tensor) -> Tensor:
        """`[G, B] -> [G, B]`"""
        knots, log_ratios = self.knots.to(logits.dtype), self.log_ratios.to(logits.dtype)
        right = torch.searchsorted(knots, logits.contiguous()).clamp(1, knots.shape[1] - 1)
        (x0, x1), (y0, y1) = (
            (of.gather(1, right - 1), of.gather(1, right)) for of in (knots, log_ratios)
        )
        return y0 + ((logits - x0) / (x1 - x0)).clamp(0.0, 1.0) * (y1 - y0)


def _take_shape(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a state is loaded: how many knots there are, the data have decided."""
    for name, buffer in module.named_buffers():
        if prefix + name in state:
            setattr(module, name, buffer.new_empty(state[prefix + name].shape))


Calibration = AffineCalibration | IsotonicCalibration


def uncalibrated(kind: CalibrationKind, groups: int) -> Calibration:
    """The identity of G classifiers, in the form that this kind has: a state can be loaded."""
    if kind == "isotonic":
        far = torch.tensor([-100.0, 100.0]).expand(groups, 2).clone()
        return IsotonicCalibration(far, far.clone())
    return AffineCalibration(torch.ones(groups), torch.zeros(groups))


def fit_calibration(kind: CalibrationKind, numerator: Tensor, denominator: Tensor) -> Calibration:
    """The calibration of least log-loss on held-out logits, for each of G classifiers.

    "temperature" and "platt" bound the slope by `LOG_TEMPERATURE_BOUNDS`. "platt" moreover has
    Platt's targets, (R + 1) / (R + 2) and 1 / (R + 2) in place of 1 and 0, which keep it finite
    where the held-out samples are separable; R is the smaller set's size for both, since either
    set's own would favour the larger one: equal sets of unequal size would not have a mean weight
    of 1. "isotonic" finds runs of logits whose observed share
    increases; a run at either end that holds samples of one set alone would have an infinite
    log-ratio, so it is counted as having one more sample of either set (Laplace's rule of
    succession), which weighs it by how many samples speak for it.

    Args:
        kind: which.
        numerator: `[G, R]` logits of held-out samples of the numerator.
        denominator: `[G, R']`

    Raises:
        MissingDependencyError: if "isotonic" is asked for and scikit-learn is not installed.
    """
    groups = len(numerator)
    pairs = list(zip(numerator.double().cpu(), denominator.double().cpu(), strict=True))
    if kind == "temperature":
        slopes = torch.tensor([_temperature_slope(*pair) for pair in pairs])
        return AffineCalibration(slopes, torch.zeros(groups))
    if kind == "platt":
        slopes, offsets = torch.tensor([_platt(*pair) for pair in pairs]).T
        return AffineCalibration(slopes, offsets)
    if kind == "isotonic":
        curves = [_isotonic(up.numpy(), down.numpy()) for up, down in pairs]
        most = max(2, *(len(knots) for knots, _ in curves))
        padded = [_padded(*curve, most) for curve in curves]
        knots, log_ratios = (torch.from_numpy(np.stack(of)) for of in zip(*padded, strict=True))
        return IsotonicCalibration(knots, log_ratios)
    return uncalibrated(kind, groups)


def require_packages(kind: CalibrationKind) -> None:
    """Raise what `fit_calibration` would, before a training is spent.

    Raises:
        MissingDependencyError: if "isotonic" is asked for and scikit-learn is not installed.
    """
    if kind == "isotonic":
        _isotonic_regression()


def _isotonic_regression() -> Any:
    with needed("Isotonic calibration needs scikit-learn", extra="isotonic"):
        from sklearn.isotonic import IsotonicRegression
    return IsotonicRegression


def _temperature_slope(numerator: Tensor, denominator: Tensor) -> float:
    from scipy.optimize import minimize_scalar  # a third of the time that torch takes to import

    def loss(log_temperature: float) -> float:
        slope = math.exp(-log_temperature)
        return float(log_loss(slope * numerator, slope * denominator))

    return math.exp(-minimize_scalar(loss, bounds=LOG_TEMPERATURE_BOUNDS, method="bounded").x)


def _platt(numerator: Tensor, denominator: Tensor) -> tuple[float, float]:
    from scipy.optimize import minimize
    from scipy.special import expit

    logits = np.concatenate((numerator, denominator))
    sizes = np.array([len(numerator), len(denominator)])
    weight = np.repeat(0.5 / sizes, sizes)
    doubt = 1 / (sizes.min() + 2)
    target = np.repeat([1 - doubt, doubt], sizes)

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        calibrated = at[0] * logits + at[1]
        slip = weight * (expit(calibrated) - target)
        value = weight @ (np.logaddexp(0.0, calibrated) - target * calibrated)
        return float(value), np.array([slip @ logits, slip.sum()])

    low, high = (math.exp(-bound) for bound in LOG_TEMPERATURE_BOUNDS[::-1])
    best = minimize(
        loss,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, high), (None, None)],
        options={"ftol": 1e-12, "gtol": 1e-8},
    )
    return float(best.x[0]), float(best.x[1])


def _isotonic(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knots `[k]` of one classifier, and the log-ratios there."""
    sides = [np.sort(numerator), np.sort(denominator)]
    sizes = [len(side) for side in sides]
    # Unweighted: runs are pooled by their odds, in the same order whatever either set counts.
    fitted = _isotonic_regression()().fit(np.concatenate(sides), np.repeat([1.0, 0.0], sizes))
    knots = fitted.X_thresholds_
    run = np.cumsum(np.diff(fitted.y_thresholds_, prepend=fitted.y_thresholds_[0]) > 0)
    first = np.searchsorted(run, np.arange(run[-1] + 1))
    last = np.searchsorted(run, np.arange(run[-1] + 1), side="right") - 1
    # Counted, and not taken from the fitted shares, whose logarithm would lose digits near 1.
    up, down = (
        np.searchsorted(side, knots[last], side="right") - np.searchsorted(side, knots[first])
        for side in sides
    )
    pure = (up == 0) | (down == 0)
    log_ratio = np.log((up + pure) / sizes[0]) - np.log((down + pure) / sizes[1])
    # A pure run of a few samples must not end up on the wrong side of its neighbour.
    log_ratio[0], log_ratio[-1] = log_ratio[:2].min(), log_ratio[-2:].max()
    return knots, log_ratio[run]


def _padded(
    knots: NDArray[np.float64], log_ratios: NDArray[np.float64], most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same map with `most` knots: the further ones stand where it is constant."""
    further = most - len(knots)
    beyond = knots[-1] + max(1.0, abs(knots[-1])) * np.arange(1, further + 1)
    return np.append(knots, beyond), np.pad(log_ratios, (0, further), mode="edge")

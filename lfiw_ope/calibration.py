"""Calibrations: maps of a classifier's logits to log-ratios, fitted on held-out samples.

Training makes classifiers over-confident, and a log-ratio that is summed over a horizon carries
the excess along. Every map here is increasing, so calibration never changes which of two samples
has the larger ratio. Either set of samples counts the same, however many there are of each.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfiw_ope.extras import needed
from lfiw_ope.reliability import log_loss

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

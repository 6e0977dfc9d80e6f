"""Classifiers of two sets of samples: calibrated log-ratios, their fit and report."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from lfiw_ope.core.protocols import Progress
from lfiw_ope.core.validation import choice, whole, widths
from lfiw_ope.nn.batched_mlp import ACTIVATIONS, BatchedMLP
from lfiw_ope.nn.training import FitConfig, FitReport, autocast, fit
from lfiw_ope.ratios.calibration import (
    AffineCalibration,
    Calibration,
    CalibrationKind,
    ReliabilityCurve,
    expected_calibration_error,
    fit_calibration,
    log_loss,
    require_packages,
    uncalibrated,
)


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The classifiers and how they are trained.

    Attributes:
        members: C.
        hidden: width of each hidden layer.
        activation: "silu", "tanh" or "relu".
        average: over the classifiers. "logits" gives exp(mean log-ratio), "ratios" gives the mean
            ratio, which is never the smaller (Jensen); they are different estimates. "estimates"
            averages nothing here: each classifier gives its own ratio, whose estimates are averaged
            later, as Grover et al. (2019) do.
        calibration: of the averaged classifier, or of each where nothing is averaged, on held-out
            samples. "temperature" divides logits by one number (Guo et al. 2017), "platt" scales
            and shifts them (Platt 1999), "isotonic" maps them by any increasing function (Zadrozny
            and Elkan 2002; scikit-learn), which takes thousands of held-out samples, "none" leaves
            them. See `lfiw_ope.ratios.fit_calibration`.
        fit: the training. B samples of either set make an update.
    """

    members: int = 5
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    average: Literal["logits", "ratios", "estimates"] = "logits"
    calibration: CalibrationKind = "temperature"
    fit: FitConfig = field(default_factory=lambda: FitConfig(updates=2000, evaluate_every=100))

    def __post_init__(self) -> None:
        whole("members", self.members, least=1)
        widths("hidden", self.hidden)
        choice("activation", self.activation, tuple(ACTIVATIONS))
        choice("average", self.average, ("logits", "ratios", "estimates"))
        choice("calibration", self.calibration, ("temperature", "platt", "isotonic", "none"))


@dataclass(frozen=True, kw_only=True)
class ClassifierReport:
    """How well two sets of samples are told apart on held-out ones, either counting the same.

    The calibration in use is fitted to all held-out samples. What is reported of it is of one half
    of them as calibrated by the other, both ways: no sample judges a calibration that it helped to
    fit. (It did help to choose where training stopped.) Where nothing is averaged over the
    classifiers, each number is their mean, and the curve is of all their probabilities together.

    Attributes:
        calibration: which, as configured.
        log_loss: of the averaged, calibrated classifier, in nats; log 2 = 0.693 is chance.
        uncalibrated_log_loss: the same before calibration.
        accuracy: share told apart; 0.5 is chance, near 1 means that weights mean nothing.
        calibration_error: expected calibration error, of probabilities; see
            `lfiw_ope.ratios.expected_calibration_error`.
        uncalibrated_calibration_error: the same before calibration.
        reliability: predicted against observed, calibrated.
        uncalibrated_reliability: the same before calibration.
        temperature: what logits were divided by; above 1 the classifiers were over-confident.
            None where they were not.
        slope: what "platt" multiplied logits by; else None.
        offset: what "platt" then added; else None.
    """

    calibration: CalibrationKind
    log_loss: float
    uncalibrated_log_loss: float
    accuracy: float
    calibration_error: float
    uncalibrated_calibration_error: float
    reliability: ReliabilityCurve = field(repr=False)
    uncalibrated_reliability: ReliabilityCurve = field(repr=False)
    temperature: float | None = None
    slope: float | None = None
    offset: float | None = None


class ClassifierEnsemble(nn.Module):
    """C classifiers in one batched call. Their logit is a log-ratio, once they are fitted.

    A classifier c of samples of p against samples of q, in equal numbers, has c / (1 − c) = p / q
    where it is Bayes-optimal, so log p / q is its logit.

    Args:
        config: the classifiers.
        features: F, what a classifier sees of a sample.
        generator: draws the initial weights; see `BatchedMLP`.
    """

    def __init__(
        self, config: ClassifierConfig, features: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.network = BatchedMLP(
            config.members, (features, *config.hidden, 1), config.activation, generator
        )
        self.calibration: Calibration = uncalibrated(config.calibration, self.groups)
        self.fit_report: FitReport | None = None
        self.report: ClassifierReport | None = None

    @property
    def groups(self) -> int:
        """G, classifiers with a calibration of their own: C where nothing is averaged, else 1."""
        return self.config.members if self.config.average == "estimates" else 1

    def member_logits(self, features: Tensor) -> Tensor:
        """`[C, B, F]` or shared `[B, F]` -> `[C, B]`, not calibrated."""
        logits: Tensor = self.network(features)
        return logits[..., 0]

    def average(self, logits: Tensor) -> Tensor:
        """`[C, B] -> [G, B]`: of the averaged classifier, G = 1, or of each, G = C."""
        how = self.config.average
        if how == "logits":
            return logits.mean(0, keepdim=True)
        if how == "ratios":
            return torch.logsumexp(logits, 0, keepdim=True) - math.log(len(logits))
        return logits

    @torch.no_grad()
    def log_ratio(self, features: Tensor) -> Tensor:
        """`[..., F] -> [...]`; `[C, ...]` where nothing is averaged."""
        with autocast(features.device, self.config.fit.precision):
            logits = self.member_logits(features.reshape(-1, features.shape[-1]))
        calibrated: Tensor = self.calibration(self.average(logits))
        shaped = calibrated.view(self.groups, *features.shape[:-1])
        return shaped if self.config.average == "estimates" else shaped[0]


Pair = tuple[Tensor, Tensor]
"""Of the numerator's samples and of the denominator's."""


class TwoSampleObjective(ABC):
    """Balanced binary cross-entropy of the numerator's samples against the denominator's.

    Attributes:
        rows: see `lfiw_ope.nn.training.Objective`.
        classifiers: what is trained.
        held_out: features `[R, F]` and `[R', F]`, drawn once: looks at the loss then differ by
            training alone.
        halves: how many held-out samples of either set are in the first half of it.
    """

    rows: int
    classifiers: ClassifierEnsemble
    held_out: Pair
    halves: tuple[int, int]

    @abstractmethod
    def batch(self, rows: Tensor, generator: torch.Generator) -> Pair:
        """Features `[C, B, F]` of either set, for row indices `[C, B]`."""

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        logits = self.classifiers.member_logits(torch.cat(self.batch(rows, generator), 1))
        numerator, denominator = logits.chunk(2, 1)
        return log_loss(numerator, denominator)

    def held_out_logits(self) -> Pair:
        """`[C, R]` and `[C, R']`"""
        numerator, denominator = self.held_out
        member_logits = self.classifiers.member_logits
        return member_logits(numerator), member_logits(denominator)

    def held_out_loss(self) -> Tensor:
        return log_loss(*self.held_out_logits())


def fit_classifiers(
    objective: TwoSampleObjective,
    generator: torch.Generator,
    *,
    progress: Progress,
) -> None:
    """Train, calibrate and report the objective's classifiers, in place.

    Raises:
        DivergedError: if a member's loss stops being finite.
        MissingDependencyError: if the calibration needs a package that is not installed.
    """
    classifiers = objective.classifiers
    config = classifiers.config
    require_packages(config.calibration)
    classifiers.fit_report = fit(
        classifiers.network,
        objective,
        config.fit,
        generator,
        stage="classifier",
        progress=progress,
    )
    with torch.no_grad(), autocast(generator.device, config.fit.precision):
        raw = objective.held_out_logits()
    # On the host, in float64: a fit's line search must not stop at a loss's rounding.
    numerator, denominator = (classifiers.average(logits).cpu().double() for logits in raw)
    calibration = fit_calibration(config.calibration, numerator, denominator)
    classifiers.report = _report(classifiers, calibration, (numerator, denominator), objective)
    classifiers.calibration = calibration.to(generator.device)


def _report(
    classifiers: ClassifierEnsemble,
    calibration: Calibration,
    logits: Pair,
    objective: TwoSampleObjective,
) -> ClassifierReport:
    """Of held-out logits `[G, R]` and `[G, R']`."""
    kind = classifiers.config.calibration
    numerator, denominator = _calibrated_by_the_other_half(classifiers, logits, objective.halves)
    right = (numerator > 0).double().mean() + (denominator <= 0).double().mean()
    scale = calibration if isinstance(calibration, AffineCalibration) else None
    divided, moved = kind == "temperature", kind == "platt"
    return ClassifierReport(
        calibration=kind,
        log_loss=float(log_loss(numerator, denominator).mean()),
        uncalibrated_log_loss=float(log_loss(*logits).mean()),
        accuracy=float(right) / 2,
        calibration_error=_calibration_error((numerator, denominator)),
        uncalibrated_calibration_error=_calibration_error(logits),
        reliability=ReliabilityCurve.of(numerator, denominator),
        uncalibrated_reliability=ReliabilityCurve.of(*logits),
        temperature=float((1.0 / scale.slope).mean()) if scale and divided else None,
        slope=float(scale.slope.mean()) if scale and moved else None,
        offset=float(scale.offset.mean()) if scale and moved else None,
    )


def _calibrated_by_the_other_half(
    classifiers: ClassifierEnsemble, logits: Pair, halves: tuple[int, int]
) -> Pair:
    """Log-ratios of all held-out samples, none by a calibration that it helped to fit."""
    kind = classifiers.config.calibration
    first, second = zip(
        *(of.tensor_split([half], 1) for of, half in zip(logits, halves, strict=True)), strict=True
    )
    if not all(part.shape[1] for part in (*first, *second)):
        first = second = logits  # a single sample cannot be in two halves
    by_first, by_second = (fit_calibration(kind, *half) for half in (first, second))
    pairs = [(by_second(one), by_first(other)) for one, other in zip(first, second, strict=True)]
    numerator, denominator = (torch.cat(pair, 1) for pair in pairs)
    return numerator, denominator


def _calibration_error(logits: Pair) -> float:
    """Mean over the G classifiers."""
    errors = [
        expected_calibration_error(ReliabilityCurve.of(*own)) for own in zip(*logits, strict=True)
    ]
    return sum(errors) / len(errors)

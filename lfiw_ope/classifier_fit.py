"""Fitting classifiers of two sets of samples: their loss, their calibration, their report."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lfiw_ope.calibration import AffineCalibration, Calibration, fit_calibration, require_packages
from lfiw_ope.classifier import ClassifierEnsemble, ClassifierReport
from lfiw_ope.nn.fit import autocast, fit
from lfiw_ope.reliability import ReliabilityCurve, expected_calibration_error, log_loss
from lfiw_ope.types import Progress

Pair = tuple[Tensor, Tensor]
"""Of the numerator's samples and of the denominator's."""


class TwoSampleObjective(ABC):
    """Balanced binary cross-entropy of the numerator's samples against the denominator's.

    Attributes:
        rows: see `lfiw_ope.nn.fit.Objective`.
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
    def sources(self) -> Sequence[Tensor]:
        """What the batches are drawn from."""

    @abstractmethod
    def batch(self, rows: Tensor, generator: torch.Generator) -> Pair:
        """Features `[C, B, F]` of either set, for row indices `[C, B]`."""

    def content(self) -> tuple[str, Sequence[Tensor]]:
        # Averages and calibrations come after training: one checkpoint serves them all.
        settings = replace(self.classifiers.config, average="logits", calibration="none")
        return repr(settings), (*self.sources(), *self.held_out)

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
    checkpoint: Path | None,
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
        checkpoint=checkpoint,
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

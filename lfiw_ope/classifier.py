"""Classifiers that tell two sets of samples apart: a calibrated log-ratio from their logits."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from lfiw_ope.calibration import Calibration, CalibrationKind, uncalibrated
from lfiw_ope.checks import choice, whole, widths
from lfiw_ope.nn.ensemble import ACTIVATIONS, BatchedMLP
from lfiw_ope.nn.fit import autocast
from lfiw_ope.nn.fit_config import FitConfig, FitReport
from lfiw_ope.reliability import ReliabilityCurve


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
            them. See `lfiw_ope.calibration.fit_calibration`.
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
            `lfiw_ope.reliability.expected_calibration_error`.
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

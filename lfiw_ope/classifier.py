"""Classifiers that tell two sets of samples apart: their settings and their report."""

from dataclasses import dataclass, field
from typing import Literal

from lfiw_ope.checks import choice, whole, widths
from lfiw_ope.nn.ensemble import ACTIVATIONS
from lfiw_ope.nn.fit_config import FitConfig


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
            samples. "temperature" divides logits by one number (Guo et al. 2017).
        fit: the training. B samples of either set make an update.
    """

    members: int = 5
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    average: Literal["logits", "ratios", "estimates"] = "logits"
    calibration: Literal["temperature", "platt", "isotonic", "none"] = "temperature"
    fit: FitConfig = field(default_factory=lambda: FitConfig(updates=2000, evaluate_every=100))

    def __post_init__(self) -> None:
        whole("members", self.members, least=1)
        widths("hidden", self.hidden)
        choice("activation", self.activation, tuple(ACTIVATIONS))
        choice("average", self.average, ("logits", "ratios", "estimates"))
        choice("calibration", self.calibration, ("temperature", "none"))


@dataclass(frozen=True)
class ClassifierReport:
    """How well two sets of samples are told apart on held-out ones.

    Where `average` is "estimates", each number is the mean over the classifiers.

    Attributes:
        log_loss: of the averaged, calibrated classifier, in nats; log 2 = 0.693 is chance.
        uncalibrated_log_loss: the same before calibration.
        accuracy: share told apart; 0.5 is chance, near 1 means that weights mean nothing.
        temperature: what logits were divided by; above 1 the classifiers were over-confident.
            None where they were not.
    """

    log_loss: float
    uncalibrated_log_loss: float
    accuracy: float
    temperature: float | None

"""The likelihood-free density ratio: classifiers that tell logged from simulated transitions."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lfiw_ope.checks import choice, whole, widths
from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.nn.ensemble import ACTIVATIONS, BatchedMLP, Standardiser
from lfiw_ope.nn.fit import autocast
from lfiw_ope.nn.fit_config import FitConfig, FitReport
from lfiw_ope.types import Transition


@dataclass(frozen=True, kw_only=True)
class RatioConfig:
    """The classifiers and how they are trained.

    Attributes:
        members: C.
        hidden: width of each hidden layer.
        activation: "silu", "tanh" or "relu".
        features: what a classifier sees of (s, a, s', r), standardised. "residual": s, a, s' − s
            and r, where a step moves the state little; "raw": s, a, s', r.
        average: "logits" gives exp(mean log-ratio), "ratios" gives the mean ratio, which is never
            the smaller (Jensen). They are different estimates.
        fit: the training. B logged and B freshly simulated transitions make an update.
    """

    members: int = 5
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    features: Literal["residual", "raw"] = "residual"
    average: Literal["logits", "ratios"] = "logits"
    fit: FitConfig = field(default_factory=lambda: FitConfig(updates=2000, evaluate_every=100))

    def __post_init__(self) -> None:
        whole("members", self.members, least=1)
        widths("hidden", self.hidden)
        choice("activation", self.activation, tuple(ACTIVATIONS))
        choice("features", self.features, ("residual", "raw"))
        choice("average", self.average, ("logits", "ratios"))


@dataclass(frozen=True)
class ClassifierReport:
    """How well logged and simulated transitions are told apart on held-out episodes.

    Attributes:
        log_loss: of the averaged, calibrated classifier, in nats; log 2 = 0.693 is chance.
        uncalibrated_log_loss: the same before calibration.
        accuracy: share told apart; 0.5 is chance, near 1 means that weights mean nothing.
        temperature: what logits were divided by; above 1 the classifiers were over-confident.
    """

    log_loss: float
    uncalibrated_log_loss: float
    accuracy: float
    temperature: float


class Given(NamedTuple):
    """The part of the features that (s, a) alone decides."""

    inputs: Tensor  # [..., S + A], standardised
    centre: Tensor  # [..., S + 1], what (s', r) is measured from

    def at(self, rows: Tensor) -> "Given":
        return Given(self.inputs[rows], self.centre[rows])


class DensityRatio(nn.Module):
    """log p(s', r, terminated | s, a) / p_θ(s', r, terminated | s, a), by classification.

    A classifier c of logged against simulated transitions at the same (s, a), in equal numbers,
    has c / (1 − c) = p / p_θ when it is Bayes-optimal (Grover et al. 2019, section 3), so the
    log-ratio is its logit. Logits are divided by one temperature, fitted on held-out episodes
    (Guo et al. 2017). Build it with `lfiw_ope.ratio_fit.fit_ratio`.
    """

    temperature: Tensor

    def __init__(
        self,
        config: RatioConfig,
        dynamics: EnsembleDynamics,
        inputs: Standardiser,
        outcomes: Standardiser,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.dynamics = dynamics
        self.inputs, self.outcomes = inputs, outcomes
        features = inputs.mean.numel() + outcomes.mean.numel() + 1  # and whether it terminated
        self.network = BatchedMLP(
            config.members, (features, *config.hidden, 1), config.activation, generator
        )
        self.register_buffer("temperature", torch.ones((), dtype=torch.float32))
        self.fit_report: FitReport | None = None
        self.report: ClassifierReport | None = None

    def given(self, state: Tensor, action: Tensor) -> "Given":
        """What features need of (s, a) alone, so that K transitions there share the work."""
        inputs = self.inputs(torch.cat((state, action), -1))
        centre = torch.zeros_like(state) if self.config.features == "raw" else state
        return Given(inputs, nn.functional.pad(centre, (0, 1)))

    def features(self, given: "Given", transition: Transition) -> Tensor:
        """`[..., F]`; leading axes that only the transition has are draws at the same (s, a)."""
        outcome = torch.cat((transition.next_state, transition.reward[..., None]), -1)
        ended = transition.terminated[..., None].to(outcome.dtype)
        inputs = given.inputs.expand(*outcome.shape[:-1], -1)
        return torch.cat((inputs, self.outcomes(outcome - given.centre), ended), -1)

    def member_logits(self, features: Tensor) -> Tensor:
        """`[C, B, F]` or shared `[B, F]` -> `[C, B]`, not calibrated."""
        logits: Tensor = self.network(features)
        return logits[..., 0]

    def combine(self, logits: Tensor, temperature: float | Tensor) -> Tensor:
        """`[C, ...] -> [...]`: the members' log-ratios, calibrated and averaged."""
        calibrated = logits / temperature
        if self.config.average == "logits":
            return calibrated.mean(0)
        return torch.logsumexp(calibrated, 0) - math.log(calibrated.shape[0])

    @torch.no_grad()
    def log_ratio(self, state: Tensor, action: Tensor, transition: Transition) -> Tensor:
        """Of each transition, `[K, ..., n]` or `[..., n]`; see `lfiw_ope.types.LogRatio`."""
        features = self.features(self.given(state, action), transition)
        with autocast(state.device, self.config.fit.precision):
            logits = self.member_logits(features.flatten(0, -2))
        return self.combine(logits, self.temperature).view(features.shape[:-1])

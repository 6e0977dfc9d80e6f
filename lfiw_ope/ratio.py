"""The likelihood-free density ratio of logged against simulated transitions."""

import copy
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lfiw_ope.checks import choice, real
from lfiw_ope.classifier import ClassifierConfig, ClassifierEnsemble, ClassifierReport
from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.nn.ensemble import Standardiser
from lfiw_ope.nn.fit_config import FitConfig, FitReport
from lfiw_ope.types import Transition


@dataclass(frozen=True, kw_only=True)
class RatioConfig(ClassifierConfig):
    """The classifiers of logged against simulated transitions, and how they are trained.

    Attributes:
        features: what a classifier sees of (s, a, s', r), standardised. "error": s, a, and (s', r)
            minus the model's mean at (s, a), so that the classifier need not learn the dynamics
            again; "residual": s, a, s' − s and r; "raw": s, a, s', r. Errors are not stretched
            where they are small: a ratio that tells small errors apart leaves few of k candidates
            with any weight, and resampling then takes too many of the large ones.
        smoothing: the classifiers see logged and simulated (s', r) with Gaussian noise of this many
            standard errors of the model's mean at (s, a), by its members, so that they do not tell
            apart what is well below the model's own uncertainty. 0 adds none.
    """

    features: Literal["error", "residual", "raw"] = "error"
    smoothing: float = 0.5
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(updates=4000, precision="auto", evaluate_every=200)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("features", self.features, ("error", "residual", "raw"))
        real("smoothing", self.smoothing, least=0.0, most=100.0)


class Moments(NamedTuple):
    """How SIR's moments E[e φᵀ] differ from logged ones, and how many candidates have weight.

    See `lfiw_ope.ratio_moments`.

    Attributes:
        gap: root mean square of the differences, in standard deviations of e, without the tilt.
        tilted_gap: the same with the tilt, at the transitions that it was solved for.
        candidates: mean of 1 / Σ_j p_j², without the tilt.
        tilted_candidates: the same with the tilt.
    """

    gap: float
    tilted_gap: float
    candidates: float
    tilted_candidates: float


class Given(NamedTuple):
    """The part of the features that (s, a) alone decides."""

    inputs: Tensor  # [..., S + A], standardised
    centre: Tensor  # [..., S + 1], what (s', r) is measured from

    def at(self, rows: Tensor) -> "Given":
        return Given(self.inputs[rows], self.centre[rows])


def outcome_centre(
    config: RatioConfig,
    dynamics: EnsembleDynamics,
    state: Tensor,
    action: Tensor,
    mean: Tensor | None = None,
) -> Tensor:
    """`[..., S + 1]`, what (s', r) is measured from at (s, a)."""
    if config.features == "error":
        return dynamics.mean(state, action) if mean is None else mean
    centre = torch.zeros_like(state) if config.features == "raw" else state
    return nn.functional.pad(centre, (0, 1))


MOST_INPUT, MOST_OUTCOME = 3.0, 6.0
"""Standardised (s, a) and (s', r) are clipped to plus or minus this in a tilt, so that it stays
bounded where a rollout leaves the log."""


def tilted(tilt: Tensor, inputs: Tensor, outcome: Tensor) -> Tensor:
    """`[...]`, eᵀ A φ with φ = (1, s, a).

    Args:
        tilt: `[S + 1, 1 + S + A]`, A.
        inputs: `[..., S + A]`, standardised (s, a).
        outcome: `[..., S + 1]`, standardised (s', r), e.
    """
    inputs = inputs.clamp(-MOST_INPUT, MOST_INPUT)
    slope = tilt[:, 0] + inputs @ tilt[:, 1:].T
    return (outcome.clamp(-MOST_OUTCOME, MOST_OUTCOME) * slope).sum(-1)


class TransitionRatio(nn.Module):
    """log p(s', r, terminated | s, a) / p_θ(s', r, terminated | s, a), by classification.

    The classifiers tell logged from simulated transitions at the same (s, a), in equal numbers
    (Grover et al. 2019, section 3). Build it with `lfiw_ope.fit_transition_ratio`.

    Attributes:
        tilt: `[S + 1, 1 + S + A]`, A of `lfiw_ope.ratio_moments`, which adds to the log-ratio;
            zeros add nothing.
        moments: what the calibration that made the tilt found; None where there was none.
    """

    tilt: Tensor
    moments: Moments | None = None

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
        self.classifiers = ClassifierEnsemble(config, features, generator)
        size = outcomes.mean.numel(), 1 + inputs.mean.numel()
        self.register_buffer("tilt", torch.zeros(size, dtype=outcomes.mean.dtype))

    @property
    def report(self) -> ClassifierReport | None:
        """How well the classifiers tell held-out transitions apart; None before they are fitted."""
        return self.classifiers.report

    @property
    def fit_report(self) -> FitReport | None:
        """How their training went."""
        return self.classifiers.fit_report

    def with_tilt(self, tilt: Tensor, moments: Moments) -> "TransitionRatio":
        """The same classifiers with another tilt; parameters are shared, not copied."""
        other = copy.copy(self)
        other.moments = moments
        other._buffers = {**self._buffers, "tilt": tilt}
        return other

    def given(self, state: Tensor, action: Tensor, mean: Tensor | None = None) -> "Given":
        """What features need of (s, a) alone, so that K transitions there share the work.

        Args:
            state: `[..., S]`
            action: `[..., A]`
            mean: `[..., S + 1]`, what (s', r) are measured from, such as what the member that drew
                them expects; the ensemble's where none is given.
        """
        inputs = self.inputs(torch.cat((state, action), -1))
        return Given(inputs, outcome_centre(self.config, self.dynamics, state, action, mean))

    def features(self, given: "Given", transition: Transition) -> Tensor:
        """`[..., F]`; leading axes that only the transition has are draws at the same (s, a)."""
        outcome = torch.cat((transition.next_state, transition.reward[..., None]), -1)
        ended = transition.terminated[..., None].to(outcome.dtype)
        inputs = given.inputs.expand(*outcome.shape[:-1], -1)
        return torch.cat((inputs, self.outcomes(outcome - given.centre), ended), -1)

    def parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Views `[..., S + A]` and `[..., S + 1]` of features: standardised (s, a) and (s', r)."""
        inputs = self.inputs.mean.numel()
        return features[..., :inputs], features[..., inputs:-1]

    @torch.no_grad()
    def log_ratio(self, state: Tensor, action: Tensor, transition: Transition) -> Tensor:
        """Of each transition, `[K, ..., n]` or `[..., n]`; see `lfiw_ope.types.LogRatio`.

        Where `average` is "estimates", each classifier's own: `[K, C, ..., n]` or `[C, ..., n]`.
        """
        given = self.given(state, action, getattr(transition, "mean", None))
        features = self.features(given, transition)
        log_ratio = self.classifiers.log_ratio(features)
        # By the inputs of (s, a) as they are, and not repeated for each of K draws there.
        log_ratio = log_ratio + tilted(self.tilt, given.inputs, self.parts(features)[1])
        draws_lead = features.dim() > state.dim()
        if self.config.average == "estimates" and draws_lead:
            return log_ratio.movedim(0, 1)
        return log_ratio

"""The likelihood-free density ratio of logged against simulated transitions."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lfiw_ope.core.errors import ConfigError, DataError
from lfiw_ope.core.protocols import Dynamics, Progress, Transition, silent
from lfiw_ope.core.seeding import torch_generator
from lfiw_ope.core.validation import choice, real
from lfiw_ope.data.tensors import ROWS_AT_ONCE, DeviceLog, TransitionTensors, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics.ensemble import EnsembleDynamics
from lfiw_ope.nn.batched_mlp import Standardiser
from lfiw_ope.nn.training import FitConfig, FitReport
from lfiw_ope.ratios.classifier import (
    ClassifierConfig,
    ClassifierEnsemble,
    ClassifierReport,
    Pair,
    TwoSampleObjective,
    fit_classifiers,
)


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

    See `lfiw_ope.ratios.moments`.

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
        tilt: `[S + 1, 1 + S + A]`, A of `lfiw_ope.ratios.moments`, which adds to the log-ratio;
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
        """Of each transition, `[K, ..., n]` or `[..., n]`; see `lfiw_ope.core.LogRatio`.

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


MAX_KEPT = 1 << 26
"""Numbers that a training keeps of its rows, 256 MB."""

MOST_HELD_OUT = 1 << 16
"""Held-out transitions that calibration and the report rest on: more would not change them."""


class _RealOrSimulated(TwoSampleObjective):
    """Logged against freshly simulated transitions at the same (s, a).

    What does not change between batches is computed once: the features of logged transitions, and
    the ensemble's outputs, so that a batch draws members and noise and evaluates no network of the
    dynamics. Where that would take more than `MAX_KEPT` numbers, it is computed batch by batch.
    """

    def __init__(
        self,
        ratio: TransitionRatio,
        log: DeviceLog,
        train: Tensor,
        held_out: Tensor,
        member: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.ratio, self.log, self.train, self.member = ratio, log, train, member
        self.classifiers, self.rows = ratio.classifiers, len(train)
        pairs = [self._pair(rows, generator) for rows in torch.split(held_out, ROWS_AT_ONCE)]
        real, simulated = (torch.cat(features) for features in zip(*pairs, strict=True))
        self.held_out = real, simulated
        middle = episode_boundary(log, held_out)
        self.halves = middle, middle
        self.kept = self._keep(train)

    def _keep(self, train: Tensor) -> "_Predicted | None":
        dynamics = self.ratio.dynamics
        if not isinstance(dynamics, EnsembleDynamics):
            return None
        outputs = dynamics.network.sizes[-1] * dynamics.config.members
        if len(train) * (outputs + 3 * dynamics.inputs.mean.numel()) > MAX_KEPT:
            return None
        parts = [self._predicted(dynamics, rows) for rows in torch.split(train, ROWS_AT_ONCE)]
        return _Predicted(*(torch.cat(fields) for fields in zip(*parts, strict=True)))

    def batch(self, rows: Tensor, generator: torch.Generator) -> Pair:
        if self.kept is None:
            real, simulated = self._pair(self.train.index_select(0, rows.flatten()), generator)
        else:
            at = _Predicted(*(field.index_select(0, rows.flatten()) for field in self.kept))
            real, simulated = self._simulated(at, generator)
        return real.view(*rows.shape, -1), simulated.view(*rows.shape, -1)

    def _pair(self, rows: Tensor, generator: torch.Generator) -> Pair:
        """Of logged transitions `[B, F]`, and of as many simulated at the same (s, a)."""
        ratio, dynamics = self.ratio, self.ratio.dynamics
        if isinstance(dynamics, EnsembleDynamics):
            return self._simulated(self._predicted(dynamics, rows), generator)
        logged = self.log.at(rows)
        simulated = dynamics.sample(logged.state, logged.action, generator)
        given = ratio.given(logged.state, logged.action)
        return ratio.features(given, logged), ratio.features(given, simulated)

    def _predicted(self, dynamics: EnsembleDynamics, rows: Tensor) -> "_Predicted":
        logged, member = self.log.at(rows), self.member[rows]
        predicted = dynamics.predict(logged.state, logged.action)
        mean = dynamics.member_mean(predicted, member, logged.state)
        given = self.ratio.given(logged.state, logged.action, mean)
        real = self.ratio.features(given, logged)
        by_row = predicted.movedim(0, 1)
        return _Predicted(logged.state, logged.action, *given, real, by_row, member)

    def _simulated(self, at: "_Predicted", generator: torch.Generator) -> Pair:
        predicted = at.predicted.movedim(1, 0)
        drawn = self.ratio.dynamics.sample_from(
            predicted, at.state, at.action, generator, at.member
        )
        pair = at.real, self.ratio.features(Given(at.inputs, at.centre), drawn)
        return self._smoothed(pair, predicted, generator)

    def _smoothed(self, pair: Pair, predicted: Tensor, generator: torch.Generator) -> Pair:
        """Features of either set with noise of the size of the model's own uncertainty.

        Args:
            pair: features `[B, F]`.
            predicted: `[M, B, O]`, the ensemble's outputs there.
            generator: of the noise, independent for the two.
        """
        ratio = self.ratio
        if ratio.config.smoothing == 0.0:
            return pair
        real, simulated = pair[0].clone(), pair[1].clone()
        for features in (real, simulated):
            error = ratio.dynamics.mean_error(predicted, generator) / ratio.outcomes.scale
            ratio.parts(features)[1].add_(error, alpha=ratio.config.smoothing)
        return real, simulated


class _Predicted(NamedTuple):
    """Logged transitions, and what the ensemble expects there."""

    state: Tensor  # [R, S]
    action: Tensor  # [R, A]
    inputs: Tensor  # [R, S + A]
    centre: Tensor  # [R, S + 1]
    real: Tensor  # [R, F]
    predicted: Tensor  # [R, M, O]
    member: Tensor  # [R], that each is compared with


def episode_boundary(log: DeviceLog, rows: Tensor) -> int:
    """Of rows in the order of their episodes, the boundary of two episodes nearest to the middle.

    One episode alone is cut in its middle.
    """
    order = log.first.argsort()
    episode = order[torch.searchsorted(log.first[order], rows, right=True) - 1]
    boundaries = 1 + (episode[1:] != episode[:-1]).nonzero()[:, 0].cpu()
    middle = len(rows) // 2
    if not len(boundaries):
        return middle
    return int(boundaries[(boundaries - middle).abs().argmin()])


def members_of(
    dynamics: Dynamics, log: DeviceLog, left_out: Sequence[Sequence[int]] | None, seed: int
) -> Tensor:
    """`[R]` int64, the member that each transition of the log is compared with.

    The one that did not learn from its episode, or one at random where none did.
    """
    device = log.rewards.device
    members = dynamics.config.members if isinstance(dynamics, EnsembleDynamics) else 1
    generator = torch_generator(seed, "ratio", "members", device=device)
    member = torch.randint(members, log.rewards.shape, generator=generator, device=device)
    for number, episodes in enumerate(left_out or ()):
        member[log.rows_of(list(episodes))] = number
    return member


def centred(
    config: RatioConfig, dynamics: EnsembleDynamics, log: DeviceLog, rows: Tensor, member: Tensor
) -> Iterator[tuple[TransitionTensors, Tensor]]:
    """Transitions, some at a time, and what their (s', r) are measured from, `[B, S + 1]`."""
    for some in torch.split(rows, ROWS_AT_ONCE):
        logged, mean = log.at(some), None
        if isinstance(dynamics, EnsembleDynamics):
            predicted = dynamics.predict(logged.state, logged.action)
            mean = dynamics.member_mean(predicted, member[some], logged.state)
        yield logged, outcome_centre(config, dynamics, logged.state, logged.action, mean)


def fit_transition_ratio(
    data: Trajectories,
    dynamics: EnsembleDynamics,
    config: RatioConfig,
    seed: int,
    *,
    train: Sequence[int],
    held_out: Sequence[int],
    left_out: Sequence[Sequence[int]] | None = None,
    progress: Progress = silent,
) -> TransitionRatio:
    """Fit the ratio of the process behind `data` to `dynamics`.

    Args:
        data: the log.
        dynamics: the model; it must have been fitted to other episodes, or each member to others
            than `left_out` says, because residuals on a model's own episodes are too small and
            would teach the classifiers overfitting.
        config: the classifiers.
        seed: of weights, batches and negatives.
        train: episodes to learn from.
        held_out: further episodes, for early stopping, calibration and the report; two or more, so
            that one half can judge the calibration of the other (one is cut in its middle).
        left_out: for each member the episodes that it alone did not learn from: their transitions
            are compared with that member (cross-fitting), all others with one at random.
        progress: told how far training is.

    Raises:
        ConfigError: if `config` is another one, or the episodes to learn from or those held out
            are none, not in the data, or in both parts.
        DataError: if the dynamics were fitted to states and actions of other sizes.
        DivergedError: if a member's loss stops being finite.
        MissingDependencyError: if the calibration needs a package that is not installed.
    """
    if not isinstance(config, RatioConfig):
        raise ConfigError(f"config is a {type(config).__name__}; give a RatioConfig.")
    _check_episodes(train, held_out, data.num_episodes)
    _check_sizes(dynamics, data)
    device = dynamics.low.device
    log = DeviceLog.of(data, device)
    rows = log.rows_of(train)
    member = members_of(dynamics, log, left_out, seed)
    ratio = TransitionRatio(
        config,
        dynamics,
        Standardiser.of_chunks(
            torch.cat((some.state, some.action), -1) for some in log.chunks(rows)
        ),
        Standardiser.of_chunks(
            torch.cat((some.next_state, some.reward[:, None]), -1) - centre
            for some, centre in centred(config, dynamics, log, rows, member)
        ),
        torch_generator(seed, "ratio", "weights"),
    ).to(device)
    drawing = torch_generator(seed, "ratio", "held out", device=device)
    objective = _RealOrSimulated(
        ratio,
        log,
        rows,
        thin(log.rows_of(held_out), MOST_HELD_OUT, drawing),
        member,
        drawing,
    )
    fit_classifiers(
        objective,
        torch_generator(seed, "ratio", "batches", device=device),
        progress=progress,
    )
    return ratio.requires_grad_(False)


def _check_episodes(train: Sequence[int], held_out: Sequence[int], number: int) -> None:
    for name, given in (("train", train), ("held_out", held_out)):
        chosen = np.asarray(given)
        if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
            raise ConfigError(
                f"{name} is {given!r}; it must be one or more episodes' numbers, such as range(10)."
            )
        outside = chosen[(chosen < 0) | (chosen >= number)]
        if outside.size:
            raise ConfigError(
                f"{name} names the episode {outside[0]}; the data have episodes 0 to {number - 1}."
            )
    both = np.intersect1d(train, held_out)
    if both.size:
        raise ConfigError(
            f"{both.size} episodes are in train and in held_out, the first {both[0]}; what stops "
            "and calibrates a classifier must not have taught it, so give each to one of them."
        )


def _check_sizes(dynamics: EnsembleDynamics, data: Trajectories) -> None:
    # Anything that samples can be told from data; an ensemble alone says what it was fitted to.
    if not isinstance(dynamics, EnsembleDynamics):
        return
    size = dynamics.state_size
    expected = size, dynamics.inputs.mean.numel() - size
    if expected != (data.state_size, data.action_size):
        raise DataError(
            f"The data have states of {data.state_size} entries and actions of {data.action_size}; "
            f"the dynamics were fitted to {expected[0]} and {expected[1]}."
        )

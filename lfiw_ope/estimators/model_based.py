"""The plain model-based estimate, and the fit that simulating estimators share."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Dynamics, Progress, Reward, Termination, silent
from lfiw_ope.core.validation import settings, whole
from lfiw_ope.data.split import EpisodeSplit, require_episodes
from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics.ensemble import DynamicsConfig
from lfiw_ope.dynamics.training import fit_dynamics
from lfiw_ope.estimators.base import settings_but
from lfiw_ope.estimators.fitted_model import FittedModel
from lfiw_ope.estimators.model_bias import Anchor, AnchorGap, check_anchors, clone_part, measure
from lfiw_ope.estimators.selection import CHOICES, STEPS, Candidate, select_noise
from lfiw_ope.estimators.simulation_intervals import SimulatedIntervalConfig
from lfiw_ope.ratios.behaviour_cloning import ClonedBehaviour
from lfiw_ope.ratios.induced import InducedDynamics
from lfiw_ope.stats.weighting import Weighting

SCORED_SHARE = 0.1
"""Of the episodes, those that candidates of noise and weights are scored on."""

MIN_EPISODES = 10
"""Of a log, below which nothing is chosen: the noise is then "bootstrap", without weights."""


NOT_CHOSEN = (
    f"Noise and weights were not chosen on held-out data: that takes {MIN_EPISODES} or more "
    f"episodes, and among them enough of {STEPS} steps (or of the horizon's), or such as end "
    'before. The noise is "bootstrap", without weights; name another by DynamicsConfig(noise=...).'
)


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """Settings of an estimator that simulates.

    Attributes:
        dynamics: the ensemble.
        rollouts: n, of each policy.
        interval: which intervals estimates have.
    """

    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    rollouts: int = 1000
    interval: SimulatedIntervalConfig = field(default_factory=SimulatedIntervalConfig)

    def __post_init__(self) -> None:
        whole("rollouts", self.rollouts, least=2)
        example = 'SimulatedIntervalConfig(method="total")'
        settings("interval", self.interval, SimulatedIntervalConfig, example)


Config = TypeVar("Config", bound=SimulationConfig)


class ModelEstimator(ABC, Generic[Config]):
    """An estimator that fits a dynamics model once and then simulates any policy in it.

    Args:
        estimand: what is estimated.
        config: settings; the defaults where none are given.
        device: where everything is fitted and simulated, such as "cpu" or "cuda"; in place of the
            configuration's.
        reward: the reward function, where it is known exactly; else it is learned.
        termination: the termination rule, where it is known; else it is learned.
        anchors: policies whose value the log tells, such as the behaviour itself or snapshots whose
            episodes a replay holds. The model's error on them bounds its bias in the intervals;
            where any are given, the behaviour is not cloned for that.

    Raises:
        ConfigError: if the device is not there, or an anchor is none.
    """

    default_config: type[Config]

    def __init__(
        self,
        estimand: Estimand,
        config: Config | None = None,
        *,
        device: str | None = None,
        reward: Reward | None = None,
        termination: Termination | None = None,
        anchors: Sequence[Anchor] = (),
    ) -> None:
        if isinstance(anchors, Anchor) or not all(isinstance(one, Anchor) for one in anchors):
            raise ConfigError(
                f"anchors is {anchors!r}; it must be a list of Anchor, such as "
                "[Anchor(policy, episodes=range(100))]."
            )
        self.estimand, self.anchors = estimand, tuple(anchors)
        config = self.default_config() if config is None else config
        if device is not None:
            config = replace(config, dynamics=replace(config.dynamics, device=device))
        self.config = config
        self.reward, self.termination = reward, termination

    @abstractmethod
    def fit(
        self,
        data: Trajectories,
        seed: int,
        *,
        progress: Progress = silent,
    ) -> FittedModel:
        """Fit to the log; the result serves any number of policies.

        Args:
            data: the log.
            seed: of everything that is random.
            progress: told how far the work is.

        Raises:
            DataError: if there are too few episodes.
            DivergedError: if a training diverges.
        """

    @property
    def chooses(self) -> bool:
        """Whether noise, and weights where there are any, are chosen on held-out episodes."""
        return self.config.dynamics.noise == "auto"

    def _split(self, data: Trajectories, seed: int, ratio_share: float) -> EpisodeSplit:
        """Episodes by what they are for; some are scored where there is a choice to make."""
        require_episodes(data, 2, "one is held out")
        check_anchors(self.anchors, data)
        scored = SCORED_SHARE if self.chooses and data.num_episodes >= MIN_EPISODES else 0.0
        return EpisodeSplit.draw(data.num_episodes, seed, ratio_share, scored)

    def _fit_plain_model(
        self,
        data: Trajectories,
        split: EpisodeSplit,
        seed: int,
        progress: Progress,
    ) -> FittedModel:
        """The dynamics, and uniform weights."""
        started = time.perf_counter()
        dynamics = fit_dynamics(
            data,
            self.config.dynamics,
            seed,
            train=split.dynamics.tolist(),
            held_out=split.dynamics_held_out.tolist(),
            reward=self.reward,
            termination=self.termination,
            progress=progress,
        )
        return FittedModel(
            estimand=self.estimand,
            dynamics=dynamics,
            ratio=None,
            initial_states=torch.from_numpy(data.initial_states).to(self.config.dynamics.device),
            action_size=data.action_size,
            action_kind=data.action_spec.kind,
            weighting=Weighting(form="uniform"),
            rollouts=self.config.rollouts,
            draws=1,
            seed=int(seed),
            interval=self.config.interval,
            held_out=split.unseen_by_dynamics,
            seconds={"dynamics": time.perf_counter() - started},
        )

    def _completed(
        self,
        model: FittedModel,
        data: Trajectories,
        split: EpisodeSplit,
        seed: int,
        progress: Progress,
        candidates: Sequence[Candidate] = (),
    ) -> FittedModel:
        """The model with noise and weights chosen among candidates, and its error on anchors."""
        started = time.perf_counter()
        scores = bool(candidates) and len(split.scored) > 0
        clone = (
            self._clone(data, seed, progress) if scores or self._clones_behaviour(data) else None
        )
        cloned = time.perf_counter()
        if scores and clone is not None:
            model = self._choose(model, clone, data, split, seed, candidates)
        if candidates and model.selection is None:
            model = replace(model, notes=(NOT_CHOSEN,))
        chosen = time.perf_counter()
        gaps: tuple[AnchorGap, ...] = ()
        if self._measures_bias:
            anchors = self.anchors
            if self._clones_behaviour(data) and clone is not None:
                anchors = (Anchor(clone.policy),)
            chosen_from = model.weighting.candidates
            gaps = measure(
                anchors,
                data,
                model.dynamics,
                self.estimand,
                rollouts=self.config.rollouts,
                seed=seed,
                ratio=model.ratio_for(model.weighting) if chosen_from > 1 else None,
                candidates=chosen_from,
                progress=progress,
            )
        seconds = {"clone": cloned - started, "choice": chosen - cloned}
        seconds["anchors"] = time.perf_counter() - chosen
        return replace(model, gaps=gaps, seconds={**model.seconds, **seconds})

    def _choose(
        self,
        model: FittedModel,
        clone: ClonedBehaviour,
        data: Trajectories,
        split: EpisodeSplit,
        seed: int,
        candidates: Sequence[Candidate],
    ) -> FittedModel:
        """The model with the noise and the candidates of SIR that held-out episodes ask for."""
        models: dict[Candidate, Dynamics] = {}
        for candidate in candidates:
            noisy = model.dynamics.with_noise(candidate.noise)
            models[candidate] = noisy
            ratio = model.ratio_for(candidate.weighting)
            if ratio is not None:
                models[candidate] = InducedDynamics(noisy, ratio, candidate.sir_candidates)
        selection = select_noise(
            models,
            clone,
            DeviceLog.of(data, self.config.dynamics.device),
            split.scored.tolist(),
            steps=min(STEPS, self.estimand.horizon),
            seed=seed,
        )
        if selection is None:
            return model
        return replace(model.with_candidate(selection.chosen), selection=selection)

    @property
    def _measures_bias(self) -> bool:
        """Whether intervals need the model's error on anchors."""
        config = self.config.dynamics
        total = self.config.interval.method == "total"
        return total and config.members > 1 and config.member_episodes != "all"

    def _clones_behaviour(self, data: Trajectories) -> bool:
        """Whether a clone of the behaviour is the anchor."""
        wanted = not self.anchors and self.config.interval.anchors == "clone"
        return self._measures_bias and wanted and data.num_episodes >= 3

    def _clone(self, data: Trajectories, seed: int, progress: Progress) -> ClonedBehaviour:
        config, clone = self.config.dynamics, self.config.interval.clone
        short = replace(clone.fit, updates=min(clone.fit.updates, config.fit.updates))
        clone = replace(clone, device=config.device, fit=short)
        return clone_part(data, clone, seed, progress=progress)


class ModelBasedConfig(SimulationConfig):
    """Settings of `ModelBased`: those of any estimator that simulates."""


class ModelBased(ModelEstimator[ModelBasedConfig]):
    """ṽ(π) = E_{τ ~ p_θ, π}[R(τ)]: simulate the policy in the learned dynamics, and average.

    The log goes to the dynamics, where `LFIW` keeps some of it for the ratio, and to the choice of
    the simulated step's noise: `LFIW`'s choice without weights, unless `DynamicsConfig.noise` names
    one. For the plain model of an `LFIW` fit, use its `plain_model()`.

    The arguments are `lfiw_ope.estimators.model_based.ModelEstimator`'s.
    """

    default_config = ModelBasedConfig

    def fit(
        self,
        data: Trajectories,
        seed: int,
        *,
        progress: Progress = silent,
    ) -> FittedModel:
        split = self._split(data, seed, ratio_share=0.0)
        model = self._fit_plain_model(data, split, seed, progress)
        candidates = [Candidate(noise) for noise in CHOICES] if self.chooses else []
        return self._completed(model, data, split, seed, progress, candidates)

    @property
    def sharing_key(self) -> object:
        """All settings: nothing comes after the fit that another could differ in."""
        return ModelBased, settings_but(self)

    def adopt(self, fitted: FittedModel) -> FittedModel:
        """Simulate in another's dynamics; see `lfiw_ope.estimators.SharingEstimator`."""
        return fitted

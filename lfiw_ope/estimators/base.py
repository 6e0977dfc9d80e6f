"""What the estimators that simulate share: how they are told, and the fit of their model."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch

from lfiw_ope.anchors import Anchor, AnchorGap, check_anchors, clones, measure
from lfiw_ope.checks import settings, whole
from lfiw_ope.data.split import EpisodeSplit, require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import DynamicsConfig, EnsembleDynamics
from lfiw_ope.dynamics_fit import fit_dynamics
from lfiw_ope.errors import ConfigError
from lfiw_ope.estimand import Estimand
from lfiw_ope.fitted import FittedModel
from lfiw_ope.intervals.simulated import SimulatedIntervalConfig
from lfiw_ope.types import Progress, Reward, Termination, silent
from lfiw_ope.weighting import Weighting


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
        checkpoints: str | Path | None = None,
    ) -> FittedModel:
        """Fit to the log; the result serves any number of policies.

        Args:
            data: the log.
            seed: of everything that is random.
            progress: told how far the work is.
            checkpoints: a folder where training is kept up to date, and resumed from.

        Raises:
            DataError: if there are too few episodes.
            DivergedError: if a training diverges.
        """

    def _fit_plain_model(
        self,
        data: Trajectories,
        split: EpisodeSplit,
        seed: int,
        progress: Progress,
        checkpoints: str | Path | None,
    ) -> FittedModel:
        """The dynamics, and uniform weights."""
        require_episodes(data, 2, "one is held out")
        check_anchors(self.anchors, data)
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
            checkpoint=None if checkpoints is None else Path(checkpoints) / "dynamics.pt",
        )
        fitted = time.perf_counter()
        gaps = self._measure(data, dynamics, seed, progress)
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
            gaps=gaps,
            held_out=split.unseen_by_dynamics,
            seconds={"dynamics": fitted - started, "anchors": time.perf_counter() - fitted},
        )

    def _measure(
        self, data: Trajectories, dynamics: EnsembleDynamics, seed: int, progress: Progress
    ) -> tuple[AnchorGap, ...]:
        """The model's error on the anchors, where intervals need it."""
        interval, config = self.config.interval, self.config.dynamics
        anchors: Sequence[Anchor] = self.anchors
        if interval.method != "total" or config.members < 2 or not config.bootstrap:
            return ()
        if not anchors and interval.anchors == "clone" and data.num_episodes >= 3:
            training = interval.clone.fit
            short = replace(training, updates=min(training.updates, config.fit.updates))
            clone = replace(interval.clone, device=config.device, fit=short)
            anchors = clones(data, 1, clone, seed, progress=progress)
        return measure(
            anchors,
            data,
            dynamics,
            self.estimand,
            rollouts=self.config.rollouts,
            seed=seed,
            progress=progress,
        )

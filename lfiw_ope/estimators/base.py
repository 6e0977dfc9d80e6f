"""What the estimators that simulate share: how they are told, and the fit of their model."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch

from lfiw_ope.checks import whole
from lfiw_ope.data.split import EpisodeSplit, require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import DynamicsConfig
from lfiw_ope.dynamics_fit import fit_dynamics
from lfiw_ope.estimand import Estimand
from lfiw_ope.fitted import FittedModel
from lfiw_ope.types import Progress, Reward, Termination, silent
from lfiw_ope.weighting import Weighting


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """Settings of an estimator that simulates.

    Attributes:
        dynamics: the ensemble.
        rollouts: n, of each policy.
    """

    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    rollouts: int = 1000

    def __post_init__(self) -> None:
        whole("rollouts", self.rollouts, least=2)


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

    Raises:
        ConfigError: if the device is not there.
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
    ) -> None:
        self.estimand = estimand
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
            seconds={"dynamics": time.perf_counter() - started},
            held_out=split.unseen_by_dynamics,
        )

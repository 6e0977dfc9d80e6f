"""What the estimators that simulate share: how they are told, and the fit of their model."""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

import torch

from lfiw_ope.data.split import EpisodeSplit
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import DynamicsConfig
from lfiw_ope.dynamics_fit import fit_dynamics
from lfiw_ope.errors import ConfigError
from lfiw_ope.estimand import Estimand
from lfiw_ope.fitted import FittedModel
from lfiw_ope.types import Progress, Reward, Termination, silent
from lfiw_ope.weights import Weighting

Config = TypeVar("Config")


class ModelEstimator(ABC, Generic[Config]):
    """An estimator that fits a dynamics model once and then simulates any policy in it.

    Args:
        estimand: what is estimated.
        config: settings; the defaults where none are given.
        device: where everything is fitted and simulated, such as "cpu" or "cuda".
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
        device: torch.device | str = "cpu",
        reward: Reward | None = None,
        termination: Termination | None = None,
    ) -> None:
        self.estimand = estimand
        self.config = self.default_config() if config is None else config
        self.device = check_device(device)
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
        config: DynamicsConfig,
        rollouts: int,
        split: EpisodeSplit,
        seed: int,
        progress: Progress,
        checkpoints: str | Path | None,
    ) -> FittedModel:
        """The dynamics, and uniform weights."""
        started = time.perf_counter()
        dynamics = fit_dynamics(
            data,
            config,
            seed,
            train=split.dynamics.tolist(),
            held_out=split.dynamics_held_out.tolist(),
            device=self.device,
            reward=self.reward,
            termination=self.termination,
            progress=progress,
            checkpoint=None if checkpoints is None else Path(checkpoints) / "dynamics.pt",
        )
        return FittedModel(
            estimand=self.estimand,
            dynamics=dynamics,
            ratio=None,
            initial_states=torch.from_numpy(data.initial_states).to(self.device),
            action_size=data.action_size,
            weighting=Weighting(form="uniform"),
            rollouts=rollouts,
            draws=1,
            seed=int(seed),
            seconds={"dynamics": time.perf_counter() - started},
        )


def check_device(device: torch.device | str) -> torch.device:
    """The argument as a device that is there.

    Raises:
        ConfigError: if torch does not know it, or it is not present.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The device {device!r} cannot be used: {reason}") from error
    return torch.device(device)

"""The plain model-based estimate: the mean simulated return."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import DynamicsConfig
from lfiw_ope.errors import ConfigError
from lfiw_ope.estimand import Estimand
from lfiw_ope.estimators.base import EpisodeSplit, FittedModel, ModelEstimator
from lfiw_ope.types import Progress, Reward, Termination, silent
from lfiw_ope.weights import Weighting


@dataclass(frozen=True, kw_only=True)
class ModelBasedConfig:
    """Settings of `ModelBased`.

    Attributes:
        dynamics: the ensemble.
        rollouts: n, of each policy.
    """

    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    rollouts: int = 1000

    def __post_init__(self) -> None:
        if self.rollouts < 2:
            raise ConfigError(f"rollouts is {self.rollouts!r}; it must be 2 or more.")


class ModelBased(ModelEstimator):
    """ṽ(π) = E_{τ ~ p_θ, π}[R(τ)]: simulate the policy in the learned dynamics, and average.

    All the log goes to the dynamics, where `LFIW` keeps some of it for the ratio. For the plain
    model of an `LFIW` fit, use its `plain_model()`.

    Args:
        estimand: what is estimated.
        config: settings.
        device: where the model is fitted and simulated, such as "cpu" or "cuda".
        reward: the reward function, where it is known exactly; else it is learned.
        termination: the termination rule, where it is known; else it is learned.

    Raises:
        ConfigError: if the device is not there.
    """

    def __init__(
        self,
        estimand: Estimand,
        config: ModelBasedConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        reward: Reward | None = None,
        termination: Termination | None = None,
    ) -> None:
        super().__init__(estimand, device=device, reward=reward, termination=termination)
        self.config = config or ModelBasedConfig()

    def fit(
        self,
        data: Trajectories,
        seed: int,
        *,
        progress: Progress = silent,
        checkpoints: Path | None = None,
    ) -> FittedModel:
        """Fit the dynamics to the log; the result serves any number of policies.

        Args:
            data: the log.
            seed: of everything that is random.
            progress: told how far the work is.
            checkpoints: a folder where training is kept up to date, and resumed from.

        Raises:
            DataError: if there are too few episodes.
            DivergedError: if training diverges.
        """
        started = time.perf_counter()
        split = EpisodeSplit.draw(data.num_episodes, seed, ratio_share=0.0)
        dynamics = self._fit_dynamics(
            data, self.config.dynamics, split, seed, progress, checkpoints
        )
        return FittedModel(
            estimand=self.estimand,
            dynamics=dynamics,
            ratio=None,
            initial_states=torch.from_numpy(data.initial_states).to(self.device),
            action_size=data.action_size,
            weighting=Weighting(form="uniform"),
            rollouts=self.config.rollouts,
            draws=1,
            seed=seed,
            seconds={"dynamics": time.perf_counter() - started},
        )

"""Off-policy evaluation by likelihood-free importance weighting of simulated trajectories."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import DynamicsConfig
from lfiw_ope.errors import ConfigError
from lfiw_ope.estimand import Estimand
from lfiw_ope.estimators.base import EpisodeSplit, FittedModel, ModelEstimator
from lfiw_ope.ratio import RatioConfig, fit_ratio
from lfiw_ope.types import Progress, Reward, Termination, silent
from lfiw_ope.weights import Weighting


@dataclass(frozen=True, kw_only=True)
class LFIWConfig:
    """Settings of `LFIW`.

    Attributes:
        dynamics: the ensemble.
        ratio: the classifiers.
        weighting: the form of the weights; conditional normalisation by default, without which
            the product of ratios collapses onto one rollout on deterministic simulators.
        rollouts: n, of each policy.
        draws: K, draws of the model at each step for conditional normalisation.
        ratio_share: of the episodes, those kept from the dynamics for the classifiers.
    """

    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    ratio: RatioConfig = field(default_factory=RatioConfig)
    weighting: Weighting = field(default_factory=lambda: Weighting(conditional=True))
    rollouts: int = 1000
    draws: int = 16
    ratio_share: float = 0.3

    def __post_init__(self) -> None:
        if self.rollouts < 2:
            raise ConfigError(f"rollouts is {self.rollouts!r}; it must be 2 or more.")
        if self.draws < 1:
            raise ConfigError(f"draws is {self.draws!r}; it must be 1 or more.")
        if self.weighting.conditional and self.draws < 2:
            raise ConfigError(
                f"draws is {self.draws!r}, and conditional normalisation needs 2 or more."
            )
        if not 0 < self.ratio_share < 1:
            raise ConfigError(f"ratio_share is {self.ratio_share!r}; it must lie in (0, 1).")


class LFIW(ModelEstimator):
    """Likelihood-free importance weighting (Grover et al., NeurIPS 2019, arXiv 1906.09531).

    v̂(π) = Σ_i W_i R(τ_i) / Σ_i W_i,   W_i = Π_t w(s_it, a_it, s_i,t+1, r_it),   τ_i ~ p_θ, π

    A dynamics ensemble p_θ is fitted to some of the logged episodes and a classifier of logged
    against simulated transitions to others; its odds w estimate p / p_θ. Initial distribution and
    policy cancel in the ratio of trajectories, so one fit serves any number of policies.

    Args:
        estimand: what is estimated.
        config: settings.
        device: where everything is fitted and simulated, such as "cpu" or "cuda".
        reward: the reward function, where it is known exactly; else it is learned.
        termination: the termination rule, where it is known; else it is learned.

    Raises:
        ConfigError: if the device is not there.
    """

    def __init__(
        self,
        estimand: Estimand,
        config: LFIWConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        reward: Reward | None = None,
        termination: Termination | None = None,
    ) -> None:
        super().__init__(estimand, device=device, reward=reward, termination=termination)
        self.config = config or LFIWConfig()

    def fit(
        self,
        data: Trajectories,
        seed: int,
        *,
        progress: Progress = silent,
        checkpoints: Path | None = None,
    ) -> FittedModel:
        """Fit dynamics and ratio to the log; the result serves any number of policies.

        Args:
            data: the log.
            seed: of everything that is random.
            progress: told how far the work is.
            checkpoints: a folder where training is kept up to date, and resumed from.

        Raises:
            DataError: if there are too few episodes.
            DivergedError: if a training diverges.
        """
        config = self.config
        split = EpisodeSplit.draw(data.num_episodes, seed, config.ratio_share)
        started = time.perf_counter()
        dynamics = self._fit_dynamics(data, config.dynamics, split, seed, progress, checkpoints)
        fitted = time.perf_counter()
        ratio = fit_ratio(
            data,
            dynamics,
            config.ratio,
            seed,
            train=split.ratio.tolist(),
            held_out=split.ratio_held_out.tolist(),
            progress=progress,
            checkpoint=None if checkpoints is None else checkpoints / "classifier.pt",
        )
        return FittedModel(
            estimand=self.estimand,
            dynamics=dynamics,
            ratio=ratio,
            initial_states=torch.from_numpy(data.initial_states).to(self.device),
            action_size=data.action_size,
            weighting=config.weighting,
            rollouts=config.rollouts,
            draws=config.draws,
            seed=seed,
            seconds={"dynamics": fitted - started, "classifier": time.perf_counter() - fitted},
        )

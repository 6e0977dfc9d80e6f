"""The plain model-based estimate: the mean simulated return."""

from dataclasses import dataclass, field
from pathlib import Path

from lfiw_ope.checks import whole
from lfiw_ope.data.split import EpisodeSplit
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import DynamicsConfig
from lfiw_ope.estimators.base import ModelEstimator
from lfiw_ope.fitted import FittedModel
from lfiw_ope.types import Progress, silent


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
        whole("rollouts", self.rollouts, least=2)


class ModelBased(ModelEstimator[ModelBasedConfig]):
    """ṽ(π) = E_{τ ~ p_θ, π}[R(τ)]: simulate the policy in the learned dynamics, and average.

    All the log goes to the dynamics, where `LFIW` keeps some of it for the ratio. For the plain
    model of an `LFIW` fit, use its `plain_model()`.

    The arguments are `lfiw_ope.estimators.base.ModelEstimator`'s.
    """

    default_config = ModelBasedConfig

    def fit(
        self,
        data: Trajectories,
        seed: int,
        *,
        progress: Progress = silent,
        checkpoints: str | Path | None = None,
    ) -> FittedModel:
        split = EpisodeSplit.draw(data.num_episodes, seed, ratio_share=0.0)
        config = self.config
        return self._fit_plain_model(
            data, config.dynamics, config.rollouts, split, seed, progress, checkpoints
        )

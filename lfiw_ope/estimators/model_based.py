"""The plain model-based estimate: the mean simulated return."""

from pathlib import Path

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimators.base import ModelEstimator, SimulationConfig
from lfiw_ope.estimators.selection import CHOICES, Candidate
from lfiw_ope.fitted import FittedModel
from lfiw_ope.sharing import settings_but
from lfiw_ope.types import Progress, silent


class ModelBasedConfig(SimulationConfig):
    """Settings of `ModelBased`: those of any estimator that simulates."""


class ModelBased(ModelEstimator[ModelBasedConfig]):
    """ṽ(π) = E_{τ ~ p_θ, π}[R(τ)]: simulate the policy in the learned dynamics, and average.

    The log goes to the dynamics, where `LFIW` keeps some of it for the ratio, and to the choice of
    the simulated step's noise: `LFIW`'s choice without weights, unless `DynamicsConfig.noise` names
    one. For the plain model of an `LFIW` fit, use its `plain_model()`.

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
        split = self._split(data, seed, ratio_share=0.0)
        model = self._fit_plain_model(data, split, seed, progress, checkpoints)
        candidates = [Candidate(noise) for noise in CHOICES] if self.chooses else []
        return self._completed(model, data, split, seed, progress, candidates)

    @property
    def sharing_key(self) -> object:
        """All settings: nothing comes after the fit that another could differ in."""
        return ModelBased, settings_but(self)

    def adopt(self, fitted: FittedModel) -> FittedModel:
        """Simulate in another's dynamics; see `lfiw_ope.sharing.SharingEstimator`."""
        return fitted

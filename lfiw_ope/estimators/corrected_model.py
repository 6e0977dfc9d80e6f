"""The plain model's value, corrected by its errors on the log under an occupancy ratio."""

import time
from dataclasses import replace

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.doubly_robust.config import CorrectedModelConfig
from lfiw_ope.doubly_robust.fitted_correction import FittedCorrectedModel
from lfiw_ope.doubly_robust.folds import draw_folds, fit_fold_dynamics
from lfiw_ope.doubly_robust.occupancy_form import LoggedSteps
from lfiw_ope.estimand import Estimand, has_time
from lfiw_ope.types import Progress, Reward, Termination, silent


class CorrectedModel:
    """The model's value plus its mean temporal-difference error on the log, under ω = d^π / d^D.

        v̂ = E[V̂(s_0)] + 1 / (1 − γ) E_D[ω(s, a) (r + γ (1 − terminated) V̂(s') − Q̂(s, a))]

    or, over T steps, v̂ = E[V̂_0(s_0)] + Σ_t γ^t E_{D_t}[ω_t (r + γ (1 − terminated) V̂_{t+1} − Q̂_t)].
    Q̂ and V̂ are the model's own, simulated with common random numbers; in the first form over T
    steps too, which leaves out what is of order γ^T. With ω from DICE it is
    doubly robust: right if the model is, or if ω is. With ω from a classifier on the model's own
    rollouts it is a correction and *not* doubly robust, since both fail with the model; estimates
    say so. Neither takes products over steps, so its noise does not grow with them.

    Model and ratio are cross-fitted by episode. With "dice" a ratio is trained for every policy in
    `estimate`, policies given together at once; with "classifier" one after the other.

    `Estimate.diagnostics` has `direct`, the model's own value, and `correction`;
    `cut_short`, episodes that the log leaves before the horizon, where there is one;
    `residuals`, the number of logged steps whose error was simulated; and `mean_ratio`, ω's mean
    over the log: 1, or less by what terminal states hold.

    Args:
        estimand: what is estimated.
        config: settings; the defaults where none are given.
        device: where everything is fitted, such as "cpu" or "cuda"; in place of the
            configuration's.
        reward: the reward function, where it is known exactly; else it is learned.
        termination: the termination rule, where it is known; else it is learned.

    Raises:
        ConfigError: if the device is not there, or time is "none" and nothing is discounted.
    """

    def __init__(
        self,
        estimand: Estimand,
        config: CorrectedModelConfig | None = None,
        *,
        device: str | None = None,
        reward: Reward | None = None,
        termination: Termination | None = None,
    ) -> None:
        config = CorrectedModelConfig() if config is None else config
        if device is not None:
            config = replace(config, dynamics=replace(config.dynamics, device=device))
        config = replace(config, dice=replace(config.dice, device=config.dynamics.device))
        has_time(estimand, config.time)
        self.estimand, self.config = estimand, config
        self.reward, self.termination = reward, termination

    def fit(
        self, data: Trajectories, seed: int, *, progress: Progress = silent
    ) -> "FittedCorrectedModel":
        """Fit the model of every fold; they serve any number of policies.

        Args:
            data: the log.
            seed: of everything that is random, now and in `estimate`.
            progress: told how far the work is.

        Raises:
            DataError: if there are too few episodes, or one stands in the data more than once; if
                steps count and its longest episodes were cut short before the horizon.
            DivergedError: if a training diverges.
        """
        started = time.perf_counter()
        folds = draw_folds(data, self.config.folds, seed)
        timed = has_time(self.estimand, self.config.time)
        logged = LoggedSteps.of(data, self.estimand.horizon if timed else None)
        models = fit_fold_dynamics(
            data,
            folds,
            self.config.dynamics,
            seed,
            reward=self.reward,
            termination=self.termination,
            progress=progress,
        )
        return FittedCorrectedModel(
            estimand=self.estimand,
            config=self.config,
            data=data,
            logged=logged,
            folds=folds,
            models=models,
            seed=int(seed),
            seconds={"dynamics": time.perf_counter() - started},
        )

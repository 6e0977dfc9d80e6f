"""The plain model's value, corrected by its errors on the log."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lfiw_ope.core.estimand import Estimand, beyond_horizon, has_time
from lfiw_ope.core.protocols import Policy, Progress, Reward, Termination, silent
from lfiw_ope.core.seeding import derive
from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics.ensemble import EnsembleDynamics
from lfiw_ope.estimators.base import Answering, Spaces, spaces_of
from lfiw_ope.estimators.cross_fitting import Fold, ModelValue, draw_folds, fit_fold_dynamics
from lfiw_ope.estimators.dice import fit_dice
from lfiw_ope.estimators.doubly_robust_terms import BY_OCCUPANCY, CorrectedModelConfig, said_of
from lfiw_ope.estimators.occupancy_correction import (
    ClassifiedOccupancy,
    LoggedSteps,
    Occupancy,
    corrected_value,
    corrections,
    fit_visits,
    mean_ratio_warning,
)
from lfiw_ope.stats.estimate import Estimate

NOT_DOUBLY_ROBUST = (
    "The occupancy ratio comes from the same model as the value: this is a correction of the "
    "model by its errors on the log, and not doubly robust. Where the model is wrong about where "
    "the policy goes, the correction is too; ratio='dice' needs no model."
)


@dataclass(frozen=True, eq=False)
class FittedCorrectedModel(Answering):
    """A log, and a model for each fold of its episodes.

    Attributes:
        estimand: what is estimated.
        config: settings.
        data: the log.
        logged: the steps of it that the correction is a mean over.
        folds: which episodes a model is fitted to, and which it judges.
        models: the folds' dynamics ensembles.
        seed: of everything that is random.
        seconds: wall-clock of each stage of the fit.
    """

    estimand: Estimand
    config: CorrectedModelConfig
    data: Trajectories
    logged: LoggedSteps = field(repr=False)
    folds: tuple[Fold, ...] = field(repr=False)
    models: tuple[EnsembleDynamics, ...] = field(repr=False)
    seed: int
    seconds: dict[str, float]

    @property
    def spaces(self) -> Spaces:
        return spaces_of(self.data)

    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:
        started, config = time.perf_counter(), self.config
        occupancies = [
            self._occupancy(policies, number, progress) for number in range(len(self.folds))
        ]
        seconds = {**self.seconds, "ratio": time.perf_counter() - started}
        started = time.perf_counter()
        found = corrections(
            self.data,
            self.logged,
            self.folds,
            lambda number: self._values(policies, number),
            lambda number: occupancies[number],
            policies=len(policies),
            discount=self.estimand.discount,
            most=config.transitions,
            seed=self.seed,
            device=config.dynamics.device,
        )
        seconds["residuals"] = time.perf_counter() - started
        diagnostics = {"residuals": float(min(config.transitions, len(self.logged.rows)))}
        if self.logged.padded is not None:
            diagnostics["cut_short"] = float(self.logged.padded.cut_short)
        estimates = []
        for place in range(len(policies)):
            ratio = found.ratio[place]
            value = corrected_value(
                self.logged, found.initial[place], found.residual[place], ratio, self.estimand
            )
            estimates.append(
                said_of(
                    f"model + residual ({'DICE' if config.ratio == 'dice' else 'classifier'})",
                    self.estimand,
                    self.seed,
                    value,
                    interval=config.interval,
                    advice=BY_OCCUPANCY,
                    diagnostics={**diagnostics, "mean_ratio": float(ratio.mean())},
                    seconds=seconds,
                    warnings=(
                        *self._warnings(occupancies, place),
                        *self._ratio_warnings(occupancies, place, ratio),
                    ),
                )
            )
        return estimates

    def _values(self, policies: Sequence[Policy], fold: int) -> tuple[ModelValue, ModelValue]:
        """Of initial states, from as many rollouts as are spread over them; and of residuals."""
        of_each = math.ceil(self.config.rollouts / self.data.num_episodes)
        one = ModelValue.of(
            policies,
            self.models[fold],
            self.estimand,
            seed=derive(self.seed, "fold", str(fold)),
            device=self.config.dynamics.device,
        )
        return replace(one, rollouts=of_each), one

    def _occupancy(self, policies: Sequence[Policy], fold: int, progress: Progress) -> Occupancy:
        config, device = self.config, self.config.dynamics.device
        train, seed = self.folds[fold].train.tolist(), derive(self.seed, "ratio", str(fold))
        if config.ratio == "dice":
            return fit_dice(
                *(self.data, policies, self.estimand),
                replace(config.dice, time=config.time),
                seed,
                episodes=train,
                progress=progress,
            )
        starts = torch.from_numpy(self.data.initial_states[train]).to(device)
        return fit_visits(
            *(policies, self.models[fold], starts, DeviceLog.of(self.data, device)),
            *(self.logged, train, self.estimand, config.classifier),
            rollouts=config.rollouts,
            seed=seed,
            progress=progress,
        )

    def _ratio_warnings(
        self, occupancies: Sequence[Occupancy], place: int, ratio: Tensor
    ) -> list[str]:
        """Of ω `[R']` by classifiers; DICE's is normalised as it is made."""
        density = ratio.clone()
        for fold, occupancy in zip(self.folds, occupancies, strict=True):
            if not isinstance(occupancy, ClassifiedOccupancy):
                return []
            here = torch.isin(self.logged.episode, torch.from_numpy(fold.judged))
            density[here] /= occupancy.mass(self.logged.steps[here])[place]
        return mean_ratio_warning(density, self.logged.episode)

    def _warnings(self, occupancies: Sequence[Occupancy], place: int) -> tuple[str, ...]:
        beyond = beyond_horizon(self.estimand, self.config.time)
        if self.config.ratio == "classifier":
            return (*beyond, NOT_DOUBLY_ROBUST)
        told: dict[str, None] = {}
        for occupancy in occupancies:
            reports = getattr(occupancy, "reports", ())
            told |= dict.fromkeys(reports[place].warnings if reports else ())
        return (*beyond, *(f"Of the occupancy ratio: {text}" for text in told))


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

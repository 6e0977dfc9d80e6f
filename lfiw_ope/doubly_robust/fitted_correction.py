"""A log with a model for each fold: what answers with the model's value and its correction."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lfiw_ope.answering import Answering, Spaces, spaces_of
from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.doubly_robust.config import CorrectedModelConfig
from lfiw_ope.doubly_robust.folds import Fold
from lfiw_ope.doubly_robust.model_value import ModelValue
from lfiw_ope.doubly_robust.occupancy_form import (
    LoggedSteps,
    Occupancy,
    corrected_value,
    corrections,
)
from lfiw_ope.doubly_robust.saying import BY_OCCUPANCY, said_of
from lfiw_ope.doubly_robust.visits import ClassifiedOccupancy, fit_visits, mean_ratio_warning
from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.estimand import Estimand, beyond_horizon
from lfiw_ope.occupancy.fit import fit_dice
from lfiw_ope.results import Estimate
from lfiw_ope.seeding import derive
from lfiw_ope.types import Policy, Progress

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

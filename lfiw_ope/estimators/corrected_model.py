"""The plain model's value, corrected by its errors on the log under an occupancy ratio.

Over T steps, with ω_t = d_t^π / d_t^D and δ the temporal-difference error of Q̂ and V̂,

    v = E[V̂_0(s_0)] + Σ_t γ^t E_{D_t}[ω_t δ_t],

and where the horizon is infinite, with ω = d^π / d^D of the discounted, normalised occupancy,

    v = E[V̂(s_0)] + 1 / (1 − γ) E_D[ω δ].

A transition into a terminal state has δ = r − Q̂, and the state itself δ = 0, so that ω of what
lies beyond is never wanted. If ω is right the value is, whatever Q̂ is; if Q̂ is right it is,
whatever ω is; the error is a product of the two's (Kallus and Uehara 2022; Tang et al. 2020).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from lfiw_ope.core.estimand import Estimand, beyond_horizon, has_time
from lfiw_ope.core.protocols import ActionValue, Policy, Progress, Reward, Termination, silent
from lfiw_ope.core.seeding import derive, torch_generator
from lfiw_ope.data.censoring import PaddedEpisodes
from lfiw_ope.data.tensors import DeviceLog, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics.ensemble import EnsembleDynamics
from lfiw_ope.estimators.base import Answering, Spaces, spaces_of
from lfiw_ope.estimators.cross_fitting import (
    Fold,
    ModelValue,
    draw_folds,
    fit_fold_dynamics,
    temporal_differences,
)
from lfiw_ope.estimators.dice import OccupancyRatio, fit_dice
from lfiw_ope.estimators.doubly_robust_terms import (
    BY_OCCUPANCY,
    CorrectedModelConfig,
    CorrectedValue,
    Terms,
    corrected,
    doubly_robust,
    said_of,
)
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.weights import effective_sample_size


class Occupancy(Protocol):
    """ω of P policies, learned or exact."""

    def ratio(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """`[P, n]`, 0 or more, at states `[n, S]`, actions `[n, A]` and steps `[n]`."""
        ...


@dataclass(frozen=True)
class LoggedSteps:
    """The logged transitions that the correction is a mean over.

    Attributes:
        rows: `[R']` int64, of the log.
        steps: `[R']` int64, t of each; 0 of all where the horizon is infinite.
        episode: `[R']` int64
        padded: where each stands; None where the horizon is infinite.
    """

    rows: Tensor
    steps: Tensor
    episode: Tensor
    padded: PaddedEpisodes | None

    @classmethod
    def of(cls, data: Trajectories, horizon: int | None) -> "LoggedSteps":
        """Of the first T steps of every episode, or of all where the horizon is None.

        Raises:
            DataError: if the longest episodes were cut short of the horizon.
        """
        lengths = torch.from_numpy(data.lengths)
        episode = torch.repeat_interleave(torch.arange(data.num_episodes), lengths)
        if horizon is None:
            rows = torch.arange(data.num_transitions)
            return cls(rows, torch.zeros_like(rows), episode, None)
        padded = PaddedEpisodes.of(data, horizon)
        rows, steps = padded.row[padded.taken], padded.taken.nonzero()[:, 1]
        return cls(rows, steps, episode[rows], padded)


@dataclass(frozen=True)
class Corrections:
    """What P corrections are made of.

    Attributes:
        initial: `[P, N]` float64, V̂_0(s_0), each from the fold's fit that did not see the episode.
        residual: `[P, R']` float64, δ; of rows that were drawn, times R' over their number; 0 else.
        ratio: `[P, R']` float64, ω.
    """

    initial: Tensor
    residual: Tensor
    ratio: Tensor


def corrections(
    data: Trajectories,
    logged: LoggedSteps,
    folds: Sequence[Fold],
    value_of: Callable[[int], tuple[ActionValue, ActionValue]],
    occupancy_of: Callable[[int], Occupancy],
    *,
    policies: int,
    discount: float,
    most: int,
    seed: int,
    device: torch.device | str,
) -> Corrections:
    """Ask each fold's value function and ratio about the fold's episodes.

    Args:
        data: the log.
        logged: the rows.
        folds: who judges whom.
        value_of: gives fold k's value function, twice: for initial states, and for residuals.
        occupancy_of: gives fold k's ratio.
        policies: P.
        discount: γ.
        most: rows whose residuals are computed, drawn without replacement from all of them.
        seed: of that draw.
        device: where value functions and ratios are asked.
    """
    log, count = DeviceLog.of(data, device), len(logged.rows)
    initial = torch.zeros((policies, data.num_episodes), dtype=torch.float64)
    residual, ratio = (torch.zeros((policies, count), dtype=torch.float64) for _ in range(2))
    drawn = torch.zeros(count, dtype=torch.bool)
    drawn[thin(torch.arange(count), most, torch_generator(seed, "residuals"))] = True
    for number, fold in enumerate(folds):
        at_start, elsewhere = value_of(number)
        occupancy = occupancy_of(number)
        judged = torch.zeros(data.num_episodes, dtype=torch.bool)
        judged[fold.judged] = True
        begun = log.first[judged.to(log.first.device)]
        steps = torch.zeros_like(begun)
        initial[:, judged] = at_start.state_value(log.at(begun).state, steps).double().cpu()
        here = judged[logged.episode].nonzero()[:, 0]
        ratio[:, here] = _ratios(occupancy, log, logged.rows[here], logged.steps[here])
        here = here[drawn[here]]
        if not len(here):
            continue  # a small sample may have none of a fold
        errors = temporal_differences(
            elsewhere, log, logged.rows[here], logged.steps[here], discount
        )
        residual[:, here] = errors * count / min(most, count)
    return Corrections(initial, residual, ratio)


@torch.no_grad()
def _ratios(occupancy: Occupancy, log: DeviceLog, rows: Tensor, steps: Tensor) -> Tensor:
    device, parts, begun = log.first.device, [], 0
    for some in log.chunks(rows.to(device)):
        part = steps[begun : begun + len(some.reward)].to(device)
        begun += len(some.reward)
        parts.append(occupancy.ratio(some.state, some.action, part).double().cpu())
    return torch.cat(parts, -1)


def corrected_value(
    logged: LoggedSteps, initial: Tensor, residual: Tensor, ratio: Tensor, estimand: Estimand
) -> CorrectedValue:
    """Of one policy, from `[N]`, `[R']` and `[R']`; see the equations above.

    Over T steps the mean at step t is over the episodes by their standing there. The standard error
    is from the sampling of episodes, with Q̂, ω and standings taken as given.

    Raises:
        DivergedError: if a value, a residual or a ratio is not finite.
    """
    if logged.padded is None:
        return _stationary(logged, initial, residual, ratio, estimand)
    padded = logged.padded
    step = torch.arange(estimand.horizon, dtype=torch.float64)
    dense, log_weight = torch.zeros((2, *padded.taken.shape), dtype=torch.float64)
    dense[padded.taken], log_weight[padded.taken] = residual, ratio.log()
    dense *= torch.tensor(estimand.discount, dtype=torch.float64) ** step
    return doubly_robust(Terms(initial, dense, log_weight, padded.standing))


def _stationary(
    logged: LoggedSteps, initial: Tensor, residual: Tensor, ratio: Tensor, estimand: Estimand
) -> CorrectedValue:
    # Checked as those over T steps are: each row as a step of its own.
    standing = torch.ones((len(initial), 1), dtype=torch.float64)
    by_row = residual * ratio / ((1.0 - estimand.discount) * len(ratio))
    of_episode, weight = (
        initial.new_zeros(len(initial)).index_add_(0, logged.episode, values)
        for values in (by_row, ratio)
    )
    terms = Terms(initial, of_episode[:, None], weight[:, None].log(), standing)
    lengths = torch.bincount(logged.episode, minlength=len(initial)).double()
    # A long episode has a larger share in a mean over rows, whatever its residuals are.
    over = (lengths / lengths.sum())[:, None]
    ess = effective_sample_size(terms.seen_log_weight, dim=0).expand(estimand.horizon)
    return corrected(initial, of_episode[:, None], over, torch.nan_to_num(ess))


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
                    "model + residual (DICE)",
                    self.estimand,
                    self.seed,
                    value,
                    interval=config.interval,
                    advice=BY_OCCUPANCY,
                    diagnostics={**diagnostics, "mean_ratio": float(ratio.mean())},
                    seconds=seconds,
                    warnings=self._warnings(occupancies, place),
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

    def _occupancy(
        self, policies: Sequence[Policy], fold: int, progress: Progress
    ) -> OccupancyRatio:
        return fit_dice(
            *(self.data, policies, self.estimand),
            replace(self.config.dice, time=self.config.time),
            derive(self.seed, "ratio", str(fold)),
            episodes=self.folds[fold].train.tolist(),
            progress=progress,
        )

    def _warnings(self, occupancies: Sequence[OccupancyRatio], place: int) -> tuple[str, ...]:
        beyond = beyond_horizon(self.estimand, self.config.time)
        told: dict[str, None] = {}
        for occupancy in occupancies:
            told |= dict.fromkeys(occupancy.reports[place].warnings)
        return (*beyond, *(f"Of the occupancy ratio: {text}" for text in told))


class CorrectedModel:
    """The model's value plus its mean temporal-difference error on the log, under ω = d^π / d^D.

        v̂ = E[V̂(s_0)] + 1 / (1 − γ) E_D[ω(s, a) (r + γ (1 − terminated) V̂(s') − Q̂(s, a))]

    or, over T steps, v̂ = E[V̂_0(s_0)] + Σ_t γ^t E_{D_t}[ω_t (r + γ (1 − terminated) V̂_{t+1} − Q̂_t)].
    Q̂ and V̂ are the model's own, simulated with common random numbers; in the first form over T
    steps too, which leaves out what is of order γ^T. ω comes from DICE, so it is
    doubly robust: right if the model is, or if ω is. It takes no products over steps, so its noise
    does not grow with them.

    Model and ratio are cross-fitted by episode. A ratio is trained for every policy in `estimate`,
    policies given together at once.

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

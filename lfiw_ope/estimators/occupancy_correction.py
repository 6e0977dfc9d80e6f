"""Corrections by an occupancy ratio, which has no products over steps.

Over T steps, with ω_t = d_t^π / d_t^D and δ the temporal-difference error of Q̂ and V̂,

    v = E[V̂_0(s_0)] + Σ_t γ^t E_{D_t}[ω_t δ_t],

and where the horizon is infinite, with ω = d^π / d^D of the discounted, normalised occupancy,

    v = E[V̂(s_0)] + 1 / (1 − γ) E_D[ω δ].

A transition into a terminal state has δ = r − Q̂, and the state itself δ = 0, so that ω of what
lies beyond is never wanted. If ω is right the value is, whatever Q̂ is; if Q̂ is right it is,
whatever ω is; the error is a product of the two's (Kallus and Uehara 2022; Tang et al. 2020).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.policy_batch import group_policies
from lfiw_ope.core.protocols import ActionValue, Dynamics, Policy, Progress, silent
from lfiw_ope.core.seeding import torch_generator
from lfiw_ope.data.censoring import PaddedEpisodes
from lfiw_ope.data.tensors import DeviceLog, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics.rollout import simulate
from lfiw_ope.estimators.cross_fitting import Fold, temporal_differences
from lfiw_ope.estimators.doubly_robust_terms import CorrectedValue, Terms, corrected, doubly_robust
from lfiw_ope.estimators.warnings import SURPRISING
from lfiw_ope.ratios.classifier import ClassifierConfig
from lfiw_ope.ratios.density_ratio import DensityRatio, fit_density_ratio
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


MOST_OFF = 0.2
"""How far from 1 the mean of a ratio may be before it is told of, however well it is known."""

MOST_VISITS = 1 << 16
"""Simulated, and logged, steps of one policy that its classifier is fitted to."""


@dataclass(frozen=True)
class ClassifiedOccupancy:
    """ω of P policies from one classifier ensemble each.

    Attributes:
        ratios: P density ratios of visits, whose samples are (s, a), or (s, a, t / T).
        log_mass: `[P, T]` float64, what takes the ratio of two normalised sets of visits to that
            of occupancies at each step: over T steps, log of A_π N / (c_t Σ_u n_u), with A_π the
            mean number of steps that a rollout lives, n_u the episodes that take step u, and c_t
            the standing of those that take step t (`lfiw_ope.data.censoring`); without time, `[P,
            1]`, log of (1 − γ) E[Σ_t γ^t alive_t].
    """

    ratios: tuple[DensityRatio, ...]
    log_mass: Tensor
    horizon: int | None

    def mass(self, step: Tensor) -> Tensor:
        """`[P, n]` float64, ω's mean over logged steps t `[n]` where it is right."""
        place = torch.zeros_like(step) if self.horizon is None else step
        return self.log_mass[:, place].exp()

    @torch.no_grad()
    def ratio(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """ω `[P, n]` float64 at states `[n, S]`, actions `[n, A]` and steps t `[n]`."""
        visits = _visits(state, action, step, self.horizon)
        place = torch.zeros_like(step) if self.horizon is None else step
        found = torch.stack([ratio.log_ratio(visits).double() for ratio in self.ratios])
        return (found + self.log_mass.to(found.device)[:, place]).exp()


def mean_ratio_warning(density_ratio: Tensor, episode: Tensor) -> list[str]:
    """What to say of density ratios `[R']` of logged steps, whose mean is 1 if they are right.

    Args:
        density_ratio: ω over its mass.
        episode: `[R']` int64, of each step; steps of one episode depend on each other.
    """
    mean = float(density_ratio.mean())
    of_episode = torch.zeros(int(episode.max()) + 1, dtype=torch.float64)
    of_episode.index_add_(0, episode, density_ratio - mean)
    error = float(of_episode.square().sum().sqrt()) / len(density_ratio)
    if not abs(mean - 1.0) > max(MOST_OFF, SURPRISING * error):
        return []
    return [
        f"The classifier's occupancy ratio, less what terminal states hold, averages {mean:.2f} ± "
        f"{error:.2g} over the log, and 1 is expected: it is far off, and the correction with it; "
        "train the classifiers longer, or use ratio='dice'."
    ]


def _visits(state: Tensor, action: Tensor, step: Tensor, horizon: int | None) -> Tensor:
    """`[n, D]`; time is a feature where there is a horizon."""
    parts = [state, action]
    if horizon is not None:
        parts.append((step / horizon).to(state.dtype)[:, None])
    return torch.cat(parts, -1)


class _Visits:
    """A watch of a simulation, which keeps what its first rollouts did."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, t: int, state: Tensor, action: Tensor, alive: Tensor) -> None:  # noqa: ARG002
        # Rollouts are independent and alike: the first are as good as any.
        some = slice(self.kept)
        self.steps.append((state[:, some].clone(), action[:, some].clone(), alive[:, some].clone()))

    def of(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        """(states `[T, n, S]`, actions `[T, n, A]`, alive `[T, n]`) of one policy."""
        states, actions, alive = (
            torch.stack([step[i][place] for step in self.steps]) for i in range(3)
        )
        return states, actions, alive


def fit_visits(
    policies: Sequence[Policy],
    dynamics: Dynamics,
    initial_states: Tensor,
    log: DeviceLog,
    logged: LoggedSteps,
    train: Sequence[int],
    estimand: Estimand,
    config: ClassifierConfig,
    *,
    rollouts: int,
    seed: int,
    progress: Progress = silent,
) -> ClassifiedOccupancy:
    """Fit ω of every policy, from rollouts of it in a model and from logged episodes.

    Args:
        policies: P.
        dynamics: where the policies are simulated.
        initial_states: `[N, S]`, that rollouts start from.
        log: the log, on the device of all of it.
        logged: which of its rows count, and at which step; with `padded`, over T steps.
        train: the episodes that are learned from.
        estimand: T and γ.
        config: the classifiers.
        rollouts: of each policy.
        seed: of everything that is random; policies share it.
        progress: told how far the work is.
    """
    device, horizon = initial_states.device, estimand.horizon
    learned = torch.zeros(len(log.lengths), dtype=torch.bool)
    learned[list(train)] = True
    rows = learned[logged.episode].nonzero()[:, 0]
    rows = thin(rows, MOST_VISITS, torch_generator(seed, "visits", "logged"))
    there = log.at(logged.rows[rows].to(device))
    timed = None if logged.padded is None else horizon
    behind = _visits(there.state, there.action, logged.steps[rows].to(device), timed)
    ratios: list[DensityRatio | None] = [None] * len(policies)
    masses = torch.zeros((len(policies), timed or 1), dtype=torch.float64)
    kept = min(rollouts, max(1, MOST_VISITS // horizon))
    for group in group_policies(policies, device, 8):
        watch = _Visits(kept)
        simulate(
            group.policy,
            dynamics,
            initial_states,
            horizon=horizon,
            rollouts=rollouts,
            seed=seed,
            policies=len(group.indices),
            watch=watch,
        )
        for place, index in enumerate(group.indices):
            ahead, mass = _simulated(watch.of(place), estimand, timed, seed)
            ratios[index] = fit_density_ratio(
                ahead, behind, config, seed=seed, device=str(device), progress=progress
            )
            masses[index] = mass + _logged_mass(logged, learned)
    return ClassifiedOccupancy(tuple(one for one in ratios if one is not None), masses, timed)


def _simulated(
    visits: tuple[Tensor, Tensor, Tensor], estimand: Estimand, timed: int | None, seed: int
) -> tuple[Tensor, float]:
    """Samples `[n, D]` of where a policy goes, and the log of their mass.

    Without time, step t is kept with probability γ^t: what is kept is of the discounted occupancy.
    """
    state, action, alive = visits
    horizon, n = alive.shape
    step = torch.arange(horizon, device=alive.device)[:, None].expand(horizon, n)
    if timed is not None:
        mass = float(alive.sum()) / n
    else:
        weight = torch.tensor(estimand.discount, dtype=torch.float64) ** step.cpu()
        mass = (1.0 - estimand.discount) * float((weight * alive.cpu()).sum()) / n
        generator = torch_generator(seed, "visits", "discounting")
        drawn = torch.rand((horizon, n), dtype=torch.float64, generator=generator) < weight
        alive = alive & drawn.to(alive.device)
    return _visits(state[alive], action[alive], step[alive], timed), math.log(mass)


def _logged_mass(logged: LoggedSteps, learned: Tensor) -> Tensor:
    """`[T]`, log of N / (c_t Σ_u n_u) of the episodes learned from; `[1]`, 0, without time."""
    if logged.padded is None:
        return torch.zeros(1, dtype=torch.float64)
    taken, living = logged.padded.taken[learned], logged.padded.living
    living = torch.where(living > 0, living, 1.0)  # at steps that no episode takes
    return math.log(len(taken)) - (living * taken.sum()).log()

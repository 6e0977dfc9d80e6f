"""A value function corrected by an occupancy ratio: no products over steps.

Over T steps, with ω_t = d_t^π / d_t^D and δ the temporal-difference error of Q̂ and V̂,

    v = E[V̂_0(s_0)] + Σ_t γ^t E_{D_t}[ω_t δ_t],

and where the horizon is infinite, with ω = d^π / d^D of the discounted, normalised occupancy,

    v = E[V̂(s_0)] + 1 / (1 − γ) E_D[ω δ].

A transition into a terminal state has δ = r − Q̂, and the state itself δ = 0, so that ω of what
lies beyond is never wanted. If ω is right the value is, whatever Q̂ is; if Q̂ is right it is,
whatever ω is; the error is a product of the two's (Kallus and Uehara 2022; Tang et al. 2020).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lfiw_ope.data.tensors import DeviceLog, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.doubly_robust.folds import Fold, temporal_differences
from lfiw_ope.doubly_robust.terms import CorrectedValue, Terms, corrected, doubly_robust
from lfiw_ope.estimand import Estimand
from lfiw_ope.padding import PaddedEpisodes
from lfiw_ope.seeding import torch_generator
from lfiw_ope.types import ActionValue
from lfiw_ope.weights import effective_sample_size


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

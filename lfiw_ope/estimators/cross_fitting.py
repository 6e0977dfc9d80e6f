"""Cross-fitting by episode, and values in a dynamics model by rollouts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.policy_batch import PolicyGroup, group_policies
from lfiw_ope.core.protocols import ActionValue, Dynamics, Policy, Progress, Reward, Termination
from lfiw_ope.core.seeding import derive, numpy_generator
from lfiw_ope.data.censoring import PaddedEpisodes
from lfiw_ope.data.split import EpisodeSplit, require_episodes
from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics.ensemble import DynamicsConfig, EnsembleDynamics
from lfiw_ope.dynamics.rollout import ROWS_AT_ONCE, simulate
from lfiw_ope.dynamics.training import fit_dynamics


@dataclass(frozen=True, eq=False)
class Fold:
    """Episodes that something is fitted to, and those that it is used on."""

    train: NDArray[np.int64]
    judged: NDArray[np.int64]


def draw_folds(data: Trajectories, count: int, seed: int) -> tuple[Fold, ...]:
    """A random partition of the episodes; for `count` 1 everything is fitted to what it judges.

    Raises:
        DataError: if there are fewer than 2 episodes a fold, or one stands there twice.
    """
    require_episodes(data, max(4, 2 * count), "a value function is fitted to others than it judges")
    order = numpy_generator(seed, "folds").permutation(data.num_episodes)
    if count == 1:
        return (Fold(np.sort(order), np.sort(order)),)
    parts = np.array_split(order, count)
    return tuple(Fold(np.setdiff1d(order, part), np.sort(part)) for part in parts)


def fit_fold_dynamics(
    data: Trajectories,
    folds: Sequence[Fold],
    config: DynamicsConfig,
    seed: int,
    *,
    reward: Reward | None,
    termination: Termination | None,
    progress: Progress,
) -> tuple[EnsembleDynamics, ...]:
    """A dynamics ensemble for each fold, from the fold's training episodes alone.

    The arguments are `lfiw_ope.dynamics.fit_dynamics`'.
    """
    fitted = []
    for number, fold in enumerate(folds):
        of_fold = derive(seed, "fold", str(number))
        split = EpisodeSplit.draw(len(fold.train), of_fold, ratio_share=0.0)
        fitted.append(
            fit_dynamics(
                data,
                config,
                of_fold,
                train=fold.train[split.dynamics].tolist(),
                held_out=fold.train[split.dynamics_held_out].tolist(),
                reward=reward,
                termination=termination,
                progress=progress,
            )
        )
    return tuple(fitted)


@dataclass(frozen=True)
class JudgedRows:
    """The logged steps that a fold judges, as tensors.

    Attributes:
        episodes: `[n]` int64, the episodes that are judged.
        rows: `[R']` int64, their transitions within the horizon.
        steps: `[R']` int64, t of each.
    """

    episodes: Tensor
    rows: Tensor
    steps: Tensor

    @classmethod
    def of(cls, fold: Fold, padded: PaddedEpisodes) -> "JudgedRows":
        episodes = torch.from_numpy(fold.judged)
        taken = padded.taken[episodes]
        return cls(episodes, padded.row[episodes][taken], taken.nonzero()[:, 1])


@dataclass(frozen=True)
class Judged:
    """What value functions say of a log, each of the episodes that it did not see.

    Attributes:
        initial: `[P, N]` float64, V̂_0(s_0).
        residual: `[P, R]` float64, r + γ (1 − terminated) V̂_{t+1}(s') − Q̂_t(s, a) of the log's
            rows; 0 of those beyond the horizon.
    """

    initial: Tensor
    residual: Tensor


def judge(
    data: Trajectories,
    padded: PaddedEpisodes,
    folds: Sequence[Fold],
    value_of: Callable[[int], ActionValue],
    *,
    policies: int,
    discount: float,
    device: torch.device | str,
) -> Judged:
    """Ask each fold's value function about the fold's episodes.

    Args:
        data: the log.
        padded: its steps within the horizon.
        folds: who judges whom.
        value_of: gives fold k's value function of the P policies, when it is wanted.
        policies: P.
        discount: γ.
        device: where value functions are asked.
    """
    log = DeviceLog.of(data, device)
    initial = torch.zeros((policies, data.num_episodes), dtype=torch.float64)
    residual = torch.zeros((policies, data.num_transitions), dtype=torch.float64)
    for number, fold in enumerate(folds):
        value, judged = value_of(number), JudgedRows.of(fold, padded)
        at = torch.zeros(len(judged.episodes), dtype=torch.int64, device=log.first.device)
        starts = log.at(log.first[judged.episodes.to(at.device)]).state
        initial[:, judged.episodes] = value.state_value(starts, at).double().cpu()
        residual[:, judged.rows] = temporal_differences(
            value, log, judged.rows, judged.steps, discount
        )
    return Judged(initial, residual)


@torch.no_grad()
def temporal_differences(
    value: ActionValue, log: DeviceLog, rows: Tensor, steps: Tensor, discount: float
) -> Tensor:
    """`[P, R']` float64, on the CPU: r + γ (1 − terminated) V̂_{t+1}(s') − Q̂_t(s, a).

    A value function has all rows in one call, so that what is random in it can be shared by V̂ and
    Q̂ row by row (see `ModelValue`); it minds its own memory.
    """
    device = log.first.device
    logged, steps = log.at(rows.to(device)), steps.to(device)
    following = value.state_value(logged.next_state, steps + 1).double()
    following = torch.where(logged.terminated, 0.0, following)
    now = value.action_value(logged.state, logged.action, steps).double()
    return (logged.reward.double() + discount * following - now).cpu()


STATES_AT_ONCE = 10_000
"""Rollouts of one policy in one call. It decides which random numbers a row gets, so it depends on
neither the policies nor the memory."""

CELLS_AT_ONCE = 1 << 25
"""Rewards that one call keeps, rollouts times steps: about 200 MB."""


@dataclass(frozen=True)
class ModelValue:
    """An `ActionValue`: the mean simulated return over what remains of the horizon.

    Unbiased for the model's Q and V, with the noise of `rollouts` rollouts a row. Row by row, Q at
    (s, a, t) and V at (s', t + 1) use the same random numbers after the first transition, where two
    calls have as many rows: r + γ V(s') − Q(s, a) then has the noise of one step of the model, and
    little of the rollouts'.

    Attributes:
        groups: the policies, as they run together.
        dynamics: what is simulated.
        estimand: T and γ.
        rollouts: from each row.
        seed: of every draw.
    """

    groups: tuple[PolicyGroup, ...]
    dynamics: Dynamics
    estimand: Estimand
    rollouts: int
    seed: int

    @classmethod
    def of(
        cls,
        policies: Sequence[Policy],
        dynamics: Dynamics,
        estimand: Estimand,
        *,
        rollouts: int = 1,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> "ModelValue":
        """Of these policies, in this order."""
        cells = CELLS_AT_ONCE // estimand.horizon
        largest = max(1, min(ROWS_AT_ONCE, cells) // STATES_AT_ONCE)
        groups = tuple(group_policies(policies, device, largest))
        return cls(groups, dynamics, estimand, rollouts, seed)

    def action_value(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """Q `[P, n]` float64 at states `[n, S]`, actions `[n, A]` and steps t `[n]`."""
        return self._returns(state, action, self.estimand.horizon - step)

    def state_value(self, state: Tensor, step: Tensor) -> Tensor:
        """V `[P, n]` float64 at states `[n, S]` and steps t `[n]`; 0 at t = T."""
        return self._returns(state, None, self.estimand.horizon - step)

    def _returns(self, state: Tensor, action: Tensor | None, left: Tensor) -> Tensor:
        """`[P, n]`, mean discounted rewards of the first `left` steps.

        Rows go in order of what is left, so that few steps are simulated for nothing.
        """
        order = left.argsort(descending=True, stable=True)
        count = sum(len(group.indices) for group in self.groups)
        found = torch.zeros((count, len(state)), dtype=torch.float64, device=state.device)
        size = max(1, STATES_AT_ONCE // self.rollouts)
        for part, rows in enumerate(torch.split(order, size)):
            longest = int(left[rows[0]])
            if longest == 0:
                break  # and so for all that follow
            first = None if action is None else action[rows]
            seed = derive(self.seed, "model value", str(part))
            for group in self.groups:
                of_group = self._simulate(group, state[rows], first, left[rows], longest, seed)
                for place, index in enumerate(group.indices):
                    found[index, rows] = of_group[place]
        return found

    def _simulate(
        self,
        group: PolicyGroup,
        state: Tensor,
        action: Tensor | None,
        left: Tensor,
        longest: int,
        seed: int,
    ) -> Tensor:
        """`[P, n]` of one group, from all rows of one call."""
        several = self.rollouts
        rollout = simulate(
            group.policy,
            self.dynamics,
            state.repeat_interleave(several, 0),
            horizon=longest,
            rollouts=None,
            seed=seed,
            policies=len(group.indices),
            first_action=None if action is None else action.repeat_interleave(several, 0),
        )
        remaining = left.repeat_interleave(several)[:, None]
        counted = torch.arange(longest, device=state.device) < remaining
        returns = torch.where(counted, rollout.discounted(self.estimand.discount), 0.0).sum(-1)
        return returns.view(len(returns), -1, several).mean(-1)

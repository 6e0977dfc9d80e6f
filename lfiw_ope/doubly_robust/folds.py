"""Cross-fitting by episode: what judges an episode was fitted to others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.data.split import EpisodeSplit, require_episodes
from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import DynamicsConfig, EnsembleDynamics, fit_dynamics
from lfiw_ope.padding import PaddedEpisodes
from lfiw_ope.seeding import derive, numpy_generator
from lfiw_ope.types import ActionValue, Progress, Reward, Termination


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

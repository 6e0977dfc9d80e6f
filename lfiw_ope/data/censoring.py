"""Logged episodes side by side, `[N, T]`, with one convention for those that end early.

Of step t < T of an episode the log says one of three things:

- it was *taken*: there is a state, an action and a reward;
- the episode had *terminated*: nothing more is earned, so the reward is 0 and a weight that is a
  product over steps stays as it was (its further factors are 1);
- the log was *cut short* (a time limit, a crash, a shorter recording): what would have followed is
  not known. Such a step is unobserved, and no number stands in for it.

A mean over episodes at step t is over those that are observed at t: taken or terminated. They do
not all count the same. An episode that terminated early is observed for good, while one that lives
on can still be cut, so that the plain mean over the observed would have too many that terminated.
The *standing* of an episode at step t is its inverse probability of not having been cut before,
by the Kaplan-Meier estimate: when k of the m episodes that go on are cut, the standing of the other
m − k is multiplied by m / (m − k) (Efron 1967's redistribution to the right; Robins and Rotnitzky
1992). Standings sum to N at every step, and are 1 where nothing is cut.

So a mean over steps or over whole returns is right if, among the episodes that have come as far,
which ones are cut does not depend on what happened in them; the estimates count the cut ones.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.core.errors import DataError
from lfiw_ope.data.trajectories import Trajectories


@dataclass(frozen=True)
class PaddedEpisodes:
    """Which step of which episode is which row of the log, over the first T steps.

    Attributes:
        rewards: `[N, T]` float64, undiscounted; 0 where none was taken.
        taken: `[N, T]` bool, the log has this step.
        standing: `[N, T]` float64, what each episode counts at each step; 0 where it is unobserved.
        row: `[N, T]` int64, the transition's row in the log; 0 where none was taken.
    """

    rewards: Tensor
    taken: Tensor
    standing: Tensor
    row: Tensor

    @classmethod
    def of(cls, data: Trajectories, horizon: int) -> "PaddedEpisodes":
        """The first `horizon` steps of every episode.

        Raises:
            DataError: if the longest episodes were cut short of the horizon.
        """
        known = known_steps(data, horizon)
        if known < horizon:
            raise DataError(
                f"The longest logged episodes were cut short after step {known}, and the horizon "
                f"is {horizon}: the log does not say what follows. Estimate over a horizon of "
                f"{known} or less, or use an estimator that extrapolates (LFIW, ModelBased, FQE)."
            )
        taken = np.arange(horizon) < data.lengths[:, None]
        row = np.where(taken, data.offsets[:-1, None] + np.arange(horizon), 0)
        rewards = np.where(taken, data.rewards[row].astype(np.float64), 0.0)
        standing = _standing(taken, data.terminated)
        return cls(*(torch.from_numpy(array) for array in (rewards, taken, standing, row)))

    @property
    def observed(self) -> Tensor:
        """`[N, T]` bool, the log has this step, or the episode had terminated before."""
        return self.standing > 0

    @property
    def cut_short(self) -> int:
        """How many episodes end before the horizon without a terminal state."""
        return int((~self.observed[:, -1]).sum())

    @property
    def living(self) -> Tensor:
        """`[T]` float64, the standing of every episode that takes step t; 0 where none does."""
        return torch.where(self.taken, self.standing, 0.0).amax(0)

    def discounted(self, discount: float) -> Tensor:
        """`[N, T]`, γ^t r_t"""
        step = torch.arange(self.rewards.shape[1], dtype=torch.float64)
        return self.rewards * torch.tensor(discount, dtype=torch.float64) ** step

    def spread(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """What the log's rows have, `[..., R] -> [..., N, T]`; `fill` where no step was taken."""
        return torch.where(self.taken, values[..., self.row], fill)


def known_steps(data: Trajectories, horizon: int) -> int:
    """How far the log tells what happens: the horizon, or where its longest episodes were cut."""
    longest = int(data.lengths.max())
    cut = (data.lengths == longest) & ~data.terminated
    return min(horizon, longest) if cut.any() else horizon


def _standing(taken: NDArray[np.bool_], terminated: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`[N, T]`, from `[N, T]` and `[N]`."""
    last = taken.sum(1) - 1
    going_on = taken[:, 1:].sum(0)
    were_to = going_on + np.bincount(last[~terminated], minlength=taken.shape[1])[:-1]
    # Where none goes on all have terminated: a log that was cut there is refused.
    factor = np.divide(were_to, going_on, out=np.ones(len(going_on)), where=going_on > 0)
    living = np.concatenate(([1.0], factor.cumprod()))
    kept = np.where(terminated, living[last], 0.0)[:, None]
    return np.where(taken, living, kept)

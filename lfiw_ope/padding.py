"""Logged episodes side by side, `[N, T]`, with one convention for those that end early.

Of step t < T of an episode the log says one of three things:

- it was *taken*: there is a state, an action and a reward;
- the episode had *terminated*: nothing more is earned, so the reward is 0 and a weight that is a
  product over steps stays as it was (its further factors are 1);
- the log was *cut short* (a time limit, a crash, a shorter recording): what would have followed is
  not known. Such a step is unobserved, and no number stands in for it.

A mean over episodes at step t is over those that are observed at t: taken or terminated. A mean of
whole returns is over those that are observed at every step. Both are right if where a log was cut
does not depend on what happened in it; the estimates count such episodes and say so.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError


@dataclass(frozen=True)
class PaddedEpisodes:
    """Which step of which episode is which row of the log, over the first T steps.

    Attributes:
        rewards: `[N, T]` float64, undiscounted; 0 where none was taken.
        taken: `[N, T]` bool, the log has this step.
        observed: `[N, T]` bool, it has it, or the episode had terminated before.
        row: `[N, T]` int64, the transition's row in the log; 0 where none was taken.
    """

    rewards: Tensor
    taken: Tensor
    observed: Tensor
    row: Tensor

    @classmethod
    def of(cls, data: Trajectories, horizon: int) -> "PaddedEpisodes":
        """The first `horizon` steps of every episode.

        Raises:
            DataError: if no episode is observed at some step before the horizon.
        """
        step = np.arange(horizon)
        taken = step < data.lengths[:, None]
        observed = taken | data.terminated[:, None]
        if not observed.any(0).all():
            longest = int(observed.any(0).sum())
            raise DataError(
                f"Every logged episode was cut short by step {longest}, and the horizon is "
                f"{horizon}: the log does not say what follows. Estimate over a horizon of "
                f"{longest} or less, or use an estimator that extrapolates (LFIW, ModelBased, FQE)."
            )
        row = np.where(taken, data.offsets[:-1, None] + step, 0)
        rewards = np.where(taken, data.rewards[row].astype(np.float64), 0.0)
        return cls(*(torch.from_numpy(array) for array in (rewards, taken, observed, row)))

    @property
    def cut_short(self) -> int:
        """How many episodes end before the horizon without a terminal state."""
        return int((~self.observed[:, -1]).sum())

    def discounted(self, discount: float) -> Tensor:
        """`[N, T]`, γ^t r_t"""
        step = torch.arange(self.rewards.shape[1], dtype=torch.float64)
        return self.rewards * torch.tensor(discount, dtype=torch.float64) ** step

    def spread(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """What the log's rows have, `[..., R] -> [..., N, T]`; `fill` where no step was taken."""
        return torch.where(self.taken, values[..., self.row], fill)

    def mean(self, values: Tensor) -> Tensor:
        """`[..., N, T] -> [..., T]`, over the episodes that are observed at each step."""
        return torch.where(self.observed, values, 0.0).sum(-2) / self.observed.sum(0)

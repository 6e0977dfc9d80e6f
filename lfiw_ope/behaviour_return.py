"""What the log itself says: the mean return of the policy that made it."""

from dataclasses import dataclass

import torch

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimand import Estimand
from lfiw_ope.padding import PaddedEpisodes, known_steps
from lfiw_ope.weighted import WeightedValue, weigh
from lfiw_ope.weighting import Weighting


@dataclass(frozen=True)
class BehaviourReturn:
    """The mean return of the policy that made the log; `lfiw_ope.padding` has the convention.

    v(μ) = Σ_{t<T} γ^t · the mean reward at t, over episodes by their standing

    Attributes:
        mean: over the estimand's horizon, discounted, as far as the log goes.
        standard_error: of the mean, over episodes; None where a step is observed in only one, or
            fewer than ten effective ones stand for the others.
        episodes: N.
        cut_short: episodes whose log ends before the horizon without a terminal state.
        steps: of the horizon that the log knows; after them its longest episodes were cut.
    """

    mean: float
    standard_error: float | None
    episodes: int
    cut_short: int
    steps: int

    @classmethod
    def of(cls, data: Trajectories, estimand: Estimand) -> "BehaviourReturn":
        steps = known_steps(data, estimand.horizon)
        found = mean_return(PaddedEpisodes.of(data, steps), estimand.discount)
        cut = (data.lengths < estimand.horizon) & ~data.terminated
        return cls(found.value, found.mc_standard_error, data.num_episodes, int(cut.sum()), steps)


def mean_return(padded: PaddedEpisodes, discount: float) -> WeightedValue:
    """The behaviour's own return: each step's mean reward over episodes, by their standing."""
    equal = torch.zeros_like(padded.rewards)
    return weigh(
        padded.discounted(discount),
        equal,
        Weighting(form="stepwise"),
        standing=padded.standing,
        keep_sums=True,
    )

"""Do known rules say what the log says? A wrapper, or another version, makes them those of another
environment."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.core.protocols import Reward, Termination
from lfiw_ope.core.seeding import torch_generator
from lfiw_ope.data.tensors import DeviceLog, TransitionTensors, thin
from lfiw_ope.data.trajectories import Trajectories

LOOKED_AT = 1 << 16
"""Transitions that are compared, drawn at random where there are more."""

TOLERANCE = 1e-3
"""Relative to max(1, |r|): a hundred times what float32 costs the worst of the known rewards."""

MOST_DIFFERING = 1e-3
"""The share of transitions where an exact rule may differ: a few that float32 puts on the other
side of a threshold."""


@dataclass(frozen=True)
class Agreement:
    """How known rules compare with the log, transition by transition.

    Attributes:
        transitions: that were compared.
        terminations: the share where the rule says otherwise; None without a rule.
        rewards: the share where the reward is off by more than `TOLERANCE`; None without one.
        worst: the largest error of the reward, in units of reward; None without one.
    """

    transitions: int
    terminations: float | None
    rewards: float | None
    worst: float | None

    @property
    def termination_agrees(self) -> bool:
        return self.terminations is None or self.terminations <= MOST_DIFFERING

    @property
    def reward_agrees(self) -> bool:
        return self.rewards is None or self.rewards <= MOST_DIFFERING

    def __str__(self) -> str:
        parts = []
        if not self.termination_agrees:
            parts.append(f"the termination rule in {self.terminations:.2%}")
        if not self.reward_agrees:
            parts.append(f"the reward in {self.rewards:.2%}, by up to {self.worst:.3g},")
        if not parts:
            return f"they agree with the {self.transitions} logged transitions compared"
        return f"{' and '.join(parts)} of {self.transitions} logged transitions differ"


@torch.no_grad()
def compare_rules(
    data: Trajectories, *, reward: Reward | None = None, termination: Termination | None = None
) -> Agreement:
    """Evaluate known rules on logged transitions and compare with what was logged.

    Args:
        data: the log.
        reward: as it would be given to an estimator.
        termination: likewise.
    """
    log = DeviceLog.of(data, "cpu")
    every = torch.arange(data.num_transitions)
    rows = thin(every, LOOKED_AT, torch_generator(0, "agreement"))
    ended, off, errors = 0, 0, [0.0]
    for some in log.chunks(rows):
        given = some.state, some.action, some.next_state
        if termination is not None:
            ended += int((termination(*given) != some.terminated).sum())
        if reward is not None:
            error, wrong = _reward_error(reward(*given), some)
            off += wrong
            errors.append(error)
    count = len(rows)
    return Agreement(
        transitions=count,
        terminations=None if termination is None else ended / count,
        rewards=None if reward is None else off / count,
        worst=None if reward is None else float(np.max(errors)),
    )


def _reward_error(said: Tensor, rows: TransitionTensors) -> tuple[float, int]:
    """The largest error, and how many are beyond the tolerance; NaN is."""
    error = (said.double() - rows.reward.double()).abs()
    allowed = TOLERANCE * rows.reward.double().abs().clamp_min(1.0)
    return float(error.nan_to_num(torch.inf).max()), int((~(error <= allowed)).sum())

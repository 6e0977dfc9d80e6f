"""Some logged transitions, in two halves that share no episode."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.data.tensors import DeviceLog, TransitionTensors, thin
from lfiw_ope.seeding import numpy_generator, torch_generator

STOPPING = 5
"""One in so many episodes of a half stops the training that learns from the others."""


class Half(NamedTuple):
    """Logged transitions of some episodes.

    Attributes:
        learned: `[n]`, what a training learns from.
        stopping: `[m]`, of other episodes, that it is stopped by; of the same ones where there is
            a single episode.
    """

    learned: TransitionTensors
    stopping: TransitionTensors

    @property
    def state(self) -> Tensor:
        """`[n + m, S]`"""
        return torch.cat((self.learned.state, self.stopping.state))

    @property
    def action(self) -> Tensor:
        """`[n + m, A]`"""
        return torch.cat((self.learned.action, self.stopping.action))


def draw_halves(log: DeviceLog, transitions: int, seed: int) -> tuple[Half, Half]:
    """Two halves of the episodes, with as many transitions in either part of one as of the other.

    Args:
        log: of two episodes or more.
        transitions: in all, at most.
        seed: of what is drawn.
    """
    order = numpy_generator(seed, "diagnosis", "halves").permutation(len(log.first))
    drawing = torch_generator(seed, "diagnosis", "rows", device=log.rewards.device)
    parts: list[list[Tensor]] = [[], []]
    for half in np.array_split(order, 2):
        stopping = max(1, len(half) // STOPPING)
        learned = half[stopping:] if len(half) > 1 else half
        for part, episodes in zip(parts, (learned, half[:stopping]), strict=True):
            part.append(log.rows_of(episodes.tolist()))
    of_half = max(2, transitions // 2)
    most = (of_half - of_half // STOPPING, of_half // STOPPING)
    rows = []
    for part, limit in zip(parts, most, strict=True):
        count = min(limit, *(len(one) for one in part))
        rows.append([thin(one, max(1, count), drawing) for one in part])
    one, other = (Half(*(log.at(part[which]) for part in rows)) for which in (0, 1))
    return one, other

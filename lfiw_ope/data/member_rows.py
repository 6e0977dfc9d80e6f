"""Which logged transitions each member of an ensemble learns from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.seeding import numpy_generator

MANY_ROWS = 1 << 48
"""Rows that the loop draws from where members have samples of their own. These are of different
sizes, and a drawn number goes into each by its remainder: over a range so large, every row is as
likely as any other."""


class MemberRows(NamedTuple):
    """The transitions that each of M members learns from, one member's after the other's.

    Attributes:
        rows: `[Σ R_m]`, rows of the log; `[R]` where all members share them.
        begin: `[M, 1]`, where each member's begin.
        size: `[M, 1]`, R_m.
        below: what numbers to pick by are drawn below.
    """

    rows: Tensor
    begin: Tensor
    size: Tensor
    below: int

    @classmethod
    def of(cls, log: DeviceLog, episodes: Sequence[Sequence[int]]) -> "MemberRows":
        """Of each member's own episodes."""
        parts = [log.rows_of(chosen) for chosen in episodes]
        size = torch.tensor([[len(part)] for part in parts], device=log.rewards.device)
        return cls(torch.cat(parts), size.cumsum(0) - size, size, MANY_ROWS)

    @classmethod
    def shared(cls, rows: Tensor, members: int) -> "MemberRows":
        """All members learn from the same rows, which stand there once."""
        begin = torch.zeros((members, 1), dtype=torch.int64, device=rows.device)
        return cls(rows, begin, torch.full_like(begin, len(rows)), len(rows))

    def pick(self, drawn: Tensor) -> Tensor:
        """Rows of the log `[M, B]` from numbers drawn below `below`."""
        return self.rows[self.begin + drawn % self.size]


def leave_group_out(
    episodes: NDArray[np.int64], members: int, seed: int, stream: str
) -> list[list[int]]:
    """The episodes of each member: all but a group of its own, 1/M of them at random.

    A single member, or a single episode, has all of them.

    Args:
        episodes: to choose from.
        members: M.
        seed: of the groups.
        stream: the name of what is fitted; each draws its own.
    """
    groups = left_out_groups(episodes, members, seed, stream)
    return [np.setdiff1d(episodes, group).tolist() for group in groups]


def left_out_groups(
    episodes: NDArray[np.int64], members: int, seed: int, stream: str
) -> list[list[int]]:
    """The group that each member leaves out; nothing for a single member, or of a single episode.

    The arguments are `leave_group_out`'s.
    """
    if members == 1 or len(episodes) < 2:
        return [[]] * members
    order = numpy_generator(seed, stream, "groups").permutation(episodes)
    return [group.tolist() for group in np.array_split(order, members)]


def bootstrapped(
    episodes: NDArray[np.int64], members: int, seed: int, stream: str
) -> list[list[int]]:
    """The episodes of each member: drawn with replacement, or all of them for a single one.

    Args:
        episodes: to draw from.
        members: M.
        seed: of the draws.
        stream: the name of what is fitted; each draws its own.
    """
    if members == 1:
        return [episodes.tolist()]
    rng = numpy_generator(seed, stream, "episodes")
    return [rng.choice(episodes, len(episodes)).tolist() for _ in range(members)]

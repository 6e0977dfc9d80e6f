"""Logged transitions on a device, and which of them each ensemble member learns from."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.core.seeding import numpy_generator
from lfiw_ope.data.trajectories import Trajectories

ROWS_AT_ONCE = 1 << 13
"""Transitions handled together where all are passed through: bounds the memory it takes."""


class TransitionTensors(NamedTuple):
    """Some logged transitions; also a `Transition` of their own."""

    state: Tensor  # [..., S]
    action: Tensor  # [..., A]
    reward: Tensor  # [...]
    next_state: Tensor  # [..., S]
    terminated: Tensor  # [...] bool
    bounded: Tensor  # [...] bool, all False


class DeviceLog(NamedTuple):
    """A log's arrays on a device. On the CPU they are the log's own memory, not a copy.

    A state and its successor stand next to each other, so that neither needs a second copy: what a
    transition costs is its row here and its index there.
    """

    states: Tensor  # [R + N, S]
    actions: Tensor  # [R, A]
    rewards: Tensor  # [R]
    terminated: Tensor  # [R] bool
    state_row: Tensor  # [R] int64, where each transition's state stands
    first: Tensor  # [N] int64, each episode's first transition
    lengths: Tensor  # [N] int64

    @classmethod
    def of(cls, data: Trajectories, device: torch.device | str) -> "DeviceLog":
        terminated = np.zeros(data.num_transitions, bool)
        terminated[data.offsets[1:] - 1] = data.terminated
        episode = np.repeat(np.arange(data.num_episodes), data.lengths)
        arrays = (
            *(data.states, data.actions, data.rewards, terminated),
            *(np.arange(data.num_transitions) + episode, data.offsets[:-1], data.lengths),
        )
        # torch takes no array that may not be written to, such as a file mapped into memory.
        owned = (array if array.flags.writeable else array.copy() for array in arrays)
        return cls(*(torch.from_numpy(array).to(device) for array in owned))

    def rows_of(self, episodes: Sequence[int]) -> Tensor:
        """`[R']` int64, the transitions of these episodes, in this order."""
        chosen = torch.as_tensor(list(episodes), dtype=torch.int64, device=self.first.device)
        lengths = self.lengths[chosen]
        ends = lengths.cumsum(0)
        begins = torch.repeat_interleave(self.first[chosen] - ends + lengths, lengths)
        return begins + torch.arange(len(begins), device=begins.device)

    def at(self, rows: Tensor) -> TransitionTensors:
        """The transitions with these indices, in the indices' shape."""
        flat = rows.flatten()
        state_row = self.state_row.index_select(0, flat)
        state, next_state = (self.states.index_select(0, state_row + i) for i in (0, 1))
        action = self.actions.index_select(0, flat)
        terminated = self.terminated.index_select(0, flat)
        return TransitionTensors(
            state.view(*rows.shape, state.shape[-1]),
            action.view(*rows.shape, action.shape[-1]),
            self.rewards.index_select(0, flat).view(rows.shape),
            next_state.view(*rows.shape, state.shape[-1]),
            terminated.view(rows.shape),
            torch.zeros_like(terminated).view(rows.shape),
        )

    def chunks(self, rows: Tensor) -> Iterator[TransitionTensors]:
        """The transitions with these indices `[R']`, some at a time."""
        return (self.at(some) for some in torch.split(rows, ROWS_AT_ONCE))

    def inputs(self, rows: Tensor) -> Iterator[Tensor]:
        """`[·, S + A]`, states and actions of these transitions, some at a time."""
        return (torch.cat((some.state, some.action), -1) for some in self.chunks(rows))


def thin(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` of these rows, drawn without replacement and kept in order.

    Drawn, and not spaced evenly: a spacing that shares a factor with the episodes' length would
    see some of their steps and never the others.
    """
    if len(rows) <= most:
        return rows
    order = torch.randperm(len(rows), generator=generator, device=rows.device)
    return rows[order[:most].sort().values]


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

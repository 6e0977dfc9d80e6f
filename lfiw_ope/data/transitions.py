"""Logs that hold one row a transition: their episodes are found, then read a chunk at a time.

Such a log keeps R observations, not R + N: the state that an episode's last transition led to is
in it only where it keeps next observations too. Where it does not, that transition is left out and
its own observation becomes the episode's last state; no state is ever made up.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import DataError, warn
from lfiw_ope.data.trajectories import (
    Column,
    EpisodeStorage,
    FloatArray,
    Trajectories,
    chunks,
    rows_of,
)

ROUNDING = 1e-6
"""Eight times what float32 rounds, relatively."""


class Encoding(NamedTuple):
    """How logged observations and actions become rows of numbers.

    Attributes:
        flatten: observations of some rows as states `[rows, S]`.
        encode: actions of some rows as `[rows, A]`.
        state_size: S.
        action_spec: what an action is.
    """

    flatten: Callable[[Any], FloatArray]
    encode: Callable[[Any], FloatArray]
    state_size: int
    action_spec: ActionSpec


@dataclass(frozen=True, kw_only=True)
class TransitionLog:
    """R transitions in time order, episode after episode, not yet read.

    Attributes:
        source: what it is, for messages.
        observations: a `Column` `[R, ...]`, or a dict or tuple of them.
        actions: `[R, ...]`.
        rewards: `[R]` or `[R, 1]`.
        terminated: `[R]` bool, the transition led to a terminal state.
        truncated: `[R]` bool, the log of the episode ends here though it was not terminal.
        read_as: what observations and actions mean.
        next_observations: like `observations`, or None where the log keeps none.
        log_prob: `[R]` or None.
        proposed_actions: `[R, A]` or None.
        headless: `[k]`, the first row of each episode whose beginning is not in the log.
        env_id: the Gymnasium id of the environment, where known.
        env_kwargs: what `gymnasium.make` was given beside the id.
    """

    source: str
    observations: Any
    actions: Column
    rewards: Column
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    read_as: Encoding
    next_observations: Any = None
    log_prob: Column | None = None
    proposed_actions: Column | None = None
    headless: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    env_id: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def chunks(self, first: int, last: int) -> Iterator[slice]:
        """Consecutive rows of [first, last), a chunk at a time."""
        return chunks(first, last, 4 * max(self.read_as.state_size, self.read_as.action_spec.size))


def read_transitions(
    log: TransitionLog,
    *,
    episodes: int | None = None,
    drop_terminal: bool = False,
    keep_partial: bool = False,
) -> Trajectories:
    """The episodes of a log of transitions.

    Args:
        log: what to read.
        episodes: how many to keep, the first ones; all where None.
        drop_terminal: leave out terminal transitions whose next state the log does not keep.
        keep_partial: keep episodes whose beginning is not in the log.

    Raises:
        DataError: if terminal transitions have no next state and `drop_terminal` does not allow
            to leave them out, or no episode is left.
        InsufficientMemoryError: if the episodes would not fit.
    """
    plan = _plan(log, drop_terminal, keep_partial).where(slice(episodes))
    storage = EpisodeStorage(
        plan.lengths,
        log.read_as.state_size,
        log.read_as.action_spec,
        source=log.source,
        log_prob=log.log_prob is not None,
        proposed_actions=log.proposed_actions is not None,
    )
    _fill(storage, log, plan.starts)
    return storage.trajectories(
        plan.terminated, plan.truncated, env_id=log.env_id, env_kwargs=log.env_kwargs
    )


def find_breaks(log: TransitionLog, tolerance: float) -> NDArray[np.int64]:
    """Rows that do not end an episode though the next row does not begin where they led to.

    Args:
        log: with next observations.
        tolerance: how far two states may be apart, in standard deviations of the rows that are
            read together; beside it float32 may round, where it is not 0.
    """
    flatten = log.read_as.flatten
    found = [np.empty(0, np.int64)]
    for rows in log.chunks(0, log.terminated.size - 1):
        led_to = flatten(rows_of(log.next_observations, rows))
        begins = flatten(rows_of(log.observations, slice(rows.start + 1, rows.stop + 1)))
        # Not relative to the states' size alone: where that is large, a reset would be small.
        room = tolerance * begins.std(0, dtype=np.float64) if tolerance else 0.0
        rounding = ROUNDING if tolerance else 0.0
        apart = ~np.isclose(led_to, begins, rtol=rounding, atol=room, equal_nan=True).all(1)
        ends = log.terminated[rows] | log.truncated[rows]
        found.append(rows.start + np.flatnonzero(apart & ~ends))
    return np.concatenate(found)


class _Plan(NamedTuple):
    """The N episodes to keep: first row in the log, transitions kept, how they end."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    def where(self, kept: NDArray[np.bool_] | slice) -> "_Plan":
        return _Plan(
            self.starts[kept], self.lengths[kept], self.terminated[kept], self.truncated[kept]
        )


def _plan(log: TransitionLog, drop_terminal: bool, keep_partial: bool) -> _Plan:
    rows = log.terminated.size
    if rows == 0:
        raise DataError(f"{log.source} holds no transition; at least one is needed.")
    ends = np.flatnonzero(log.terminated | log.truncated)
    if ends.size == 0 or ends[-1] != rows - 1:
        ends = np.append(ends, rows - 1)  # where the log stops, the last episode is cut
    starts = np.concatenate(([0], ends[:-1] + 1))
    terminated = log.terminated[ends]
    plan = _Plan(starts, ends - starts + 1, terminated, log.truncated[ends] | ~terminated)
    if not keep_partial:
        plan = _without_headless(plan, log)
    if log.next_observations is None:
        plan = _without_last(plan, log.source, drop_terminal)
    return plan


def _without_headless(plan: _Plan, log: TransitionLog) -> _Plan:
    """Episodes whose first state is an initial state."""
    partial = np.isin(plan.starts, log.headless)
    if not partial.any():
        return plan
    if partial.all():
        raise DataError(
            f"{log.source} holds the beginning of no episode; keep_partial=True keeps the rest of "
            "those that it holds, and takes their first states for initial states."
        )
    warn(
        f"{log.source}: {int(partial.sum())} episodes, with {int(plan.lengths[partial].sum())} "
        "transitions, were left out, because their beginning is not in it and their first state is "
        "no initial state; keep_partial=True keeps them."
    )
    return plan.where(~partial)


def _without_last(plan: _Plan, source: str, drop_terminal: bool) -> _Plan:
    """Episodes without the transition whose next state is unknown, which makes them truncated."""
    terminal = int(plan.terminated.sum())
    if terminal and not drop_terminal:
        raise DataError(
            f"{source} keeps no next observations, so the states that {terminal} terminal "
            "transitions led to are unknown; drop_terminal=True leaves those transitions out and "
            "counts their episodes as truncated, and termination must then be given as a rule."
        )
    long_enough = plan.lengths > 1
    short = int((~long_enough).sum())
    if not long_enough.any():
        raise DataError(
            f"{source} keeps no next observations, and none of its {short} episodes has the two "
            "rows that one transition with its next state needs."
        )
    of_those = f", {terminal} of them terminal with their rewards" if terminal else ""
    warn(
        f"{source} keeps no next observations: the last transition of each of its "
        f"{plan.lengths.size} episodes was left out{of_those}, because the state that it led to is "
        f"unknown{f'; {short} episodes had no other' if short else ''}."
    )
    return plan._replace(
        lengths=plan.lengths - 1,
        terminated=np.zeros_like(plan.terminated),
        truncated=np.ones_like(plan.truncated),
    ).where(long_enough)


def _fill(storage: EpisodeStorage, log: TransitionLog, starts: NDArray[np.int64]) -> None:
    """Each row of the log to its place: rows are read in order, once, a chunk at a time."""
    flatten, encode = log.read_as.flatten, log.read_as.encode
    lengths = storage.lengths
    keeps_next = log.next_observations is not None
    last_row = int(starts[-1] + lengths[-1]) + (not keeps_next)
    for rows in log.chunks(int(starts[0]), last_row):
        row = np.arange(rows.start, rows.stop)
        episode = np.searchsorted(starts, row, side="right") - 1
        step = row - starts[episode]
        kept = step < lengths[episode]
        to = (storage.offsets[episode] + step)[kept]
        storage.actions[to] = encode(log.actions[rows])[kept]
        storage.rewards[to] = np.reshape(log.rewards[rows], -1)[kept]
        if storage.log_prob is not None and log.log_prob is not None:
            storage.log_prob[to] = np.reshape(log.log_prob[rows], -1)[kept]
        if storage.proposed_actions is not None and log.proposed_actions is not None:
            drawn = np.asarray(log.proposed_actions[rows])
            storage.proposed_actions[to] = drawn.reshape(len(drawn), -1)[kept]
        place = storage.state_offsets[episode] + step
        is_state = kept if keeps_next else step <= lengths[episode]
        storage.states[place[is_state]] = flatten(rows_of(log.observations, rows))[is_state]
        if keeps_next:
            final = step == lengths[episode] - 1
            led_to = flatten(rows_of(log.next_observations, rows))
            storage.states[place[final] + 1] = led_to[final]

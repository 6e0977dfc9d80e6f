"""Where readers put episodes: arrays allocated once, at the size that is kept."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.data.chunks import chunks
from lfiw_ope.data.memory import check_fits
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError

ROUNDING = 1e-5
"""An action past a bound by this, relatively, is at the bound: scaling it in float32 does that."""


HELD_WHOLE = 7
"""Times its float32 arrays that an episode takes while it is read whole: in float64, as the rows
that Arrow gives and as the array that they are stacked to, and what else is made of them;
measured at 32,000 steps."""


class EpisodeStorage:
    """The arrays of N episodes whose lengths are known, to be filled in any order.

    Attributes:
        states: `[R + N, S]` float32.
        actions: `[R, A]` float32.
        rewards: `[R]` float32.
        log_prob: `[R]` float32, or None where it is not carried.
        proposed_actions: `[R, A]` float32, or None where they are not carried.
        offsets: `[N + 1]`, the first transition of each episode, and R.
        state_offsets: `[N + 1]`, the first state of each episode, and R + N.

    Args:
        lengths: `[N]`, the transitions of each episode.
        state_size: S.
        action_spec: what an action is.
        source: what the episodes are read from, for messages.
        log_prob: whether log-probabilities are carried.
        proposed_actions: whether the behaviour's own draws are carried.
        whole_episodes: whether an episode is held whole while it is read.

    Raises:
        InsufficientMemoryError: if the arrays would not fit into the memory that is free.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        state_size: int,
        action_spec: ActionSpec,
        *,
        source: str,
        log_prob: bool = False,
        proposed_actions: bool = False,
        whole_episodes: bool = False,
    ) -> None:
        width = action_spec.size
        per_transition = width * (1 + proposed_actions) + 1 + log_prob
        needed = 4 * ((lengths + 1) * state_size + lengths * per_transition)
        beside = HELD_WHOLE * int(needed.max(initial=0)) if whole_episodes else 0
        check_fits(needed, source, beside=beside)
        self.lengths, self.action_spec, self.source = lengths, action_spec, source
        self.offsets = np.concatenate(([0], np.cumsum(lengths)))
        self.state_offsets = self.offsets + np.arange(lengths.size + 1)
        rows = int(self.offsets[-1])
        self.states = np.empty((rows + lengths.size, state_size), np.float32)
        self.actions = np.empty((rows, width), np.float32)
        self.rewards = np.empty(rows, np.float32)
        self.log_prob = np.empty(rows, np.float32) if log_prob else None
        self.proposed_actions = np.empty((rows, width), np.float32) if proposed_actions else None

    def trajectories(
        self,
        terminated: ArrayLike,
        truncated: ArrayLike,
        *,
        env_id: str | None,
        env_kwargs: Mapping[str, Any],
    ) -> Trajectories:
        """The filled arrays, checked.

        Raises:
            DataError: if there is no episode, a number is not finite, or an action lies outside
                its bounds.
        """
        self._check_bounds()
        return Trajectories(
            states=self.states,
            actions=self.actions,
            rewards=self.rewards,
            lengths=self.lengths,
            terminated=np.asarray(terminated, bool),
            truncated=np.asarray(truncated, bool),
            action_spec=self.action_spec,
            log_prob=self.log_prob,
            proposed_actions=self.proposed_actions,
            env_id=env_id,
            env_kwargs=env_kwargs,
        )

    def _check_bounds(self) -> None:
        spec = self.action_spec
        if spec.kind == "discrete" or not np.isfinite((spec.low, spec.high)).any():
            return
        low, high = np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)
        least = low - ROUNDING * np.maximum(1.0, np.abs(low))
        most = high + ROUNDING * np.maximum(1.0, np.abs(high))
        outside, farthest = 0, 0.0
        for rows in chunks(0, len(self.actions), 4 * spec.size):
            actions = self.actions[rows]
            beyond = np.isfinite(actions) & ((actions < least) | (actions > most))
            if beyond.any():
                outside += int(beyond.sum())
                ends = (float(actions[beyond].min()), float(actions[beyond].max()))
                farthest = max(farthest, *ends, key=abs)
        if outside:
            raise DataError(
                f"{outside / self.actions.size:.1%} of the action entries of {self.source} lie "
                f"outside the action space's bounds, as far as {farthest:g}. Draws that were not "
                "clipped yet are given as proposed_actions beside the clipped actions; scaled "
                "actions in the environment's units."
            )

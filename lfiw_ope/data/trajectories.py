"""Logged episodes, stored flat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfiw_ope.errors import DataError

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ActionSpec:
    """What an action is.

    Attributes:
        kind: "continuous" (a vector in the environment's units) or "discrete" (one-hot).
        size: A, the entries of an action.
        low: A lower bounds of a continuous action, -inf where it has none; empty if discrete.
        high: A upper bounds, likewise.
    """

    kind: Literal["continuous", "discrete"]
    size: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def continuous(cls, low: ArrayLike, high: ArrayLike) -> "ActionSpec":
        lows, highs = np.ravel(np.asarray(low, float)), np.ravel(np.asarray(high, float))
        return cls("continuous", lows.size, tuple(lows.tolist()), tuple(highs.tolist()))

    @classmethod
    def discrete(cls, n: int) -> "ActionSpec":
        return cls("discrete", n)


class TransitionArrays(NamedTuple):
    """All R transitions of a data set, one a row, in logged order."""

    state: FloatArray  # [R, S]
    action: FloatArray  # [R, A]
    reward: FloatArray  # [R]
    next_state: FloatArray  # [R, S]
    terminated: NDArray[np.bool_]  # [R]
    episode: NDArray[np.int64]  # [R]


@dataclass(frozen=True, repr=False, eq=False)
class Trajectories:
    """N logged episodes of a behaviour policy.

    Episode i has `lengths[i]` transitions and `lengths[i] + 1` states: the last observation is
    kept, so the last transition of a truncated episode is a transition like any other.

    Attributes:
        states: `[R + N, S]` float32, the episodes' states one after the other.
        actions: `[R, A]` float32, as the environment executed them (one-hot if discrete).
        rewards: `[R]` float32, in the environment's units.
        lengths: `[N]` int64, transitions of each episode.
        terminated: `[N]` bool, the environment reached a terminal state: no value after it.
        truncated: `[N]` bool, the log ends (time limit, cut) where the environment would go on.
        action_spec: what an action is.
        log_prob: `[R]` float32 or None, the behaviour policy's log-probability of its own draw:
            of `proposed_actions` where those are carried, else of `actions`.
        proposed_actions: `[R, A]` float32 or None, the behaviour's draw before the environment's
            bounds clipped it. Clipped actions have point masses at the bounds, where a density
            ratio of `actions` would be wrong.
        env_id: the Gymnasium id of the environment, where known.
        env_kwargs: what `gymnasium.make` was given beside the id.

    Raises:
        DataError: if shapes disagree, a number is not finite, or there is no transition.
    """

    states: FloatArray
    actions: FloatArray
    rewards: FloatArray
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    action_spec: ActionSpec
    log_prob: FloatArray | None = None
    proposed_actions: FloatArray | None = None
    env_id: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not np.issubdtype(np.asarray(self.lengths).dtype, np.integer) and np.size(self.lengths):
            raise DataError("lengths are no whole numbers; they count each episode's transitions.")
        for name, dtype in (("lengths", np.int64), ("terminated", bool), ("truncated", bool)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        for name in ("states", "actions", "rewards", "log_prob", "proposed_actions"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, np.ascontiguousarray(value, np.float32))
        self._check_shapes()
        self._check_values()

    def _check_shapes(self) -> None:
        episodes = self.lengths.size
        if self.lengths.ndim != 1 or episodes == 0:
            raise DataError("The data hold no episode; at least one is needed.")
        if int(self.lengths.min()) < 1:
            empty = int(np.argmin(self.lengths))
            raise DataError(f"Episode {empty} has no transition; leave empty episodes out.")
        rows, size = self.num_transitions, self.action_spec.size
        wanted: dict[str, tuple[int, ...]] = {
            "states": (rows + episodes, self.states.shape[-1] if self.states.ndim else 0),
            "actions": (rows, size),
            "rewards": (rows,),
            "log_prob": (rows,),
            "proposed_actions": (rows, size),
            "terminated": (episodes,),
            "truncated": (episodes,),
        }
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise DataError(
                    f"{name} has shape {value.shape}; {episodes} episodes with {rows} transitions "
                    f"in all need {shape} (states keep each episode's last observation)."
                )

    def _check_values(self) -> None:
        for name in ("states", "actions", "rewards", "log_prob", "proposed_actions"):
            value = getattr(self, name)
            if value is None or np.isfinite(value).all():
                continue
            row = int(np.argwhere(~np.isfinite(value))[0][0])
            bad = int((~np.isfinite(value)).sum())
            raise DataError(
                f"{name} holds {bad} entries that are not finite, the first in row {row}; "
                "drop or repair the episodes that hold them."
            )
        if self.action_spec.kind == "discrete" and not (
            np.isin(self.actions, (0.0, 1.0)).all() and (self.actions.sum(1) == 1.0).all()
        ):
            raise DataError(
                "The action space is discrete but actions are not one-hot rows; "
                "encode action k as row k of the identity matrix."
            )

    @property
    def num_episodes(self) -> int:
        return int(self.lengths.size)

    @property
    def num_transitions(self) -> int:
        return int(self.lengths.sum())

    @property
    def state_size(self) -> int:
        return int(self.states.shape[1])

    @property
    def action_size(self) -> int:
        return self.action_spec.size

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """`[N + 1]`, the first transition of each episode, and R."""
        return np.concatenate(([0], np.cumsum(self.lengths)))

    @cached_property
    def state_offsets(self) -> NDArray[np.int64]:
        """`[N + 1]`, the first state of each episode, and R + N."""
        return self.offsets + np.arange(self.num_episodes + 1)

    @property
    def initial_states(self) -> FloatArray:
        """`[N, S]`"""
        return self.states[self.state_offsets[:-1]]

    def transitions(self) -> TransitionArrays:
        """All transitions, one a row; `terminated` is True on a terminated episode's last row."""
        episode = np.repeat(np.arange(self.num_episodes), self.lengths)
        row = np.arange(self.num_transitions) + episode
        terminated = np.zeros(self.num_transitions, bool)
        terminated[self.offsets[1:] - 1] = self.terminated
        return TransitionArrays(
            self.states[row],
            self.actions,
            self.rewards,
            self.states[row + 1],
            terminated,
            episode,
        )

    def returns(self, horizon: int | None = None, discount: float = 1.0) -> NDArray[np.float64]:
        """`[N]`, Σ_{t < horizon} γ^t r_t of each logged episode, as far as it was logged."""
        step = np.arange(self.num_transitions) - np.repeat(self.offsets[:-1], self.lengths)
        weight = np.power(discount, step, dtype=np.float64)
        if horizon is not None:
            weight[step >= horizon] = 0.0
        return np.add.reduceat(weight * self.rewards, self.offsets[:-1])

    def select(
        self, episodes: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]
    ) -> "Trajectories":
        """The episodes with these indices, in this order; or those where a mask `[N]` is True.

        Raises:
            DataError: if there is none, or an index is out of range or no whole number.
        """
        chosen = np.asarray(episodes)
        if chosen.dtype == bool and chosen.shape == (self.num_episodes,):
            chosen = np.flatnonzero(chosen)
        if chosen.size == 0:
            raise DataError("No episode was selected; at least one is needed.")
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise DataError(
                f"Episodes are selected by an array of {chosen.dtype} and shape {chosen.shape}; "
                f"use whole numbers, or a mask of shape {(self.num_episodes,)}."
            )
        if chosen.min() < 0 or chosen.max() >= self.num_episodes:
            raise DataError(
                f"Episode indices run from {chosen.min()} to {chosen.max()}; "
                f"the data have episodes 0 to {self.num_episodes - 1}."
            )
        rows = _ranges(self.offsets[chosen], self.lengths[chosen])
        state_rows = _ranges(self.state_offsets[chosen], self.lengths[chosen] + 1)
        return Trajectories(
            states=self.states[state_rows],
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            lengths=self.lengths[chosen],
            terminated=self.terminated[chosen],
            truncated=self.truncated[chosen],
            action_spec=self.action_spec,
            log_prob=None if self.log_prob is None else self.log_prob[rows],
            proposed_actions=None if self.proposed_actions is None else self.proposed_actions[rows],
            env_id=self.env_id,
            env_kwargs=self.env_kwargs,
        )

    def __repr__(self) -> str:
        lengths = f"{self.lengths.min()} to {self.lengths.max()}"
        return (
            f"Trajectories({self.env_id or 'environment unknown'}: {self.num_episodes} episodes, "
            f"{self.num_transitions} transitions, lengths {lengths}, states [{self.state_size}], "
            f"actions [{self.action_size}] {self.action_spec.kind}, "
            f"{int(self.terminated.sum())} terminated, "
            f"log_prob {'carried' if self.log_prob is not None else 'absent'})"
        )


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The integers start .. start + length - 1 of each pair, one after the other."""
    begins = np.repeat(starts - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
    return begins + np.arange(int(lengths.sum()))

"""Logged episodes, stored flat, and selections of them that share the storage."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfiw_ope.checks import real, whole
from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.data.log import FloatArray, Log, TransitionArrays
from lfiw_ope.errors import DataError, NonFiniteError
from lfiw_ope.seeding import numpy_generator


class Trajectories:
    """N logged episodes of a behaviour policy.

    Episode i has `lengths[i]` transitions and `lengths[i] + 1` states: the last observation is
    kept, so the last transition of a truncated episode is a transition like any other.

    `select` and its kin give a view: it holds which episodes it is made of, and the arrays stay
    where they are. The arrays of a view of consecutive episodes are slices of the storage; those
    of any other view are gathered when they are asked for, and not kept.

    Args:
        states: `[R + N, S]`, the episodes' states one after the other.
        actions: `[R, A]`, as the environment executed them (one-hot if discrete).
        rewards: `[R]`, in the environment's units.
        lengths: `[N]`, transitions of each episode.
        terminated: `[N]` bool, the environment reached a terminal state: no value after it.
        truncated: `[N]` bool, the log ends (time limit, cut) where the environment would go on.
        action_spec: what an action is.
        log_prob: `[R]` or None, the behaviour policy's log-probability of its own draw: of
            `proposed_actions` where those are carried, else of `actions`.
        proposed_actions: `[R, A]` or None, the behaviour's draw before the environment's bounds
            clipped it. Clipped actions have point masses at the bounds, where a density ratio of
            `actions` would be wrong.
        env_id: the Gymnasium id of the environment, where known.
        env_kwargs: what `gymnasium.make` was given beside the id.

    Raises:
        DataError: if shapes disagree, or there is no transition.
        NonFiniteError: if a number is not finite.
    """

    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    def __init__(
        self,
        *,
        states: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike,
        lengths: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike,
        action_spec: ActionSpec,
        log_prob: ArrayLike | None = None,
        proposed_actions: ArrayLike | None = None,
        env_id: str | None = None,
        env_kwargs: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        arrays: dict[str, Any] = {  # whatever they are, Log makes arrays of them
            "states": np.asarray(states),
            "actions": np.asarray(actions),
            "rewards": np.asarray(rewards),
            "lengths": lengths,
            "terminated": terminated,
            "truncated": truncated,
            "log_prob": log_prob,
            "proposed_actions": proposed_actions,
        }
        log = Log(**arrays, action_spec=action_spec)
        self._be(log, np.arange(len(log.lengths)), env_id, dict(env_kwargs))
        if found := log.not_finite():
            raise NonFiniteError(found, data=self)
        log.check_one_hot()

    def _be(
        self, log: Log, chosen: NDArray[np.int64], env_id: str | None, env_kwargs: dict[str, Any]
    ) -> None:
        self._log, self._chosen = log, chosen
        self.env_id, self.env_kwargs = env_id, env_kwargs
        self.lengths = log.lengths[chosen]
        self.terminated, self.truncated = log.terminated[chosen], log.truncated[chosen]

    @property
    def action_spec(self) -> ActionSpec:
        return self._log.action_spec

    @property
    def states(self) -> FloatArray:
        """`[R + N, S]` float32"""
        return self._log.states[self._rows(state=True)]

    @property
    def actions(self) -> FloatArray:
        """`[R, A]` float32"""
        return self._log.actions[self._rows()]

    @property
    def rewards(self) -> FloatArray:
        """`[R]` float32"""
        return self._log.rewards[self._rows()]

    @property
    def log_prob(self) -> FloatArray | None:
        """`[R]` float32, or None."""
        return None if self._log.log_prob is None else self._log.log_prob[self._rows()]

    @property
    def proposed_actions(self) -> FloatArray | None:
        """`[R, A]` float32, or None."""
        proposed = self._log.proposed_actions
        return None if proposed is None else proposed[self._rows()]

    def _rows(self, *, state: bool = False) -> slice | NDArray[np.int64]:
        """Where the view's transitions, or states, stand in the storage."""
        first = self._log.offsets[self._chosen] + (self._chosen if state else 0)
        lengths = self.lengths + state
        if (np.diff(self._chosen) == 1).all():
            return slice(int(first[0]), int(first[0] + lengths.sum()))
        begins = np.repeat(first - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
        return begins + np.arange(int(lengths.sum()))

    @property
    def repeats(self) -> bool:
        """Whether a selection took an episode more than once."""
        return np.unique(self._chosen).size < self._chosen.size

    @property
    def num_episodes(self) -> int:
        return int(self.lengths.size)

    @property
    def num_transitions(self) -> int:
        return int(self.lengths.sum())

    @property
    def state_size(self) -> int:
        return int(self._log.states.shape[1])

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
        first: FloatArray = self._log.states[self._log.offsets[self._chosen] + self._chosen]
        return first

    def transitions(self) -> TransitionArrays:
        """All transitions, one a row; `terminated` is True on a terminated episode's last row."""
        episode = np.repeat(np.arange(self.num_episodes), self.lengths)
        row = np.arange(self.num_transitions) + episode
        terminated = np.zeros(self.num_transitions, bool)
        terminated[self.offsets[1:] - 1] = self.terminated
        states = self.states
        return TransitionArrays(
            states[row], self.actions, self.rewards, states[row + 1], terminated, episode
        )

    def returns(self, horizon: int | None = None, discount: float = 1.0) -> NDArray[np.float64]:
        """`[N]`, Σ_{t < horizon} γ^t r_t of each logged episode, as far as it was logged."""
        step = np.arange(self.num_transitions) - np.repeat(self.offsets[:-1], self.lengths)
        weight = np.power(discount, step, dtype=np.float64)
        if horizon is not None:
            weight[step >= whole("horizon", horizon, least=1)] = 0.0
        return np.add.reduceat(weight * self.rewards, self.offsets[:-1])

    def select(
        self, episodes: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]
    ) -> "Trajectories":
        """A view of the episodes with these indices, in this order, or where a mask `[N]` is True.

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
        view = Trajectories.__new__(Trajectories)
        view._be(self._log, self._chosen[chosen], self.env_id, dict(self.env_kwargs))
        return view

    def first(self, episodes: int) -> "Trajectories":
        """A view of the first `episodes` episodes, or of all where there are fewer."""
        most = whole("episodes", episodes, least=1)
        return self.select(np.arange(min(most, self.num_episodes)))

    def sample(self, episodes: int, *, seed: int) -> "Trajectories":
        """A view of `episodes` episodes, drawn without replacement.

        Raises:
            ConfigError: if `episodes` is below 1.
            DataError: if there are not as many.
        """
        if whole("episodes", episodes, least=1) > self.num_episodes:
            raise DataError(f"{episodes} of {self.num_episodes} episodes cannot be drawn.")
        order = numpy_generator(seed, "select").permutation(self.num_episodes)
        return self.select(np.sort(order[:episodes]))

    def by_return(
        self, lowest: float = -np.inf, highest: float = np.inf, *, discount: float = 1.0
    ) -> "Trajectories":
        """A view of the episodes whose logged return lies in [lowest, highest], in logged order.

        Raises:
            DataError: if there is none.
        """
        real("highest", highest, least=real("lowest", lowest, least=-np.inf))
        returns = self.returns(discount=discount)
        chosen = (returns >= lowest) & (returns <= highest)
        if not chosen.any():
            raise DataError(
                f"No episode's return lies in [{lowest:g}, {highest:g}]; the data's run from "
                f"{returns.min():g} to {returns.max():g}."
            )
        return self.select(chosen)

    def __repr__(self) -> str:
        lengths = f"{self.lengths.min()} to {self.lengths.max()}"
        return (
            f"Trajectories({self.env_id or 'environment unknown'}: {self.num_episodes} episodes, "
            f"{self.num_transitions} transitions, lengths {lengths}, states [{self.state_size}], "
            f"actions [{self.action_size}] {self.action_spec.kind}, "
            f"{int(self.terminated.sum())} terminated, "
            f"log_prob {'carried' if self._log.log_prob is not None else 'absent'})"
        )

"""Logged episodes, stored flat, and selections that share the storage."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import DataError, NonFiniteError
from lfiw_ope.core.seeding import numpy_generator
from lfiw_ope.core.validation import real, whole
from lfiw_ope.data.memory import check_fits

FloatArray = NDArray[np.float32]

_CHECKED_AT_ONCE = 1 << 20
"""Entries looked at together: a check of a whole array would need a quarter of it again."""


@dataclass(frozen=True, eq=False)
class Log:
    """N logged episodes, flat; `lfiw_ope.data.Trajectories` says what the fields are.

    Selections of episodes share it. Arrays that are float32 already are kept and not copied.

    Raises:
        DataError: if shapes disagree, or there is no transition.
    """

    states: FloatArray
    actions: FloatArray
    rewards: FloatArray
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    action_spec: ActionSpec
    log_prob: FloatArray | None
    proposed_actions: FloatArray | None

    def __post_init__(self) -> None:
        if not np.issubdtype(np.asarray(self.lengths).dtype, np.integer) and np.size(self.lengths):
            raise DataError("lengths are no whole numbers; they count each episode's transitions.")
        for name in ("terminated", "truncated"):
            if not np.isin(getattr(self, name), (False, True)).all():
                raise DataError(f"{name} holds other values than False and True, one an episode.")
        for name, dtype in (("lengths", np.int64), ("terminated", bool), ("truncated", bool)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        for name in ("states", "actions", "rewards", "log_prob", "proposed_actions"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, np.ascontiguousarray(value, np.float32))
        self._check_shapes()

    def _check_shapes(self) -> None:
        episodes = self.lengths.size
        if self.lengths.ndim != 1 or episodes == 0:
            raise DataError("The data hold no episode; at least one is needed.")
        if int(self.lengths.min()) < 1:
            empty = int(np.argmin(self.lengths))
            raise DataError(f"Episode {empty} has no transition; leave empty episodes out.")
        rows, size = int(self.lengths.sum()), self.action_spec.size
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

    def not_finite(self) -> dict[str, tuple[int, int]]:
        """Of each array that has any: its entries that are not finite, and the first one's row."""
        names = ("states", "actions", "rewards", "log_prob", "proposed_actions")
        found = {
            name: _not_finite(getattr(self, name))
            for name in names
            if getattr(self, name) is not None
        }
        return {name: where for name, where in found.items() if where[0]}

    def check_one_hot(self) -> None:
        """Discrete actions are rows of the identity matrix.

        Raises:
            DataError: if they are not.
        """
        if self.action_spec.kind == "discrete" and not all(
            np.isin(rows, (0.0, 1.0)).all() and (rows.sum(1) == 1.0).all()
            for rows in _chunks(self.actions)
        ):
            raise DataError(
                "The action space is discrete but actions are not one-hot rows; "
                "encode action k as row k of the identity matrix."
            )

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """`[N + 1]`, the first transition of each episode, and R."""
        return np.concatenate(([0], np.cumsum(self.lengths)))


class TransitionArrays(NamedTuple):
    """All R transitions of a data set, one a row, in logged order."""

    state: FloatArray  # [R, S]
    action: FloatArray  # [R, A]
    reward: FloatArray  # [R]
    next_state: FloatArray  # [R, S]
    terminated: NDArray[np.bool_]  # [R]
    episode: NDArray[np.int64]  # [R]


def _chunks(values: FloatArray) -> list[FloatArray]:
    per_row = max(1, values[:1].size)
    rows = max(1, _CHECKED_AT_ONCE // per_row)
    return [values[start : start + rows] for start in range(0, len(values), rows)]


def _not_finite(values: FloatArray) -> tuple[int, int]:
    bad, first, seen = 0, -1, 0
    for rows in _chunks(values):
        finite = np.isfinite(rows)
        if not finite.all():
            bad += int((~finite).sum())
            first = seen + int(np.argwhere(~finite)[0][0]) if first < 0 else first
        seen += len(rows)
    return bad, first


CHUNK = 2**22
"""Bytes of float32 that are read at a time."""


class Column(Protocol):
    """What rows are read from: an array, a memory map, a data set of an HDF5 file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


def chunks(first: int, last: int, row_bytes: int) -> Iterator[slice]:
    """Consecutive slices of [first, last) of at most `CHUNK` bytes, or of one row."""
    step = max(1, CHUNK // max(1, row_bytes))
    for start in range(first, last, step):
        yield slice(start, min(start + step, last))


def rows_of(column: Any, rows: slice) -> Any:
    """These rows of a column, or of each column of a dict or tuple."""
    if isinstance(column, Mapping):
        return {name: rows_of(part, rows) for name, part in column.items()}
    if isinstance(column, tuple):
        return tuple(rows_of(part, rows) for part in column)
    return column[rows]


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

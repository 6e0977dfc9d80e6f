"""The arrays behind logged episodes, checked once."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import DataError

FloatArray = NDArray[np.float32]

_CHECKED_AT_ONCE = 1 << 20
"""Entries looked at together: a check of a whole array would need a quarter of it again."""


@dataclass(frozen=True, eq=False)
class Log:
    """N logged episodes, flat; `lfiw_ope.data.trajectories.Trajectories` says what the fields are.

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

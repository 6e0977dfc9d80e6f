"""Episodes that are played side by side, as they are recorded."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.data.log import FloatArray
from lfiw_ope.data.memory import check_room
from lfiw_ope.data.trajectories import Trajectories

BLOCK = 2**26
"""Bytes of a block of rows, of which memory is taken as it fills. So large because an allocator
gives back at once what it took from the system in one piece, and glibc does that above 32 MiB."""

NOBODY = -1
"""The episode of a copy that plays none that is kept."""


class Recorder:
    """Episodes of the copies of an environment, in the order in which they started.

    Transitions are kept as they come, in blocks, and put where they belong when all are there; the
    blocks go as their rows are put, so that memory holds the log once and not twice.

    Attributes:
        playing: `[copies]` int64, the number of the episode that each copy plays, or `NOBODY`.

    Args:
        copies: of the environment.
        episodes: how many are kept, the first to start; all where None.
        transitions: how many are kept, as many of each copy as of every other, and one more of the
            first ones where they do not divide; all where None.
    """

    def __init__(self, copies: int, *, episodes: int | None, transitions: int | None) -> None:
        self.wanted = episodes or transitions or 0
        self.by_episode = episodes is not None
        if transitions is None:
            self._left = np.full(copies, np.iinfo(np.int64).max)
        else:
            self._left = transitions // copies + (np.arange(copies) < transitions % copies)
        self.playing = np.full(copies, NOBODY)
        self._step = np.zeros(copies, np.int64)  # of the episode that each copy plays
        self._lengths: list[int] = []  # of each episode so far, by its number, as all below
        self._last: list[FloatArray] = []
        self._ends: list[tuple[bool, bool]] = []
        self._over = self._rows = 0
        self._blocks: list[dict[str, NDArray[Any]]] = []
        self._filled = 0  # rows of the last block

    @property
    def done(self) -> int:
        """Episodes or transitions of those `wanted`."""
        return self._over if self.by_episode else self._rows

    @property
    def complete(self) -> bool:
        return self.done == self.wanted

    def start(self, copies: NDArray[np.int64]) -> None:
        """The next step of these copies begins an episode; which is kept if it is wanted."""
        for copy in copies:
            started = len(self._lengths)
            full = self.by_episode and started == self.wanted
            self.playing[copy] = NOBODY if full or not self._left[copy] else started
            if self.playing[copy] != NOBODY:
                self._step[copy] = 0
                self._lengths.append(0)
                self._last.append(np.empty(0, np.float32))
                self._ends.append((False, False))

    def step(
        self,
        columns: Mapping[str, NDArray[Any]],
        reached: FloatArray,
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> None:
        """One step of every copy.

        Args:
            columns: "states" `[copies, S]` that were acted on, "actions", "rewards", and "log_prob"
                and "proposed_actions" where they are known; of copies that play nothing, anything.
            reached: `[copies, S]`
            terminated, truncated: `[copies]`
        """
        kept = np.flatnonzero(self.playing != NOBODY)
        if kept.size == 0:
            return
        episode = self.playing[kept]
        self._keep(
            {name: of[kept] for name, of in columns.items()}
            | {"episode": episode, "step": self._step[kept]}
        )
        self._step[kept] += 1
        self._left[kept] -= 1
        over = (terminated | truncated)[kept] | (self._left[kept] == 0)
        for copy, number in zip(kept[over], episode[over], strict=True):
            self._lengths[number] = int(self._step[copy])
            self._last[number] = reached[copy].copy()
            # One that is cut because its copy has played enough is truncated, too.
            fell = bool(terminated[copy])
            self._ends[number] = fell, bool(truncated[copy]) or not fell
            self.playing[copy] = NOBODY
        self._over += int(over.sum())

    def _keep(self, rows: dict[str, NDArray[Any]]) -> None:
        count = len(rows["episode"])
        if not self._blocks or self._filled + count > len(self._blocks[-1]["episode"]):
            self._add_block(rows)
        for name, values in rows.items():
            self._blocks[-1][name][self._filled : self._filled + count] = values
        self._filled += count
        self._rows += count

    def _add_block(self, rows: dict[str, NDArray[Any]]) -> None:
        row_bytes = sum(_typed(of).itemsize * of[:1].size for of in rows.values())
        if not self._blocks:
            check_room(0 if self.by_episode else self.wanted * row_bytes, f"{self.wanted} rows")
        else:
            self._blocks[-1] = {name: of[: self._filled] for name, of in self._blocks[-1].items()}
        most = max(len(self.playing), BLOCK // row_bytes)
        self._blocks.append(
            {name: np.empty((most, *of.shape[1:]), _typed(of)) for name, of in rows.items()}
        )
        self._filled = 0

    def trajectories(
        self, spec: ActionSpec, env_id: str | None, env_kwargs: Mapping[str, Any]
    ) -> Trajectories:
        """What was recorded; the recorder is empty thereafter.

        Raises:
            NonFiniteError: if a number is not finite.
        """
        lengths = np.array(self._lengths)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        self._blocks[-1] = {name: of[: self._filled] for name, of in self._blocks[-1].items()}
        arrays = {
            name: np.empty(
                (self._rows + len(lengths) * (name == "states"), *of.shape[1:]), of.dtype
            )
            for name, of in self._blocks[0].items()
            if name not in ("episode", "step")
        }
        self._blocks.reverse()
        while self._blocks:
            block = self._blocks.pop()
            to = offsets[block["episode"]] + block["step"]
            for name, array in arrays.items():
                array[to + block["episode"] * (name == "states")] = block[name]
        # Not before: in pages of megabytes, these alone would take the memory of the whole array.
        arrays["states"][offsets[1:] + np.arange(len(lengths))] = self._last
        terminated, truncated = np.array(self._ends).T
        return Trajectories(
            **arrays,
            lengths=lengths,
            terminated=terminated,
            truncated=truncated,
            action_spec=spec,
            env_id=env_id,
            env_kwargs=env_kwargs,
        )


def _typed(values: NDArray[Any]) -> np.dtype[Any]:
    """What a log keeps of numbers, and what counts rows as it is."""
    return values.dtype if values.dtype.kind == "i" else np.dtype(np.float32)

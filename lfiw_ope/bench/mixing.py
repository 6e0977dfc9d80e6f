"""Logs of one environment, put together."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.data.npz import log_arrays
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import warn


def shuffled(
    parts: list[Trajectories], generator: np.random.Generator
) -> tuple[Trajectories, NDArray[np.int64]]:
    """The episodes of all parts in a random order, and the part `[N]` that each was in.

    Args:
        parts: logs of one environment; the list is emptied, and each goes as its episodes are put
            where they belong, so that memory holds the whole and one part, and not twice the whole.
        generator: of the order.
    """
    player = np.repeat(np.arange(len(parts)), [part.num_episodes for part in parts])
    ends: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("lengths", "terminated", "truncated")
    }
    order = generator.permutation(player.size)
    place = np.argsort(order)  # of each part's episodes, one part after the other
    player, ends = player[order], {name: of[order] for name, of in ends.items()}
    first = np.cumsum(ends["lengths"]) - ends["lengths"]
    rows = int(ends["lengths"].sum())
    arrays: dict[str, Any] = {
        name: np.empty((rows + place.size * (name == "observations"), *of.shape[1:]), of.dtype)
        for name, of in _shared(parts).items()
    }
    about = {name: getattr(parts[0], name) for name in ("action_spec", "env_id", "env_kwargs")}
    parts.reverse()
    while parts:
        part = parts.pop()
        to, place = place[: part.num_episodes], place[part.num_episodes :]
        steps = _positions(first[to], part.lengths)
        states = _positions(first[to] + to, part.lengths + 1)
        for name, of in log_arrays(part).items():
            if name in arrays:
                arrays[name][states if name == "observations" else steps] = of
    return Trajectories(states=arrays.pop("observations"), **arrays, **ends, **about), player


def _shared(parts: list[Trajectories]) -> dict[str, NDArray[Any]]:
    """The first part's arrays of rows that all the parts have."""
    per_episode = ("lengths", "terminated", "truncated")
    every = [log_arrays(part) for part in parts]
    shared = set.intersection(*(set(of) for of in every))
    if len(shared) < max(len(of) for of in every):
        warn("Log-probabilities are left out: some of the policies that play have no density.")
    return {k: of for k, of in every[0].items() if k in shared and k not in per_episode}


def _positions(first: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows `first[i]` to `first[i] + lengths[i] - 1`, one i after the other."""
    begins = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    found: NDArray[np.int64] = begins + np.arange(int(lengths.sum()))
    return found

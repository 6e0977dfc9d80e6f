"""Whether states and actions lie where the data have any: by nearest logged neighbours.

How far is far, the data say themselves: a threshold is the 99 % quantile of what logged transitions
of other episodes have. So of the behaviour's own about 1 % lie outside.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from lfiw_ope.diagnostics.config import Half
from lfiw_ope.nn.batched_mlp import Standardiser

OUTSIDE = 0.01
"""Share of the logged transitions of other episodes that count as outside."""

NEAREST = 3
"""The neighbour whose distance counts: the nearest may be a near-copy."""

RARE = 0.05
"""Of discrete actions: one that this share of the neighbours took, or more, is never outside."""

MOST_ENTRIES = 16
"""Of a standardised state; of more, this many principal components are looked at. Among neighbours
in more directions than that all are about as far."""

FAR = 1e3
"""Standard deviations beyond which a distance says no more."""

Array = NDArray[np.float64]


class Coordinates:
    """Where states are, for distances: standardised, and no more entries than tell near from far.

    Args:
        states: `[n, S]`, which decide the units and the directions that are kept.
    """

    def __init__(self, states: Tensor) -> None:
        self.standardiser = Standardiser.of_chunks((states,)).to(states.device)
        self.directions: Array | None = None
        if states.shape[1] > MOST_ENTRIES:
            rows = self._standardised(states)
            _, vectors = np.linalg.eigh(rows.T @ rows)
            self.directions = vectors[:, -MOST_ENTRIES:]

    def _standardised(self, states: Tensor) -> Array:
        found: Tensor = self.standardiser(states.to(self.standardiser.mean.device))
        return found.clamp(-FAR, FAR).cpu().double().numpy()

    def __call__(self, states: Tensor) -> Array:
        """Of states `[n, S]`, `[n, at most MOST_ENTRIES]`."""
        rows = self._standardised(states)
        return rows if self.directions is None else rows @ self.directions


class Neighbours:
    """The nearest logged states of a reference, in its coordinates.

    Args:
        states: `[n, S]`, the reference.
    """

    def __init__(self, states: Tensor) -> None:
        self.coordinates = Coordinates(states)
        self.tree = cKDTree(self.coordinates(states))

    def find(self, states: Tensor, count: int) -> tuple[Array, NDArray[np.int64]]:
        """Distances and rows of the reference, `[n, count]` each, nearest first."""
        distance, index = self.tree.query(self.coordinates(states), k=np.arange(1, count + 1))
        return distance, index


@dataclass(frozen=True)
class ActionSupport:
    """How unusual an action is at a logged state, beside those at the nearest logged states.

    Continuous: the distance, in standard deviations of each entry, to the third nearest of the K
    neighbours' actions. Discrete: the share of them that is another action.

    Attributes:
        kind: of actions.
        state: `[n, S]`, where actions are looked at.
        near: `[n, K, A]`, the neighbours' actions.
        scale: `[A]`, what a distance is in.
        threshold: above it an action is outside.
        logged_outside: share of the logged actions at these states that is outside.
    """

    kind: Literal["continuous", "discrete"]
    state: Tensor
    near: Tensor
    scale: Tensor
    threshold: float
    logged_outside: float

    @classmethod
    def of(
        cls, halves: tuple[Half, Half], kind: Literal["continuous", "discrete"], neighbours: int
    ) -> "ActionSupport":
        """Logged transitions of one half beside those of the other."""
        reference, looked_at = halves
        count = min(neighbours, len(reference.state))
        _, index = Neighbours(reference.state).find(looked_at.state, count)
        near = reference.action.cpu()[torch.from_numpy(index)]
        scale = Standardiser.of_chunks((reference.action.cpu(),)).scale
        logged = _unusual(looked_at.action.cpu(), near, scale, kind)
        threshold = float(np.quantile(logged, 1.0 - OUTSIDE, method="higher"))
        if kind == "discrete":
            threshold = max(threshold, 1.0 - RARE)
        outside = float(_beyond(logged, threshold, kind).mean())
        return cls(kind, looked_at.state, near, scale, threshold, outside)

    def outside(self, action: Tensor) -> float:
        """Share of the actions `[n, A]`, one at each state, that is outside."""
        found = _unusual(action.cpu(), self.near, self.scale, self.kind)
        return float(_beyond(found, self.threshold, self.kind).mean())


def _unusual(action: Tensor, near: Tensor, scale: Tensor, kind: str) -> Array:
    """`[n]`, of actions `[n, A]` beside `[n, K, A]`."""
    if kind == "discrete":
        same = (near.argmax(-1) == action.argmax(-1)[:, None]).double()
        return np.asarray(1.0 - same.mean(1).numpy(), np.float64)
    distance = ((near - action[:, None]) / scale).double().square().sum(-1).sqrt()
    nearest = distance.kthvalue(min(NEAREST, near.shape[1]), 1).values
    return np.asarray(nearest.numpy(), np.float64)


def _beyond(unusual: Array, threshold: float, kind: str) -> NDArray[np.bool_]:
    # What no neighbour did is outside even where the log does so rather often.
    never = unusual >= 1.0 if kind == "discrete" else np.zeros(len(unusual), bool)
    return (unusual > threshold) | never


@dataclass(frozen=True)
class StateSupport:
    """How far a state is from the logged ones: the distance to the third nearest.

    Attributes:
        neighbours: the logged states.
        threshold: above it a state is outside.
    """

    neighbours: Neighbours
    threshold: float

    @classmethod
    def of(cls, reference: Tensor, logged: Tensor, drawn: Tensor) -> "StateSupport":
        """The threshold is the larger of two quantiles.

        What a model's own noise does to a logged transition is no excursion: of one-hot states,
        say, no drawn one is quite one-hot.

        Args:
            reference: `[n, S]`, logged states.
            logged: `[·, S]`, those of other episodes.
            drawn: `[·, S]`, the model's draws at logged (s, a).
        """
        found = Neighbours(reference)
        distances = [_distance(found, states) for states in (logged, drawn)]
        # Where states repeat, distances are 0 but for rounding.
        threshold = max(float(np.quantile(each, 1.0 - OUTSIDE)) for each in distances) + 1e-6
        return cls(found, threshold)

    def outside(self, states: Tensor) -> NDArray[np.bool_]:
        """Of states `[n, S]`, `[n]`."""
        return _distance(self.neighbours, states) > self.threshold


def _distance(neighbours: Neighbours, states: Tensor) -> Array:
    count = min(NEAREST, neighbours.tree.n)
    return neighbours.find(states, count)[0][:, -1]

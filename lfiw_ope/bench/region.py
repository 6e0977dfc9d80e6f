"""Where a log does most of what it does: a region of states and actions, by nearest neighbours."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.data.log import FloatArray
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnosis.support import NEAREST, Array, Coordinates
from lfiw_ope.errors import DataError
from lfiw_ope.nn.ensemble import Standardiser

INSIDE = 0.95
"""Share of what other episodes of the log do that a region holds."""

BLOCK = 256
"""Pairs whose distances to all the reference are in memory at a time."""


class Pairs(NamedTuple):
    """States and what was done there."""

    state: FloatArray  # [n, S]
    action: FloatArray  # [n, A]


def pairs_at(log: Trajectories, rows: NDArray[np.int64]) -> Pairs:
    """Those of a log's transitions `[n]`, by their number."""
    episode = np.searchsorted(log.offsets, rows, side="right") - 1
    return Pairs(log.states[rows + episode], log.actions[rows])


class Nearest:
    """How far (s, a) is from the third nearest of a reference.

    Continuous actions: in standardised entries of states and actions together. Discrete ones: in
    those of states, among the reference's where the same action was done. Of many state entries the
    leading principal components are looked at, as everywhere in `diagnosis.support`.

    Every distance is computed: from ten entries on, that is quicker than a tree.

    Args:
        reference: the pairs.
        kind: of actions.
    """

    def __init__(self, reference: Pairs, kind: Literal["continuous", "discrete"]) -> None:
        self.place = Coordinates(torch.from_numpy(reference.state))
        self.unit = Standardiser.of_chunks((torch.from_numpy(reference.action),))
        self.discrete = kind == "discrete"
        self.sizes = reference.state.shape[1], reference.action.shape[1]
        self.reference = self._groups(reference)

    def _groups(self, pairs: Pairs) -> dict[int, tuple[NDArray[np.int64], Tensor]]:
        """Rows and coordinates of the pairs that can be near each other, by their action."""
        found = self.place(torch.from_numpy(pairs.state))
        if not self.discrete:
            units = self.unit(torch.from_numpy(pairs.action)).double().numpy()
            both = np.concatenate((found, units), 1)
            return {0: (np.arange(len(both)), torch.from_numpy(both))}
        done = pairs.action.argmax(1)
        every = ((int(one), np.flatnonzero(done == one)) for one in np.unique(done))
        return {one: (rows, torch.from_numpy(found[rows])) for one, rows in every}

    def distance(self, pairs: Pairs) -> Array:
        """`[n]`; infinite where fewer than three of the reference have that discrete action.

        Raises:
            DataError: if the pairs are of other spaces.
        """
        sizes = pairs.state.shape[1], pairs.action.shape[1]
        if sizes != self.sizes:
            raise DataError(
                f"States and actions have {sizes} entries where the data's have {self.sizes}; both "
                "must be of one environment."
            )
        found = np.full(len(pairs.state), np.inf)
        for one, (rows, points) in self._groups(pairs).items():
            _, others = self.reference.get(one, (None, points[:0]))
            if len(others) >= NEAREST:
                found[rows] = _third_nearest(points, others)
        return found


def _third_nearest(points: Tensor, others: Tensor) -> Array:
    """Distance `[n]` of points `[n, D]` to the third nearest of others `[m, D]`."""
    lengths, found = others.square().sum(1), []
    for block in torch.split(points, BLOCK):
        # |x - y|² - |x|², which orders the others as the distance does.
        apart = torch.addmm(lengths, block, others.T, alpha=-2.0)
        third = apart.topk(NEAREST, largest=False).values[:, -1]
        found.append((third + block.square().sum(1)).clamp_min(0.0).sqrt())
    return np.asarray(torch.cat(found).numpy(), np.float64)


@dataclass(frozen=True)
class Region:
    """The states and actions that are no farther from a reference than most of a log's own are.

    The distance to the k-th nearest of a sample tells the density there (Loftsgaarden and
    Quesenberry, 1965), so this estimates the log's region of highest density: the smallest that
    holds 95 % of what is done in it.

    Attributes:
        near: some of the log's episodes.
        radius: the distance that 95 % of what its other episodes do does not exceed.
    """

    near: Nearest
    radius: float

    @classmethod
    def of(cls, reference: Pairs, held_out: Pairs, kind: Literal["continuous", "discrete"]) -> Self:
        """By pairs of some episodes, and of others: neighbours in time are no measure."""
        near = Nearest(reference, kind)
        radius = float(np.quantile(near.distance(held_out), INSIDE, method="higher"))
        return cls(near, radius + 1e-6)  # where states repeat, distances are 0 but for rounding

    def holds(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Of each pair, `[n]`.

        Raises:
            DataError: if the pairs are of other spaces.
        """
        distance = self.near.distance(pairs)
        return np.isfinite(distance) & (distance <= self.radius)

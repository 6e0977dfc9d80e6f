"""Termination rules: which next states end an episode."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Range(NamedTuple):
    """Where an entry of the state is healthy."""

    entry: int
    low: float
    high: float


@dataclass(frozen=True)
class LeavesRange:
    """Ends where an entry of the next state is outside its range, or not a number.

    Attributes:
        ranges: the entries watched.
        closed: the ends of a range are inside it.
        rest: from this entry on, every entry has this range, or None.
        finite: so many leading entries must be finite.
    """

    ranges: tuple[Range, ...]
    closed: bool = False
    rest: Range | None = None
    finite: int = 0

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        first, *others = self.ranges
        healthy = self._inside(next_state[..., first.entry], first)
        for other in others:
            healthy = healthy & self._inside(next_state[..., other.entry], other)
        if self.rest is not None:
            healthy &= self._inside(next_state[..., self.rest.entry :], self.rest).all(-1)
        if self.finite:
            healthy &= next_state[..., : self.finite].isfinite().all(-1)
        return ~healthy

    def _inside(self, value: Tensor, bounds: Range) -> Tensor:
        if self.closed:
            return (value >= bounds.low) & (value <= bounds.high)
        return (value > bounds.low) & (value < bounds.high)


@dataclass(frozen=True)
class ReachesGoal:
    """Mountain cars: ends at this position or beyond, at this velocity or faster."""

    position: float
    velocity: float

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return (next_state[..., 0] >= self.position) & (next_state[..., 1] >= self.velocity)


@dataclass(frozen=True)
class SwingsUp:
    """Acrobot: ends where the tip is one link above the bar, −cos θ1 − cos(θ1 + θ2) > 1."""

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        cos1, sin1, cos2, sin2 = next_state[..., :4].unbind(-1)
        return -cos1 - (cos1 * cos2 - sin1 * sin2) > 1.0


@dataclass(frozen=True)
class TipFalls:
    """Inverted double pendulum: ends where the tip of the upper pole is at `height` or lower.

    Both poles are 0.6 m long: y = 0.6 (cos θ1 + cos(θ1 + θ2)).
    """

    height: float = 1.0

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        sin1, sin2, cos1, cos2 = next_state[..., 1:5].unbind(-1)
        return 0.6 * (cos1 + cos1 * cos2 - sin1 * sin2) <= self.height

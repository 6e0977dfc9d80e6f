"""What a test-bed's dynamics draw."""

from typing import NamedTuple

from torch import Tensor


class Outcome(NamedTuple):
    """One transition at each (state, action)."""

    next_state: Tensor  # [..., n, S]
    reward: Tensor  # [..., n]
    terminated: Tensor  # [..., n] bool
    bounded: Tensor  # [..., n] bool; test-beds are unbounded, so always False

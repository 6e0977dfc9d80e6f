"""Logged transitions as tensors."""

from typing import NamedTuple

import torch
from torch import Tensor

from lfiw_ope.data.trajectories import TransitionArrays


class TransitionTensors(NamedTuple):
    """Logged transitions on a device, one a row; also a `Transition` of their own."""

    state: Tensor  # [R, S]
    action: Tensor  # [R, A]
    reward: Tensor  # [R]
    next_state: Tensor  # [R, S]
    terminated: Tensor  # [R] bool
    bounded: Tensor  # [R] bool, all False

    @classmethod
    def of(cls, rows: TransitionArrays, device: torch.device) -> "TransitionTensors":
        tensors = [torch.from_numpy(column).to(device) for column in rows[:5]]
        state, action, reward, next_state, terminated = tensors
        return cls(state, action, reward, next_state, terminated, torch.zeros_like(terminated))

    def at(self, rows: Tensor) -> "TransitionTensors":
        """The rows with these indices, in the indices' shape."""
        return TransitionTensors(*(column[rows] for column in self))

"""The policy that takes every action alike."""

import copy
import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from lfiw_ope.checks import whole
from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import PolicyError


class UniformPolicy(nn.Module):
    """Uniform over the discrete actions, or over the box of the action bounds.

    Args:
        state_size: S.
        action_spec: what actions are; a log's `action_spec` will do.

    Raises:
        PolicyError: if a bound is infinite.
    """

    low: Tensor
    high: Tensor

    def __init__(self, state_size: int, action_spec: ActionSpec) -> None:
        super().__init__()
        self.state_size = whole("state_size", state_size, least=1)
        self.action_spec = action_spec
        bounds = zip(action_spec.low, action_spec.high, strict=True)
        if not all(-math.inf < low < high < math.inf for low, high in bounds):
            raise PolicyError(
                "There is no uniform distribution over unbounded actions; the action_spec needs "
                f"finite bounds, low below high, and has {action_spec.low} and {action_spec.high}."
            )
        self.register_buffer("low", torch.tensor(action_spec.low, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(action_spec.high, dtype=torch.float32))

    @property
    def action_size(self) -> int:
        return self.action_spec.size

    @property
    def stack_key(self) -> Hashable:
        return "uniform", self.state_size, self.action_spec

    def stack(self, others: Sequence["UniformPolicy"]) -> "UniformPolicy":  # noqa: ARG002
        """A copy: policies of one stack_key are the same."""
        return copy.deepcopy(self)

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        n, size = state.shape[-2], self.action_size
        continuous = self.action_spec.kind == "continuous"
        shape = (n, size) if continuous else (n,)
        uniform = torch.rand(shape, generator=generator, device=state.device, dtype=state.dtype)
        if continuous:
            action = self.low + (self.high - self.low) * uniform
            inward = torch.nextafter(self.low, self.high), torch.nextafter(self.high, self.low)
            action = torch.clamp(action, *inward)  # a bound itself has probability 0
        else:
            chosen = (uniform * size).long().clamp_max(size - 1)
            action = nn.functional.one_hot(chosen, size).to(state.dtype)
        return action.expand(*state.shape[:-1], size)

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor:
        """-log A, or -log of the box's volume; -inf on its bounds and beyond."""
        if self.action_spec.kind == "discrete":
            return torch.full_like(state[..., 0], -math.log(self.action_size))
        inside = ((action > self.low) & (action < self.high)).all(-1)
        log_volume = torch.log(self.high - self.low).sum()
        return torch.where(inside, -log_volume, -torch.inf)

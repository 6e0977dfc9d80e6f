"""Policies that are a function of the state with a head on it."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from lfiw_ope.errors import PolicyError
from lfiw_ope.policies.heads import NO_DENSITY, Head, Output


class HeadPolicy(nn.Module, ABC):
    """`outputs(state)`, read by a head.

    Args:
        head: what the outputs mean.
        deterministic: act by the head's mode, without noise; there is then no density. A head
            without noise acts so anyhow.
    """

    def __init__(self, head: Head, *, deterministic: bool) -> None:
        super().__init__()
        self.head = head
        self.deterministic = deterministic or not head.noisy

    @abstractmethod
    def outputs(self, state: Tensor) -> Output:
        """At states `[..., n, S]`."""

    @property
    def has_density(self) -> bool:
        return not self.deterministic

    def propose(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """The policy's own draw `[..., n, A]`, before clipping to the action bounds."""
        return self.head.propose(self.outputs(state), None if self.deterministic else generator)

    def execute(self, proposed: Tensor) -> Tensor:
        """What the environment executes of a proposed action."""
        return self.head.execute(proposed)

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """Executed actions `[..., n, A]` at states `[..., n, S]`."""
        return self.execute(self.propose(state, generator))

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor:
        """log π(action | state) of executed actions; see `lfiw_ope.types.DensityPolicy`.

        Raises:
            PolicyError: if the policy is deterministic.
        """
        self._require_density()
        return self.head.log_prob(self.outputs(state), action)

    def proposal_log_prob(self, state: Tensor, proposed: Tensor) -> Tensor:
        """log-density of proposed actions, before clipping.

        Raises:
            PolicyError: if the policy is deterministic.
        """
        self._require_density()
        return self.head.proposal_log_prob(self.outputs(state), proposed)

    def _require_density(self) -> None:
        if self.deterministic:
            raise PolicyError(NO_DENSITY)

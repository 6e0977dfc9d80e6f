"""What the target policies do at given states: each in its place, all with the same noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lfiw_ope.policies.stacking import group_policies, probe
from lfiw_ope.types import Policy

LARGEST_GROUP = 256
ROWS_AT_ONCE = 1 << 13


class TargetPolicies:
    """P policies in one call, in the caller's order.

    Every group of policies that can be stacked draws from a generator that starts anew from the
    same seed, so that a policy acts the same alone and beside any others.

    Args:
        policies: P of them, one or more.
        device: where states are.
    """

    def __init__(self, policies: Sequence[Policy], device: torch.device | str) -> None:
        self.count = len(policies)
        self.groups = group_policies(policies, device, LARGEST_GROUP)
        self._generator = torch.Generator(device)

    def probe(self, states: Tensor) -> None:
        """Let each act once at states `[n, S]`.

        Raises:
            PolicyError: if one cannot.
        """
        for group in self.groups:
            probe(group.policy, states.expand(len(group.indices), -1, -1))

    @torch.no_grad()
    def act(self, state: Tensor, seed: int) -> Tensor:
        """Actions `[P, n, A]` at states `[n, S]`."""
        found = []
        for group in self.groups:
            self._generator.manual_seed(seed)
            rows = state.expand(len(group.indices), -1, -1)
            found.append(group.policy.act(rows, self._generator))
        if len(found) == 1:
            return found[0]
        order = [index for group in self.groups for index in group.indices]
        return torch.cat(found)[torch.tensor(order).argsort().to(state.device)]

    def samples(self, state: Tensor, count: int, seed: int) -> Tensor:
        """`[P, K, n, A]`, `count` independent actions at each of the states `[n, S]`."""
        actions = self.act(state.repeat(count, 1), seed)
        return actions.view(self.count, count, len(state), -1)

    def settled(self, state: Tensor) -> list[bool]:
        """Which of them act alike whatever the noise is, as far as the states `[n, S]` show."""
        same = (self.act(state, 0) == self.act(state, 1)).flatten(1).all(1)
        return [bool(one) for one in same]

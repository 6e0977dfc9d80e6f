"""Likelihood of logged actions under policies, and policies evaluated together."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lfiw_ope.core.errors import PolicyError
from lfiw_ope.core.policy_batch import group_policies, probe
from lfiw_ope.core.protocols import DensityPolicy, Policy, has_density
from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.policies.heads import NO_DENSITY, WITHOUT_DENSITY


def has_mass(policy: Policy) -> bool:
    """Whether it is deterministic with discrete actions: then each has probability 0 or 1."""
    spec = getattr(policy, "action_spec", None)
    return (
        bool(getattr(policy, "deterministic", False))
        and spec is not None
        and spec.kind == "discrete"
    )


def has_likelihood(policy: Policy) -> bool:
    """Whether `log_likelihood` of this policy works."""
    return has_density(policy) or has_mass(policy)


def require_likelihood(policy: Policy) -> None:
    """That `log_likelihood` of this policy works.

    Raises:
        PolicyError: if it does not; it names the estimators that need none.
    """
    if has_likelihood(policy):
        return
    if getattr(policy, "deterministic", False):
        raise PolicyError(NO_DENSITY)
    raise PolicyError(
        f"{type(policy).__name__} has no log_prob; give it one, or use {WITHOUT_DENSITY}."
    )


def log_likelihood(policy: Policy, state: Tensor, action: Tensor) -> Tensor:
    """log π(action | state) `[..., n]` of executed actions; 0 or -inf where there is no choice.

    Raises:
        PolicyError: if the policy has no density, and is not deterministic with discrete actions.
    """
    if has_density(policy) and isinstance(policy, DensityPolicy):
        return policy.log_prob(state, action)
    require_likelihood(policy)
    chosen = policy.act(state, torch.Generator(device=state.device))
    return torch.where((chosen == action).all(-1), 0.0, -torch.inf).to(state.dtype)


LARGEST_GROUP = 256
ROWS_AT_ONCE = 1 << 13

ROWS_THAT_SHOW_NOISE = 1 << 10
"""States at which it is looked for whether a policy acts with noise."""

STORED_BYTES = 1 << 30
"""What the actions of policies without noise may take, at every logged next state: they are then
computed once, and not at every update."""


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

    def trained_together(
        self, log: DeviceLog, largest: Callable[[bool], int]
    ) -> list[tuple[list[int], bool]]:
        """Which of them are trained in one call, and whether those act without noise.

        Args:
            log: at whose states noise is looked for.
            largest: how many may be trained in one call, by whether they act without noise.
        """
        settled = self.settled(log.states[:ROWS_THAT_SHOW_NOISE])
        groups = []
        for kind in (True, False):
            alike = [index for index, of_one in enumerate(settled) if of_one == kind]
            size = largest(kind)
            groups += [(alike[i : i + size], kind) for i in range(0, len(alike), size)]
        return groups

    def next_actions(self, log: DeviceLog, rows: Tensor | None = None) -> Tensor | None:
        """`[P, R', A]` of policies without noise, at the states that follow logged transitions.

        Args:
            log: on the policies' device.
            rows: `[R']`, the transitions; all where none are named.

        Returns:
            None where they would take more than `STORED_BYTES`.
        """
        state_row = log.state_row if rows is None else log.state_row[rows]
        size = log.actions.shape[1] * log.actions.element_size()
        if self.count * len(state_row) * size > STORED_BYTES:
            return None
        parts = torch.split(state_row + 1, ROWS_AT_ONCE)
        return torch.cat([self.act(log.states[some], 0) for some in parts], 1)

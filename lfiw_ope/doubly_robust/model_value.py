"""Q and V of policies in a dynamics model, by rollouts from given states."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_ope.estimand import Estimand
from lfiw_ope.policies.stacking import PolicyGroup, group_policies
from lfiw_ope.rollout import ROWS_AT_ONCE, simulate
from lfiw_ope.seeding import derive
from lfiw_ope.types import Dynamics, Policy

STATES_AT_ONCE = 10_000
"""Rollouts of one policy in one call. It decides which random numbers a row gets, so it depends on
neither the policies nor the memory."""

CELLS_AT_ONCE = 1 << 25
"""Rewards that one call keeps, rollouts times steps: about 200 MB."""


@dataclass(frozen=True)
class ModelValue:
    """An `ActionValue`: the mean simulated return over what remains of the horizon.

    Unbiased for the model's Q and V, with the noise of `rollouts` rollouts a row. Row by row, Q at
    (s, a, t) and V at (s', t + 1) use the same random numbers after the first transition, where two
    calls have as many rows: r + γ V(s') − Q(s, a) then has the noise of one step of the model, and
    little of the rollouts'.

    Attributes:
        groups: the policies, as they run together.
        dynamics: what is simulated.
        estimand: T and γ.
        rollouts: from each row.
        seed: of every draw.
    """

    groups: tuple[PolicyGroup, ...]
    dynamics: Dynamics
    estimand: Estimand
    rollouts: int
    seed: int

    @classmethod
    def of(
        cls,
        policies: Sequence[Policy],
        dynamics: Dynamics,
        estimand: Estimand,
        *,
        rollouts: int = 1,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> "ModelValue":
        """Of these policies, in this order."""
        cells = CELLS_AT_ONCE // estimand.horizon
        largest = max(1, min(ROWS_AT_ONCE, cells) // STATES_AT_ONCE)
        groups = tuple(group_policies(policies, device, largest))
        return cls(groups, dynamics, estimand, rollouts, seed)

    def action_value(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """Q `[P, n]` float64 at states `[n, S]`, actions `[n, A]` and steps t `[n]`."""
        return self._returns(state, action, self.estimand.horizon - step)

    def state_value(self, state: Tensor, step: Tensor) -> Tensor:
        """V `[P, n]` float64 at states `[n, S]` and steps t `[n]`; 0 at t = T."""
        return self._returns(state, None, self.estimand.horizon - step)

    def _returns(self, state: Tensor, action: Tensor | None, left: Tensor) -> Tensor:
        """`[P, n]`, mean discounted rewards of the first `left` steps.

        Rows go in order of what is left, so that few steps are simulated for nothing.
        """
        order = left.argsort(descending=True, stable=True)
        count = sum(len(group.indices) for group in self.groups)
        found = torch.zeros((count, len(state)), dtype=torch.float64, device=state.device)
        size = max(1, STATES_AT_ONCE // self.rollouts)
        for part, rows in enumerate(torch.split(order, size)):
            longest = int(left[rows[0]])
            if longest == 0:
                break  # and so for all that follow
            first = None if action is None else action[rows]
            seed = derive(self.seed, "model value", str(part))
            for group in self.groups:
                of_group = self._simulate(group, state[rows], first, left[rows], longest, seed)
                for place, index in enumerate(group.indices):
                    found[index, rows] = of_group[place]
        return found

    def _simulate(
        self,
        group: PolicyGroup,
        state: Tensor,
        action: Tensor | None,
        left: Tensor,
        longest: int,
        seed: int,
    ) -> Tensor:
        """`[P, n]` of one group, from all rows of one call."""
        several = self.rollouts
        rollout = simulate(
            group.policy,
            self.dynamics,
            state.repeat_interleave(several, 0),
            horizon=longest,
            rollouts=None,
            seed=seed,
            policies=len(group.indices),
            first_action=None if action is None else action.repeat_interleave(several, 0),
        )
        remaining = left.repeat_interleave(several)[:, None]
        counted = torch.arange(longest, device=state.device) < remaining
        returns = torch.where(counted, rollout.discounted(self.estimand.discount), 0.0).sum(-1)
        return returns.view(len(returns), -1, several).mean(-1)

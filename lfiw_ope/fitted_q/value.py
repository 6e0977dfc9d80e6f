"""The fitted Q of P policies, to be asked at any state, action and step."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_ope.fitted_q.networks import ValueNetworks
from lfiw_ope.fitted_q.report import QReport
from lfiw_ope.nn.fit import autocast
from lfiw_ope.policies.together import TargetPolicies
from lfiw_ope.seeding import derive

ROWS_AT_ONCE = 1 << 10
"""States evaluated together. A number of its own, and not made from P: the noise of actions is
drawn for so many at a time, and is the same for a policy alone and among others."""

HIDDEN_AT_ONCE = 1 << 26
"""Outputs of a hidden layer that are held together, by all networks: 256 MB."""


@dataclass(frozen=True)
class StateValue:
    """V of P policies by M members each.

    Attributes:
        networks: Q.
        policies: the P policies.
        samples: K, actions drawn at a state; 1 where no policy acts with noise.
        seed: of their noise: a state's value is the same whenever it is asked for.
    """

    networks: ValueNetworks
    policies: TargetPolicies
    samples: int
    seed: int

    @torch.no_grad()
    def __call__(self, state: Tensor, step: Tensor) -> Tensor:
        """V_t `[P, M, n]` at states `[n, S]` and steps `[n]`; 0 at t = T."""
        horizon = self.networks.scale.estimand.horizon
        found = []
        for part, rows in enumerate(_parts(len(state))):
            here, seed = state[rows], derive(self.seed, "state value", str(part))
            actions = self.policies.samples(here, self.samples, seed)
            values = action_values(self.networks, here, actions, step[rows].clamp_max(horizon - 1))
            found.append(values.masked_fill(step[rows] >= horizon, 0.0))
        return torch.cat(found, -1)


@dataclass(frozen=True)
class FittedQ:
    """Q of P policies over what remains of the horizon; an `lfiw_ope.types.ActionValue`.

    The networks are those that followed the trained ones: a running mean of their weights, which
    jitters less.

    Attributes:
        members: V of each policy and member.
        member_values: `[M, P]` float64, mean V_0 over the logged initial states, by member.
        reports: how the training went, by policy.
    """

    members: StateValue
    member_values: Tensor
    reports: tuple[QReport, ...]

    @property
    def values(self) -> Tensor:
        """`[P]` float64, mean V_0 over the logged initial states and the members."""
        return self.member_values.mean(0)

    @torch.no_grad()
    def action_value(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """Q_t `[P, n]` at states `[n, S]`, actions `[n, A]` and steps t `[n]`, below T."""
        found = [
            action_values(self.members.networks, state[rows], action[None, None, rows], step[rows])
            for rows in _parts(len(state))
        ]
        return torch.cat(found, -1).mean(1)

    def state_value(self, state: Tensor, step: Tensor) -> Tensor:
        """V_t `[P, n]` at states `[n, S]` and steps t `[n]`, a mean over K draws; 0 at t = T."""
        return self.members(state, step).mean(1)


def action_values(networks: ValueNetworks, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
    """Q_t `[P, M, n]`, mean over K: states `[n, S]`, actions `[P or 1, K, n, A]`, steps `[n]`."""
    scale, config = networks.scale, networks.config
    features = networks.features(state, action, step).flatten(1, 2)[:, None]
    each = networks.policies * config.members * max(config.hidden, default=1)
    parts = torch.split(features, max(1, HIDDEN_AT_ONCE // each), 2)
    with autocast(features.device, config.fit.precision):
        output = torch.cat([networks.outputs(networks.following, part) for part in parts], -1)
    mean = output.view(*output.shape[:2], *action.shape[1:3]).mean(2)
    return scale.value(mean, scale.left(step))


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE))

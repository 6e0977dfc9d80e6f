"""Members of the dynamics ensemble one by one: what a policy is worth under each."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.estimand import Estimand
from lfiw_ope.policies.stacking import group_policies
from lfiw_ope.rollout import ROWS_AT_ONCE, simulate
from lfiw_ope.types import Policy, Progress, silent

LEAST_ROLLOUTS = 50
"""Of each member, where n / M is less."""


def one_member(dynamics: EnsembleDynamics, number: int) -> EnsembleDynamics:
    """The ensemble's member of this number as a model of its own; it shares the parameters."""
    one = EnsembleDynamics(
        replace(dynamics.config, members=1),
        dynamics.inputs,
        dynamics.targets,
        (dynamics.low, dynamics.high),
        state_size=dynamics.state_size,
        learns_termination=dynamics.learns_termination,
        reward=dynamics.reward_rule,
        termination=dynamics.termination_rule,
    )
    one.network, one.noise = dynamics.network.member(number), dynamics.noise.of_member(number)
    return one.requires_grad_(False)


def member_values(
    policies: Sequence[Policy],
    dynamics: EnsembleDynamics,
    initial_states: Tensor,
    estimand: Estimand,
    *,
    rollouts: int,
    seed: int,
    progress: Progress = silent,
) -> Tensor:
    """`[P, M]` float64, on the CPU: the value of each policy where one member simulates throughout.

    All members start at the same states and draw the same numbers, so that what they differ by is
    little blurred by noise. Each has n / M rollouts (and `LEAST_ROLLOUTS` at least): together as
    much as one more simulation of the ensemble.

    Args:
        policies: P.
        dynamics: the ensemble.
        initial_states: `[N, S]`, on the model's device.
        estimand: T and γ.
        rollouts: n, of the ensemble's own simulation.
        seed: of every draw, as the ensemble's own simulation has it.
        progress: told how far the simulation is.
    """
    members = dynamics.config.members
    views = [one_member(dynamics, number) for number in range(members)]
    each = max(math.ceil(rollouts / members), min(rollouts, LEAST_ROLLOUTS))
    values = torch.zeros((len(policies), members), dtype=torch.float64)
    for group in group_policies(policies, initial_states.device, max(1, ROWS_AT_ONCE // each)):
        for number, view in enumerate(views):
            rollout = simulate(
                group.policy,
                view,
                initial_states,
                horizon=estimand.horizon,
                rollouts=each,
                seed=seed,
                policies=len(group.indices),
                progress=progress,
            )
            returns = rollout.discounted(estimand.discount).sum(-1)
            values[list(group.indices), number] = returns.mean(-1).cpu()
    return values

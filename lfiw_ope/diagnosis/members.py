"""What each member of an ensemble expects of the next step, without noise."""

import torch
from torch import Tensor

from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.nn.fit import autocast


def _means(dynamics: EnsembleDynamics, state: Tensor, action: Tensor) -> Tensor:
    """`[M, B, S + 1]`, in standardised units of a step."""
    with autocast(state.device, dynamics.config.fit.precision):
        return dynamics.member_outputs(state, action).mean.float()


@torch.no_grad()
def mean_step(dynamics: EnsembleDynamics, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Next states `[M, B, S]` and rewards `[M, B]`, each member's own mean at its own rows.

    Args:
        dynamics: the ensemble.
        state: `[M, B, S]`
        action: `[M, B, A]`
    """
    found = dynamics.targets.inverse(_means(dynamics, state, action))
    found[..., :-1] += state
    kept = torch.clamp(found, dynamics.low, dynamics.high)
    next_state, reward = kept[..., :-1], kept[..., -1]
    if dynamics.reward_rule is not None:
        reward = dynamics.reward_rule(state, action, next_state)
    return next_state, reward


@torch.no_grad()
def spread(dynamics: EnsembleDynamics, state: Tensor, action: Tensor) -> Tensor:
    """How far the members are apart at rows `[B, ·]`, `[B]`.

    The mean over the entries of a step of the standard deviation of the members' means, in standard
    deviations of what a step does in the log. A reward that is known is no entry.

    Raises:
        ValueError: if there is a single member, which does not know it.
    """
    if dynamics.config.members < 2:
        raise ValueError("A single member does not disagree.")
    means = _means(dynamics, state, action)
    kept = means if dynamics.reward_rule is None else means[..., :-1]
    return kept.std(0).mean(-1)

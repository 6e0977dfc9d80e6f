"""How likely a policy is to take an action: from its own density, or because it has no choice."""

import torch
from torch import Tensor

from lfiw_ope.errors import PolicyError
from lfiw_ope.policies.heads import NO_DENSITY, WITHOUT_DENSITY
from lfiw_ope.types import DensityPolicy, Policy, has_density


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

"""Policies of one architecture run in one batched call; the rest one after the other."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lfiw_ope.core.errors import PolicyError
from lfiw_ope.core.protocols import Policy, StackablePolicy
from lfiw_ope.core.seeding import torch_generator


class PolicyGroup(NamedTuple):
    """Policies that run in one call.

    Attributes:
        policy: acts for all of them, `[P, n, S] -> [P, n, A]`.
        indices: where each of the P stood in the caller's list.
    """

    policy: Policy
    indices: tuple[int, ...]


def check_policy(
    policy: object, *, state_size: int, action_size: int, action_kind: str | None = None
) -> Policy:
    """The argument, if it is a policy for these sizes.

    Args:
        policy: what is checked.
        state_size: S, of the data.
        action_size: A, of the data.
        action_kind: "continuous" or "discrete", of the data; a policy that says its own
            `action_spec` is held to it.

    Raises:
        PolicyError: if it is no policy, or one for other spaces.
    """
    if isinstance(policy, type):
        raise PolicyError(
            f"{policy.__name__} is a class, and a policy is wanted: give an instance of it."
        )
    if not isinstance(policy, Policy):
        raise PolicyError(
            f"{type(policy).__name__} is not a policy: it needs state_size, action_size and "
            "act(state, generator); see lfiw_ope.core.Policy. from_sb3 takes a stable-baselines3 "
            "model, from_module a torch module and from_function a plain function."
        )
    if (policy.state_size, policy.action_size) != (state_size, action_size):
        raise PolicyError(
            f"The policy takes {policy.state_size} state entries and gives {policy.action_size} "
            f"action entries; the data have {state_size} and {action_size}. "
            "Use a policy of the data's environment."
        )
    spec = getattr(policy, "action_spec", None)
    if spec is not None and action_kind is not None and spec.kind != action_kind:
        raise PolicyError(
            f"The policy's actions are {spec.kind} and the data's are {action_kind}, both of "
            f"{action_size} entries. Use a policy of the data's environment."
        )
    return policy


def probe(policy: Policy, states: Tensor) -> None:
    """Let the policy act once, before hours of work rest on it.

    Args:
        policy: what is tried.
        states: `[P, n, S]` or `[n, S]`.

    Raises:
        PolicyError: if it fails, or gives actions of another shape or dtype, or not finite ones.
    """
    wanted = (*states.shape[:-1], policy.action_size)
    try:
        action = policy.act(states, torch_generator(0, "probe", device=states.device))
    except (RuntimeError, TypeError, IndexError) as error:
        raise PolicyError(
            f"The policy failed on states of shape {tuple(states.shape)} ({error}); a policy that "
            "stacks several cannot stand for one."
        ) from error
    if tuple(action.shape) != wanted or action.dtype != states.dtype:
        raise PolicyError(
            f"The policy gave {action.dtype} actions of shape {tuple(action.shape)} at "
            f"{states.dtype} states of shape {tuple(states.shape)}; expected {states.dtype} "
            f"actions of shape {wanted}."
        )
    if not action.isfinite().all():
        raise PolicyError(
            "The policy gave actions that are not finite at logged states; look for NaN in its "
            "weights or in the normaliser that it was trained with."
        )


def group_policies(
    policies: Sequence[Policy], device: torch.device | str, largest: int
) -> list[PolicyGroup]:
    """Policies in groups of at most `largest` that run together, on `device` where they can."""
    alike: dict[Hashable, list[int]] = {}
    for index, policy in enumerate(policies):
        key = policy.stack_key if isinstance(policy, StackablePolicy) else ("alone", index)
        alike.setdefault(key, []).append(index)
    groups = []
    for indices in alike.values():
        for start in range(0, len(indices), largest):
            part = indices[start : start + largest]
            first, others = policies[part[0]], [policies[i] for i in part[1:]]
            if isinstance(first, StackablePolicy):
                first = first.stack(others).to(device)  # type: ignore[arg-type]
            groups.append(PolicyGroup(first, tuple(part)))
    return groups

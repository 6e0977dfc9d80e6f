"""Policies with a head on a function of the state, and checks of their actions."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import PolicyError
from lfiw_ope.core.protocols import Policy
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
        """log π(action | state) of executed actions; see `lfiw_ope.core.DensityPolicy`.

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


def alike(one: ActionSpec, other: ActionSpec, *, unbounded_is_unknown: bool) -> bool:
    """The same kind and size, and bounds that agree to what float32 holds of them.

    Args:
        one: what actions are.
        other: likewise.
        unbounded_is_unknown: an infinite bound contradicts nothing: a log may not know its own.
    """
    near = all(
        a == b
        or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-8)
        or (unbounded_is_unknown and not math.isfinite(a - b))
        for a, b in zip((*one.low, *one.high), (*other.low, *other.high), strict=False)
    )
    return (one.kind, one.size) == (other.kind, other.size) and near


def check_environment(
    policy: Policy, state_size: int | None, action_spec: ActionSpec | None, source: object
) -> None:
    """Hold a policy that says its own sizes to those of the environment, where they are given.

    Raises:
        PolicyError: if it is a policy of another environment; it names `source`.
    """
    if state_size not in (None, policy.state_size):
        raise PolicyError(
            f"state_size is {state_size}, but the policy in {source} takes {policy.state_size} "
            "state entries; it is a policy of another environment."
        )
    said = getattr(policy, "action_spec", None)
    if (
        said is not None
        and action_spec is not None
        and not alike(said, action_spec, unbounded_is_unknown=True)
    ):
        raise PolicyError(
            f"action_spec is {action_spec}, but {source} says {said}; it is a policy of another "
            "environment."
        )


def action_rows(value: Any, rows: int, spec: ActionSpec) -> Tensor:
    """What a user's code gave, as `[rows, A]`: indices of discrete actions become one-hot.

    Raises:
        PolicyError: if it is neither indices nor one-hot where actions are discrete, or of another
            shape.
    """
    if spec.kind == "discrete" and isinstance(value, Tensor) and value.numel() == rows:
        index = value.reshape(rows)
        if not ((index >= 0) & (index < spec.size) & (index == index.long())).all():
            raise PolicyError(
                f"The policy gave discrete actions outside 0 to {spec.size - 1}, or no whole "
                "numbers."
            )
        return nn.functional.one_hot(index.long(), spec.size)
    check_rows(value, rows, spec.size)
    # One look at the result, not one for each condition: on a GPU each would wait for it.
    if spec.kind == "discrete" and not (
        ((value == 0) | (value == 1)).all() & (value.sum(-1) == 1).all()
    ):
        raise PolicyError(
            f"The policy gave rows of {spec.size} numbers that are not one-hot; where actions are "
            "discrete, give their indices. Logits go through from_module(gives='logits'), and "
            "probabilities must be drawn from."
        )
    return value  # type: ignore[no-any-return]  # check_rows says that it is a tensor


def check_rows(value: Any, rows: int, size: int) -> None:
    """Raise unless it is a tensor `[rows, size]`.

    Raises:
        PolicyError: otherwise.
    """
    found = tuple(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
    if found != (rows, size):
        raise PolicyError(
            f"The policy gave {found} at {rows} states; expected an array of shape {(rows, size)}."
        )

"""What a policy's actions are held to: its action space, and the shape of what user code gives."""

import math
from typing import Any

from torch import Tensor, nn

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import PolicyError
from lfiw_ope.types import Policy


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

"""K transitions at each (s, a), from any dynamics model."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lfiw_ope.core.protocols import Dynamics, ManyDraws, Transition
from lfiw_ope.core.validation import whole


class Draws(NamedTuple):
    """K transitions at each (s, a), or without the K axis the one of them that is kept.

    `mean` is what each draw's noise was added to, (s', r) as its member expects it; None where the
    model does not tell.
    """

    next_state: Tensor  # [K, ..., n, S]
    reward: Tensor  # [K, ..., n]
    terminated: Tensor  # [K, ..., n]
    bounded: Tensor  # [K, ..., n]
    mean: Tensor | None = None  # [K, ..., n, S + 1]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Draws":
        """With every field changed alike."""
        return Draws(*(None if of is None else change(of) for of in self))  # type: ignore[arg-type]


PER_DRAW = ("next_state", "reward", "terminated", "bounded")
"""The fields that lead with the K axis."""


def draws(
    dynamics: Dynamics,
    state: Tensor,
    action: Tensor,
    count: int,
    generator: torch.Generator,
    *,
    own: Transition | None = None,
) -> Draws:
    """`count` transitions at each (state `[..., n, S]`, action `[..., n, A]`), independent.

    Each is distributed as `sample`'s. A model that has `draw` is asked for them together; any other
    samples repeated rows. Random numbers are shared along the leading axes, as `sample`'s are.

    Args:
        dynamics: what is drawn from.
        state: `[..., n, S]`
        action: `[..., n, A]`
        count: K, all told.
        generator: of every draw but the own one.
        own: a transition that was drawn at (s, a) already: it is the first, and K − 1 are drawn.

    Raises:
        ConfigError: if K is below 1.
    """
    fresh = whole("The number of draws", count, least=1) - (own is not None)
    first = None if own is None else _lifted(own)
    if fresh == 0 and first is not None:
        return first
    lead = state.shape[:-2]
    # [P, n, ·], which `draw` is specified for; views, where the layout allows.
    states, actions = (values.reshape(-1, *values.shape[-2:]) for values in (state, action))
    if isinstance(dynamics, ManyDraws):
        several = dynamics.draw(states, actions, fresh, generator)
    else:
        several = _repeated(dynamics, states, actions, fresh, generator)
    fields = {
        name: (values := getattr(several, name)).reshape(fresh, *lead, *values.shape[2:])
        for name in PER_DRAW
    }
    mean = getattr(several, "mean", None)
    if mean is not None:
        mean = mean.reshape(fresh, *lead, *mean.shape[2:])
    if first is not None:
        fields = {name: torch.cat((getattr(first, name), of)) for name, of in fields.items()}
        mean = None if mean is None or first.mean is None else torch.cat((first.mean, mean))
    return Draws(**fields, mean=mean)


def _lifted(own: Transition) -> Draws:
    """One transition as K = 1 of them."""
    fields = {name: getattr(own, name) for name in PER_DRAW}
    return Draws(**fields, mean=getattr(own, "mean", None)).each(lambda of: of[None])


def _repeated(
    dynamics: Dynamics, state: Tensor, action: Tensor, count: int, generator: torch.Generator
) -> Draws:
    """What `ManyDraws.draw` does, by one `sample` of repeated rows."""
    # Repeated along the n axis, where random numbers are independent.
    policies, n = state.shape[:2]
    step = dynamics.sample(state.repeat(1, count, 1), action.repeat(1, count, 1), generator)
    fields = (getattr(step, name) for name in PER_DRAW)
    return Draws(
        *(values.view(policies, count, n, *values.shape[2:]).transpose(0, 1) for values in fields)
    )

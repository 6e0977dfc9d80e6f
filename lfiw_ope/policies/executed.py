"""Log-probabilities of the actions that the environment executes of a torch distribution's draws.

What clips a draw puts a probability on the bound, and a tanh that rounds to 1 does too; torch's own
`log_prob` knows neither. The measure is that of `lfiw_ope.policies.density`.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    TanhTransform,
    TransformedDistribution,
    constraints,
)
from torch.distributions.transforms import IndependentTransform, Transform

from lfiw_ope.errors import PolicyError
from lfiw_ope.policies.density import Bounds, log_clipped_normal, log_squashed_normal, squash


def draw_within(distribution: Distribution, bounds: Bounds) -> Tensor:
    """A draw; of a squashed normal distribution the bound itself where tanh rounds to 1."""
    squashed = _squashed(distribution, bounds)
    return distribution.sample() if squashed is None else squash(squashed[0].sample(), squashed[1])


def log_executed(distribution: Distribution, action: Tensor, bounds: Bounds) -> Tensor:
    """log π of executed actions, which are draws clipped to the bounds.

    Args:
        distribution: of batch shape B and event shape E, B + E = `[B, A]`.
        action: B + E.
        bounds: in a shape that meets the actions.

    Returns:
        Of batch shape B: entries of an action are added up where they are an event of the
        distribution's own.

    Raises:
        PolicyError: if the distribution is clipped and does not say what lies beyond a bound, or
            gives NaN or an infinite density.
    """
    squashed = _squashed(distribution, bounds)
    if squashed is not None:
        normal, image = squashed
        return _add_up(
            log_squashed_normal(*_moments(normal), action, image), len(distribution.event_shape)
        )
    if isinstance(distribution, Independent):
        found = log_executed(distribution.base_dist, action, bounds)
        return _add_up(found, distribution.reinterpreted_batch_ndims)
    if isinstance(distribution, MixtureSameFamily):
        return _log_mixture(distribution, action, bounds)
    if isinstance(distribution, Normal):
        return log_clipped_normal(*_moments(distribution), action, bounds)
    return _log_of_any(distribution, action, bounds)


def _add_up(found: Tensor, axes: int) -> Tensor:
    """The sum over the last axes."""
    return found.flatten(-axes).sum(-1) if axes else found


def _moments(normal: Any) -> tuple[Tensor, Tensor]:
    return normal.mean, normal.stddev.log()


def _log_mixture(mixture: Any, action: Tensor, bounds: Bounds) -> Tensor:
    """log Σ_k w_k π_k: clipping a mixture is clipping each of its parts."""
    axis = -1 - len(mixture.event_shape)
    wide = Bounds(*(bound.expand(action.shape).unsqueeze(axis) for bound in bounds))
    of_each = log_executed(mixture.component_distribution, action.unsqueeze(axis), wide)
    return torch.logsumexp(of_each + mixture.mixture_distribution.logits.log_softmax(-1), -1)


def _masses_beyond(
    distribution: Any, action: Tensor, bounds: Bounds
) -> tuple[Tensor, Tensor] | None:
    """The probabilities below and above the bounds; None where torch has no cdf."""
    try:
        below = distribution.cdf(bounds.low.expand(action.shape))
        above = 1.0 - distribution.cdf(bounds.high.expand(action.shape))
    except NotImplementedError:
        return None
    return below, above


def _log_of_any(distribution: Any, action: Tensor, bounds: Bounds) -> Tensor:
    """The density between the bounds and, of entries that are independent, the masses on them."""
    unchecked = copy.copy(distribution)
    unchecked._validate_args = False  # an action outside the support has the log-density -inf
    found: Tensor = unchecked.log_prob(action)
    # The masses of entries that depend on each other are no product of their own.
    masses = None if distribution.event_shape else _masses_beyond(unchecked, action, bounds)
    if masses is not None:
        below, above = masses
        found = torch.where(action <= bounds.low, below.clamp_min(0).log(), found)
        found = torch.where(action >= bounds.high, above.clamp_min(0).log(), found)
    elif _reaches_beyond(distribution, bounds):
        raise PolicyError(
            f"A {type(distribution).__name__} that is clipped to the action bounds puts a "
            "probability on them, which torch does not give; use Normal, or give the module a "
            "distribution that keeps within the bounds. proposal_log_prob works."
        )
    if (found.isnan() | (found == torch.inf)).any():
        raise PolicyError(
            f"A {type(distribution).__name__} gave NaN or an infinite density for an action; use "
            "Normal, Normal under one TanhTransform, or another that is finite on its bounds."
        )
    return found


def _reaches_beyond(distribution: Distribution, bounds: Bounds) -> bool:
    """Whether a draw can lie outside the bounds, by its support."""
    support: Any = distribution.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    lowest = torch.as_tensor(getattr(support, "lower_bound", -torch.inf)).to(bounds.low)
    highest = torch.as_tensor(getattr(support, "upper_bound", torch.inf)).to(bounds.high)
    if support is constraints.simplex:
        lowest, highest = torch.zeros_like(lowest), torch.ones_like(highest)
    return bool(((lowest < bounds.low) | (highest > bounds.high)).any())


def _squashed(distribution: Distribution, bounds: Bounds) -> tuple[Any, Bounds] | None:
    """A normal distribution and where its tanh reaches, if that is what it is, within the bounds.

    Bounds that the tanh's rescaling meets but for rounding are the bounds themselves.
    """
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    if not isinstance(distribution, TransformedDistribution):
        return None
    normal: Any = distribution.base_dist
    while isinstance(normal, Independent):
        normal = normal.base_dist
    parts = [part for one in distribution.transforms for part in _parts(one)]
    if not isinstance(normal, Normal) or [type(part) for part in parts] not in (
        [TanhTransform],
        [TanhTransform, AffineTransform],
    ):
        return None
    centre, reach = (parts[1].loc, parts[1].scale) if len(parts) == 2 else (0.0, 1.0)
    reach = torch.as_tensor(reach).to(bounds.low)
    if not (reach > 0).all():
        return None
    ends = Bounds(centre - reach, centre + reach)
    close = [
        (end - bound).abs() <= 1e-6 * torch.maximum(bound.abs(), reach)
        for end, bound in zip(ends, bounds, strict=True)
    ]
    image = Bounds(
        torch.where(close[0], bounds.low, ends.low), torch.where(close[1], bounds.high, ends.high)
    )
    within = (image.low >= bounds.low) & (image.high <= bounds.high)
    return (normal, image) if within.all() else None


def _parts(transform: Transform) -> Iterator[Any]:
    """A transform's parts, in the order of their doing."""
    if isinstance(transform, IndependentTransform):
        yield from _parts(transform.base_transform)
    elif isinstance(transform, ComposeTransform):
        for part in transform.parts:
            yield from _parts(part)
    else:
        yield transform

"""Policies that return torch distributions, and the density of executed actions.

What clips a draw puts a probability on the bound, and a tanh that rounds to 1 does too; torch's own
`log_prob` knows neither. The measure is that of `lfiw_ope.policies.heads`.
"""

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Categorical,
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

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import PolicyError
from lfiw_ope.core.validation import whole
from lfiw_ope.policies.acting import action_rows
from lfiw_ope.policies.heads import (
    NO_DENSITY,
    Bounds,
    log_clipped_normal,
    log_squashed_normal,
    squash,
)


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


class DistributionPolicy(nn.Module):
    """A module `[B, S] ->` a distribution over actions `[B, A]` or over indices `[B]`.

    A distribution may leave the bounds: it is clipped on execution, and `log_prob` is that of the
    clipped action, for a normal distribution, any other of independent entries whose `cdf` torch
    knows, and a mixture of such. A normal distribution under one TanhTransform, rescaled or not,
    has the `log_prob` of SAC's actor, finite on the bounds. Of a distribution that is clipped and
    has no `cdf`, such as a MultivariateNormal, `proposal_log_prob` alone works.

    Args:
        module: gives the distribution.
        state_size: S.
        action_spec: what actions are.
        deterministic: act by the distribution's mode.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        state_size: int,
        action_spec: ActionSpec,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        self.module = module
        self.state_size = whole("state_size", state_size, least=1)
        self.action_spec = action_spec
        self.deterministic = deterministic
        self.register_buffer("low", torch.tensor(action_spec.low, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(action_spec.high, dtype=torch.float32))

    @property
    def action_size(self) -> int:
        return self.action_spec.size

    @property
    def has_density(self) -> bool:
        return not self.deterministic

    @property
    def stack_key(self) -> Hashable:
        return "distribution", id(self)

    def stack(self, others: Sequence["DistributionPolicy"]) -> "DistributionPolicy":  # noqa: ARG002
        """A copy, which serves as many policies as are this one; stack_key tells others apart."""
        return copy.deepcopy(self)

    def propose(self, state: Tensor, generator: torch.Generator) -> Tensor:
        if self.deterministic:
            return self._each(state, _mode)
        with seeded_from(generator, state.device) as restart:

            def draw(distribution: Distribution) -> Tensor:
                restart()  # the same numbers at every leading index: see lfiw_ope.core.protocols
                continuous = self.action_spec.kind == "continuous"
                bounds = Bounds(self.low, self.high)
                return draw_within(distribution, bounds) if continuous else distribution.sample()

            return self._each(state, draw)

    def _each(self, state: Tensor, action_of: Callable[[Distribution], Tensor]) -> Tensor:
        """Actions at states `[..., n, S]`, from the distribution of each `[n, S]`."""
        slices = state.reshape(-1, *state.shape[-2:])
        found = torch.stack([self._encoded(action_of(self._at(rows))) for rows in slices])
        if found.shape[1:] != (state.shape[-2], self.action_size):
            raise PolicyError(
                f"The policy's distribution gave {tuple(found.shape[1:])} at {state.shape[-2]} "
                f"states; expected {(state.shape[-2], self.action_size)}."
            )
        return found.reshape(*state.shape[:-1], -1).to(state.dtype)

    def _at(self, rows: Tensor) -> Distribution:
        found = self.module(rows)
        if not isinstance(found, Distribution):
            raise PolicyError(
                f"The module gave a {type(found).__name__}; expected a torch distribution. Say "
                "what it gives: gives='actions' or 'logits'."
            )
        return found

    def _encoded(self, drawn: Tensor) -> Tensor:
        if self.action_spec.kind == "discrete":
            return action_rows(drawn, len(drawn), self.action_spec)
        return drawn

    def execute(self, proposed: Tensor) -> Tensor:
        return proposed.clamp(self.low, self.high) if len(self.low) else proposed

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        return self.execute(self.propose(state, generator))

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor:
        """log π(action | state); see `lfiw_ope.core.DensityPolicy`.

        Raises:
            PolicyError: if the policy is deterministic, or its distribution does not say what lies
                beyond a bound that clips it.
        """
        return self._log_prob(state, action, clipped=True)

    def proposal_log_prob(self, state: Tensor, proposed: Tensor) -> Tensor:
        """log-density of proposed actions, before clipping.

        Raises:
            PolicyError: if the policy is deterministic.
        """
        return self._log_prob(state, proposed, clipped=False)

    def _log_prob(self, state: Tensor, action: Tensor, *, clipped: bool) -> Tensor:
        if self.deterministic:
            raise PolicyError(NO_DENSITY)
        distribution: Any = self._at(state.reshape(-1, state.shape[-1]))
        rows = action.reshape(-1, action.shape[-1])
        if clipped and self.action_spec.kind == "continuous":
            found = log_executed(distribution, rows, Bounds(self.low, self.high))
        else:
            index = isinstance(distribution, Categorical)
            found = distribution.log_prob(rows.argmax(-1) if index else rows)
        found = found.sum(-1) if found.dim() == 2 else found
        return found.reshape(state.shape[:-1]).to(state.dtype)


def _mode(distribution: Distribution) -> Tensor:
    try:
        return distribution.mode
    except NotImplementedError as error:
        raise PolicyError(
            f"A {type(distribution).__name__} has no mode; leave deterministic out, or give a "
            "module that computes the action."
        ) from error


@contextmanager
def seeded_from(
    generator: torch.Generator, device: torch.device
) -> Iterator[Callable[[], torch.Generator]]:
    """Lend torch's global generator, which distributions draw from, and put it back as it was.

    Yields:
        What starts it from the seed again: one draw of `generator`.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    on_gpu = device.type == "cuda"
    index = torch.cuda.current_device() if on_gpu and device.index is None else device.index
    lent = torch.cuda.default_generators[index or 0] if on_gpu else torch.default_generator
    before = lent.get_state()
    try:
        yield lambda: lent.manual_seed(seed)
    finally:
        lent.set_state(before)

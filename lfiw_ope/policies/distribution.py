"""Policies that are torch modules whose output is a `torch.distributions.Distribution`."""

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from lfiw_ope.checks import whole
from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import PolicyError
from lfiw_ope.policies.actions import action_rows
from lfiw_ope.policies.density import Bounds
from lfiw_ope.policies.executed import draw_within, log_executed
from lfiw_ope.policies.heads import NO_DENSITY


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
                restart()  # the same numbers at every leading index: see lfiw_ope.types
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
        """log π(action | state); see `lfiw_ope.types.DensityPolicy`.

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

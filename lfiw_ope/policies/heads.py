"""Heads of policy networks: distributions over actions and their densities.

An executed entry has a density between its bounds and, where a draw is clipped or a tanh rounds
to 1, a probability of lying exactly on a bound. Each function gives the log of the one or of the
other, entry by entry, with respect to the same measure: Lebesgue between the bounds plus a unit
mass on each bound. So ratios of two policies are right on the bounds too, whatever their kind.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.special import log_ndtr

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import PolicyError


class Bounds(NamedTuple):
    """Action bounds in a shape that meets the actions; infinite where there are none."""

    low: Tensor
    high: Tensor


def log_normal(mean: Tensor, log_std: Tensor, value: Tensor) -> Tensor:
    """log N(value; mean, σ²)"""
    z = (value - mean) * torch.exp(-log_std)
    return -0.5 * z.square() - log_std - 0.5 * math.log(2.0 * math.pi)


def log_clipped_normal(mean: Tensor, log_std: Tensor, action: Tensor, bounds: Bounds) -> Tensor:
    """Of clip(N(mean, σ²), low, high): the censored normal distribution.

    The density inside, log Φ((low − mean)/σ) at the lower bound and log Φ((mean − high)/σ) at the
    upper; an action beyond a bound counts as on it, which is where the environment executes it.
    """
    on_low, on_high = action <= bounds.low, action >= bounds.high
    at_low = _log_mass(torch.where(on_low, bounds.low - mean, 0.0), log_std)
    at_high = _log_mass(torch.where(on_high, mean - bounds.high, 0.0), log_std)
    density = log_normal(mean, log_std, action)
    found = _piecewise(density, on_low, at_low, on_high, at_high)
    return torch.where(bounds.low == bounds.high, 0.0, found)  # nothing is left to chance


def _log_mass(reach: Tensor, log_std: Tensor) -> Tensor:
    """log Φ(reach / σ), in float64: in float32 its gradient is wrong beyond 1000 σ.

    A reach of 0 where there is none to speak of: an infinite one would make the gradient NaN.
    """
    mass: Tensor = log_ndtr(reach.double() * torch.exp(-log_std).double())
    return mass.to(reach.dtype)


def squash(value: Tensor, bounds: Bounds) -> Tensor:
    """low + ½ (tanh(value) + 1)(high − low), and the bound itself where tanh rounds to ±1."""
    unit, edge = torch.tanh(value), _edge(bounds)
    action = bounds.low + 0.5 * (unit + 1.0) * (bounds.high - bounds.low)
    action = torch.where(unit >= edge, bounds.high, action)
    return torch.where(unit <= -edge, bounds.low, action)


def log_squashed_normal(mean: Tensor, log_std: Tensor, action: Tensor, bounds: Bounds) -> Tensor:
    """Of `squash(u)`, u ~ N(mean, σ²): log N(u) − log(1 − tanh²u) − log((high − low)/2).

    In float32 tanh reaches ±1 at |u| of 8.3, and there the executed action is the bound itself:
    its log-probability is that of all u beyond, and so stays finite. In float64, since the inverse
    of tanh loses the digits that 1 − tanh does.
    """
    mean, log_std, low, high = (t.double() for t in (mean, log_std, *bounds))
    edge = _edge(bounds).double()
    unit = 2.0 * (action.double() - low) / (high - low) - 1.0
    inside = torch.maximum(torch.minimum(unit, edge), -edge)
    log_slope = torch.log((1.0 - inside) * (1.0 + inside)) + torch.log(0.5 * (high - low))
    density = log_normal(mean, log_std, torch.atanh(inside)) - log_slope
    scale, limit = torch.exp(-log_std), torch.atanh(edge)
    at_low, at_high = log_ndtr((-limit - mean) * scale), log_ndtr((mean - limit) * scale)
    found = _piecewise(density, unit <= -edge, at_low, unit >= edge, at_high)
    return torch.where(low == high, 0.0, found).to(action.dtype)


def _edge(bounds: Bounds) -> Tensor:
    """The least tanh that counts as 1: half a range is resolved as finely as its bound is."""
    largest = torch.maximum(bounds.low.abs(), bounds.high.abs())
    coarseness = (2.0 * largest / (bounds.high - bounds.low)).clamp_min(1.0)
    return 1.0 - torch.finfo(torch.float32).eps * coarseness


def _piecewise(
    inside: Tensor, on_low: Tensor, at_low: Tensor, on_high: Tensor, at_high: Tensor
) -> Tensor:
    return torch.where(on_low, at_low, torch.where(on_high, at_high, inside))


WITHOUT_DENSITY = "an estimator that needs none (LFIW, ModelBased, FQE, DICE)"

NO_DENSITY = (
    f"A deterministic policy has no density; use {WITHOUT_DENSITY}. Where it has noise of its own, "
    "load it with deterministic=False; where its actions are discrete, EpsilonGreedy gives it a "
    "distribution."
)


class Output(NamedTuple):
    """What a network gives at states `[..., n, S]`.

    Attributes:
        value: `[..., n, O]`, of its last layer.
        latent: `[..., n, L]`, of its last hidden layer; None where the network does not show it.
    """

    value: Tensor
    latent: Tensor | None = None


class Head(Protocol):
    """A distribution over actions, for P policies, from network outputs."""

    @property
    def name(self) -> str: ...

    @property
    def reads_latent(self) -> bool:
        """Whether it reads `Output.latent`, which costs the network its quickest way."""
        ...

    @property
    def noisy(self) -> bool:
        """Whether it has a distribution at all, or only a mode."""
        ...

    def action_size(self, outputs: int) -> int:
        """A, where the network has so many outputs.

        Raises:
            PolicyError: if that number does not fit.
        """
        ...

    def action_spec(self, outputs: int) -> ActionSpec: ...

    def propose(self, output: Output, noise: torch.Generator | None) -> Tensor:
        """A draw, or the mode where `noise` is None, before any clipping."""
        ...

    def execute(self, proposed: Tensor) -> Tensor: ...

    def log_prob(self, output: Output, action: Tensor) -> Tensor:
        """Of the executed action."""
        ...

    def proposal_log_prob(self, output: Output, proposed: Tensor) -> Tensor:
        """Of the head's own draw."""
        ...

    def arguments(self) -> dict[str, Any]:
        """What it is made of: tensors that lead with the P axis, and flags."""
        ...

    def stack(self, others: Sequence[Self]) -> Self: ...


class ContinuousHead(nn.Module, ABC):
    """A normal distribution, kept within the action bounds by clipping or by a tanh.

    Args:
        low: `[P, A]`, lower action bounds, -inf where there are none.
        high: `[P, A]`, upper action bounds.
        squashed: a tanh, rescaled to the bounds, in place of clipping.
        tensors: further tensors that lead with the P axis.

    Raises:
        PolicyError: if the shapes disagree, or bounds are infinite where a tanh needs them.
    """

    name: str
    noisy = True
    reads_latent = False
    outputs_per_entry = 1
    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor, *, squashed: bool, **tensors: Tensor) -> None:
        super().__init__()
        if low.shape != high.shape or low.dim() != 2:
            raise PolicyError(
                f"low and high have shapes {tuple(low.shape)} and {tuple(high.shape)}; both must "
                "be one entry for each policy and action entry."
            )
        if squashed and not (low.isfinite().all() and high.isfinite().all()):
            raise PolicyError(
                "The policy squashes its actions by a tanh, so its bounds must be finite."
            )
        self.squashed = squashed
        for name, values in {"low": low, "high": high, **tensors}.items():
            self.register_buffer(name, values.detach().clone().float())

    @abstractmethod
    def moments(self, output: Output) -> tuple[Tensor, Tensor]:
        """Mean `[..., n, A]` and log σ, of that shape or broadcast to it."""

    def action_size(self, outputs: int) -> int:
        size = self.low.shape[1]
        if outputs != size * self.outputs_per_entry:
            raise PolicyError(
                f"The network has {outputs} outputs; {type(self).__name__} with bounds of {size} "
                f"action entries needs {size * self.outputs_per_entry}."
            )
        return size

    def action_spec(self, outputs: int) -> ActionSpec:  # noqa: ARG002
        if any((bound != bound[:1]).any() for bound in (self.low, self.high)):
            raise PolicyError("The policy stacks several of different action bounds.")
        return ActionSpec.continuous(self.low[0].cpu().numpy(), self.high[0].cpu().numpy())

    def propose(self, output: Output, noise: torch.Generator | None) -> Tensor:
        mean, log_std = self.moments(output)
        if noise is not None:
            # Drawn for the n axis alone: policies of a stack share the noise
            # (lfiw_ope.core.protocols).
            draw = torch.randn(
                mean.shape[-2:], generator=noise, device=mean.device, dtype=mean.dtype
            )
            mean = mean + log_std.exp() * draw
        return squash(mean, self._bounds(mean)) if self.squashed else mean

    def execute(self, proposed: Tensor) -> Tensor:
        return torch.clamp(proposed, *self._bounds(proposed))

    def log_prob(self, output: Output, action: Tensor) -> Tensor:
        log_density = log_squashed_normal if self.squashed else log_clipped_normal
        return log_density(*self.moments(output), action, self._bounds(action)).sum(-1)

    def proposal_log_prob(self, output: Output, proposed: Tensor) -> Tensor:
        if self.squashed:  # within the bounds as it is drawn: a draw beyond them is another's
            low, high = self._bounds(proposed)
            within = ((proposed >= low) & (proposed <= high)).all(-1)
            return torch.where(within, self.log_prob(output, proposed), -torch.inf)
        return log_normal(*self.moments(output), proposed).sum(-1)

    def arguments(self) -> dict[str, Any]:
        return dict(self.named_buffers())

    def stack(self, others: Sequence[Self]) -> Self:
        every = [one.arguments() for one in (self, *others)]
        joined = {
            name: torch.cat([one[name] for one in every]) if isinstance(value, Tensor) else value
            for name, value in every[0].items()
        }
        make: Callable[..., Self] = type(self)
        return make(**joined)

    def _bounds(self, like: Tensor) -> Bounds:
        return Bounds(per_row(self.low, like), per_row(self.high, like))


class GaussianHead(ContinuousHead):
    """N(output, σ²) with σ the same at every state, clipped: PPO, A2C, TRPO.

    Args:
        log_std: `[P, A]`, log σ.
        low: `[P, A]`, lower action bounds, -inf where there are none.
        high: `[P, A]`, upper action bounds.
    """

    name = "gaussian"
    log_std: Tensor

    def __init__(self, log_std: Tensor, low: Tensor, high: Tensor) -> None:
        if log_std.shape != low.shape:
            raise PolicyError(
                f"log_std and low have shapes {tuple(log_std.shape)} and {tuple(low.shape)}; both "
                "must be one entry for each policy and action entry."
            )
        super().__init__(low, high, squashed=False, log_std=log_std)

    def moments(self, output: Output) -> tuple[Tensor, Tensor]:
        return output.value, per_row(self.log_std, output.value)


class CategoricalHead(nn.Module):
    """softmax(output) over A discrete actions; actions are one-hot."""

    name = "categorical"
    noisy = True
    reads_latent = False

    def action_size(self, outputs: int) -> int:
        return outputs

    def action_spec(self, outputs: int) -> ActionSpec:
        return ActionSpec.discrete(outputs)

    def propose(self, output: Output, noise: torch.Generator | None) -> Tensor:
        logits = output.value
        if noise is None:
            chosen = logits.argmax(-1)
        else:
            uniform = torch.rand(
                logits.shape[-2:-1], generator=noise, device=logits.device, dtype=logits.dtype
            )
            levels = logits.softmax(-1).cumsum(-1)
            below = (levels < uniform[:, None] * levels[..., -1:]).sum(-1)
            chosen = below.clamp_max(logits.shape[-1] - 1)
        one_hot = nn.functional.one_hot(chosen, logits.shape[-1]).to(logits.dtype)
        # NaN compares as False everywhere, and would pass for the first action.
        return torch.where(logits.isnan().any(-1, keepdim=True), torch.nan, one_hot)

    def execute(self, proposed: Tensor) -> Tensor:
        return proposed

    def log_prob(self, output: Output, action: Tensor) -> Tensor:
        return torch.where(action > 0, output.value.log_softmax(-1), 0.0).sum(-1)

    def proposal_log_prob(self, output: Output, proposed: Tensor) -> Tensor:
        return self.log_prob(output, proposed)

    def arguments(self) -> dict[str, Any]:
        return {}

    def stack(self, others: Sequence[Self]) -> Self:  # noqa: ARG002
        return self


class GreedyHead(CategoricalHead):
    """The discrete action of the largest output, such as an action value: DQN, QRDQN, ARS."""

    name = "greedy"
    noisy = False


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """`[P, A]` in a shape that meets `[P, n, A]`, or `[n, A]` of a single policy."""
    return values[:, None] if like.dim() == 3 else values


LOG_STD_RANGE = (-20.0, 2.0)
"""Where SAC keeps log σ (Haarnoja et al. 2018, and stable-baselines3)."""

SDE_VARIANCE_FLOOR = 1e-6
"""What stable-baselines3 adds to gSDE's variance."""


class SquashedGaussianHead(ContinuousHead):
    """tanh(N(μ, σ²)) rescaled to the bounds, with (μ, log σ) the 2A outputs: SAC and TQC.

    Haarnoja et al., *Soft Actor-Critic*, 2018, appendix C. log σ is kept in [-20, 2].

    Args:
        low: `[P, A]`, lower action bounds.
        high: `[P, A]`, upper action bounds.
    """

    name = "squashed_gaussian"
    outputs_per_entry = 2

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__(low, high, squashed=True)

    def moments(self, output: Output) -> tuple[Tensor, Tensor]:
        mean, log_std = output.value.chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD_RANGE)


class ConditionalGaussianHead(ContinuousHead):
    """N(μ, σ²), clipped, with (μ, log σ) the 2A outputs: a normal distribution at every state.

    log σ is kept in [-20, 20], where neither σ nor 1/σ² leaves float32.

    Args:
        low: `[P, A]`, lower action bounds, -inf where there are none.
        high: `[P, A]`, upper action bounds.
    """

    name = "conditional_gaussian"
    outputs_per_entry = 2

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__(low, high, squashed=False)

    def moments(self, output: Output) -> tuple[Tensor, Tensor]:
        mean, log_std = output.value.chunk(2, -1)
        return mean, log_std.clamp(-20.0, 20.0)


class StateDependentHead(ContinuousHead):
    """N(output, diag(h² Σ²)), with h the last hidden layer: gSDE (Raffin et al. 2020).

    Generalised state-dependent exploration draws a noise matrix W ~ N(0, Σ²) and adds h W.
    stable-baselines3 keeps one W for several steps, so its noise is correlated in time; here every
    step draws anew. At one state and step the two distributions are the same, and the
    log-probability is stable-baselines3's own: that of a step, not of a path.

    Args:
        std: `[P, L, A]`, Σ.
        mean_limit: `[P, 1]`, the output is clipped to ± this; inf where it is not.
        low: `[P, A]`, lower action bounds.
        high: `[P, A]`, upper action bounds.
        squashed: a tanh in place of clipping.
    """

    reads_latent = True
    name = "state_dependent"
    std: Tensor
    mean_limit: Tensor

    def __init__(
        self, std: Tensor, mean_limit: Tensor, low: Tensor, high: Tensor, *, squashed: bool
    ) -> None:
        super().__init__(low, high, squashed=squashed, std=std, mean_limit=mean_limit)

    def moments(self, output: Output) -> tuple[Tensor, Tensor]:
        if output.latent is None:
            raise PolicyError("gSDE needs the network's last hidden layer, which is not shown.")
        limit = per_row(self.mean_limit, output.value)
        squares = self.std.square()
        variance = output.latent.square() @ (squares if output.latent.dim() == 3 else squares[0])
        log_std = 0.5 * torch.log(variance + SDE_VARIANCE_FLOOR)
        return torch.clamp(output.value, -limit, limit), log_std

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "squashed": self.squashed}


class DeterministicHead(ContinuousHead):
    """The output itself, clipped or squashed, without noise: TD3, DDPG and ARS.

    Args:
        low: `[P, A]`, lower action bounds, -inf where there are none.
        high: `[P, A]`, upper action bounds.
        squashed: a tanh, rescaled to the bounds, in place of clipping.
    """

    name = "deterministic"
    noisy = False

    def __init__(self, low: Tensor, high: Tensor, *, squashed: bool) -> None:
        super().__init__(low, high, squashed=squashed)

    def moments(self, output: Output) -> tuple[Tensor, Tensor]:
        return output.value, torch.full_like(output.value, -torch.inf)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "squashed": self.squashed}


HEADS: dict[str, Callable[..., ContinuousHead | CategoricalHead]] = {
    head.name: head
    for head in (
        GaussianHead,
        CategoricalHead,
        GreedyHead,
        SquashedGaussianHead,
        ConditionalGaussianHead,
        StateDependentHead,
        DeterministicHead,
    )
}
"""By the name that an actor's file gives."""

"""What the last layer of a policy network means: the distribution over actions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import PolicyError
from lfiw_ope.policies.density import (
    Bounds,
    log_clipped_normal,
    log_normal,
    log_squashed_normal,
    squash,
)

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
            # Drawn for the n axis alone: policies of a stack share the noise (lfiw_ope.types).
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

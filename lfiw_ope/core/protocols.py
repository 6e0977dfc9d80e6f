"""The protocols that the parts speak, and the letters that shapes are written in.

Axis glossary, used in every docstring:

    N  logged episodes          n  simulated rollouts of one policy
    R  logged transitions       P  policies evaluated in one call
    T  time steps               M  members of the dynamics ensemble
    S  state entries            C  members of the classifier ensemble
    A  action entries           K  draws of the model at one (s, a)
    B  rows of a batch          E  networks stacked in one batched call (M, C or P)

Tensors of states are float32 `[P, n, S]` and of actions `[P, n, A]`; a function that does not
care about the policy axis takes `[..., n, S]`. Actions are in the environment's units, as the
environment executes them; a discrete action is one-hot over its A values, and a discrete
observation one-hot over its S values, so that discrete and continuous go through one code path.
Rewards are in the environment's units; time is in environment steps.
"""

from collections.abc import Hashable, Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Policy(Protocol):
    """Anything that acts. No base class, no registry: an object with these members is a policy.

    A policy that knows what its actions are may say so by an attribute `action_spec`
    (`lfiw_ope.ActionSpec`); a mismatch with the data's is then found before anything is simulated.

    Attributes:
        state_size: S, the number of state entries that it takes.
        action_size: A, the number of action entries that it gives.
    """

    @property
    def state_size(self) -> int: ...

    @property
    def action_size(self) -> int: ...

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """Executed actions `[..., n, A]` at states `[..., n, S]`, on the states' device.

        Random numbers are drawn from `generator` alone, for the n axis, and shared along the
        leading axes (common random numbers), so that a policy gives the same actions alone or in
        a batch.
        """
        ...


@runtime_checkable
class DensityPolicy(Policy, Protocol):
    """A policy whose executed actions have a known probability.

    A policy may say `has_density = False` all the same: then `log_prob` raises and says why.
    """

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor:
        """log π(action | state) `[..., n]` of executed actions, in the environment's units.

        The log-probability where actions are discrete. Where they are continuous, the log-density,
        but on a bound that clips the policy's draws the log of the probability that lies on it:
        the sum over the action's entries of the one or the other.
        """
        ...


@runtime_checkable
class ProposingPolicy(DensityPolicy, Protocol):
    """A policy whose own draw, before the environment's bounds clip it, has a known density.

    A ratio of two such densities is as good as one of executed actions, and has no point masses.
    """

    def propose(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """The policy's own draw `[..., n, A]`, in the environment's units, before clipping."""
        ...

    def execute(self, proposed: Tensor) -> Tensor:
        """What the environment executes of a proposed action: clipped to the action bounds."""
        ...

    def proposal_log_prob(self, state: Tensor, proposed: Tensor) -> Tensor:
        """log-density of the policy's own draw `[..., n]`, with no regard to the bounds."""
        ...


def has_density(policy: Policy) -> bool:
    """Whether `log_prob` of this policy works."""
    return isinstance(policy, DensityPolicy) and bool(getattr(policy, "has_density", True))


@runtime_checkable
class StackablePolicy(Policy, Protocol):
    """A policy that can run in one batched call with others of the same `stack_key`."""

    @property
    def stack_key(self) -> Hashable: ...

    def stack(self, others: Sequence[Self]) -> Self:
        """One policy of `[P, n, S] -> [P, n, A]`: this one first, the others in their order."""
        ...

    def to(self, device: torch.device | str) -> Self: ...


class Transition(Protocol):
    """What a dynamics model draws at (s, a)."""

    @property
    def next_state(self) -> Tensor:
        """`[..., n, S]`"""
        ...

    @property
    def reward(self) -> Tensor:
        """`[..., n]`"""
        ...

    @property
    def terminated(self) -> Tensor:
        """`[..., n]`, bool: the episode ends with this transition, whose reward still counts."""
        ...

    @property
    def bounded(self) -> Tensor:
        """`[..., n]`, bool: the drawn state left the model's bounds and was put back on them."""
        ...


@runtime_checkable
class Dynamics(Protocol):
    """p_θ(s', r, terminated | s, a), known by one thing: it can be sampled."""

    def sample(self, state: Tensor, action: Tensor, generator: torch.Generator) -> Transition:
        """One draw at each (state `[..., n, S]`, action `[..., n, A]`).

        Random numbers are drawn for the n axis and shared along the leading axes.
        """
        ...


@runtime_checkable
class ManyDraws(Dynamics, Protocol):
    """A dynamics model that draws many times at one (s, a) for less than so many `sample`s."""

    def draw(
        self, state: Tensor, action: Tensor, count: int, generator: torch.Generator
    ) -> Transition:
        """`count` independent draws at each (s, a), each distributed as `sample`'s.

        The fields lead with the axis of the draws: `[count, P, n, ...]` at `[P, n, S]`.
        """
        ...


@runtime_checkable
class DensityDynamics(Dynamics, Protocol):
    """A dynamics model whose density is known, as well as its draws."""

    def log_density(self, state: Tensor, action: Tensor, transition: Transition) -> Tensor:
        """log p_θ(s', r, terminated | s, a) of K transitions, `[K, ..., n]`, or of one, `[..., n]`.

        Args:
            state: `[..., n, S]`
            action: `[..., n, A]`
            transition: its fields may lead with a K axis that states and actions do not have.
        """
        ...


@runtime_checkable
class LogRatio(Protocol):
    """log p(s', r, terminated | s, a) / p_θ(s', r, terminated | s, a), learned or exact."""

    def log_ratio(self, state: Tensor, action: Tensor, transition: Transition) -> Tensor:
        """Of K transitions at each (s, a), `[K, ..., n]`, or of one, `[..., n]`.

        Separate classifiers, which are not averaged, give `[K, C, ..., n]` or `[C, ..., n]`.

        Args:
            state: `[..., n, S]`
            action: `[..., n, A]`
            transition: its fields may lead with a K axis that states and actions do not have.
        """
        ...


@runtime_checkable
class ActionValue(Protocol):
    """Q of P target policies, over what remains of the horizon: learned, simulated or exact.

    Q_t(s, a) = E[ Σ_{u=t}^{T-1} γ^{u-t} r_u | s_t = s, a_t = a ],   V_t(s) = E_{a ~ π}[Q_t(s, a)]
    """

    def action_value(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """Q `[P, n]` at states `[n, S]`, actions `[n, A]` and steps t `[n]`, int64, below T."""
        ...

    def state_value(self, state: Tensor, step: Tensor) -> Tensor:
        """V `[P, n]` at states `[n, S]` and steps t `[n]`; 0 at t = T, after the horizon."""
        ...


@runtime_checkable
class Reward(Protocol):
    """A reward that is known as a function."""

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """`[..., n]`"""
        ...


@runtime_checkable
class Termination(Protocol):
    """A termination rule that is known as a function."""

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """`[..., n]`, bool"""
        ...


class Progress(Protocol):
    """Where long work says how far it is. The default says nothing."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """A `Progress` that says nothing."""

"""Networks and objective of fitted Q evaluation, and its settings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn

from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.validation import real, settings, whole
from lfiw_ope.data.tensors import DeviceLog, MemberRows
from lfiw_ope.estimators.per_policy import PerPolicyConfig
from lfiw_ope.nn.batched_mlp import BatchedMLP, Standardiser
from lfiw_ope.nn.training import FitConfig
from lfiw_ope.policies.likelihood import TargetPolicies
from lfiw_ope.stats.intervals import MemberIntervalConfig


@dataclass(frozen=True, kw_only=True)
class FQEConfig(PerPolicyConfig):
    """Settings of fitted Q evaluation.

    Attributes:
        hidden: widths of each network's hidden layers.
        activation: between layers, a name in `lfiw_ope.nn.ACTIVATIONS`.
        members: M networks for each policy, each of its own bootstrap sample of the episodes; a
            single one learns from all of them.
        action_samples: K, of a stochastic policy at every state whose value is bootstrapped from.
            The target is unbiased with one; more make it less noisy.
        tau: how far the target networks go towards the trained ones at every update.
        time: "input" gives the networks the time step, for a value over T steps; "none" solves the
            discounted equation of an infinite horizon; "auto" does so where γ^T is at most 0.01.
        fit: how the networks are trained. Nothing is held out, so training never stops early. At
            a look (`evaluate_every`) the values are recorded, which tells whether they have
            settled, and the constant that the mean TD error asks for is added to every Q
            (`lfiw_ope.estimators.BellmanError`), so that how often one looks changes
            what is learned.
        interval: how intervals are made of the members' spread. Three members know it roughly,
            and their intervals are wide (t_2); 10 make them half as wide.
        device: where the networks are.
    """

    hidden: Sequence[int] = (256, 256)
    members: int = 3
    action_samples: int = 4
    tau: float = 0.01
    interval: MemberIntervalConfig = field(default_factory=MemberIntervalConfig)
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            updates=20_000,
            learning_rate=3e-4,
            schedule="constant",
            evaluate_every=500,
            patience=None,
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        example = 'MemberIntervalConfig(method="members")'
        settings("interval", self.interval, MemberIntervalConfig, example)
        whole("members", self.members, least=1)
        whole("action_samples", self.action_samples, least=1)
        real("tau", self.tau, least=1e-6, most=1.0)


def following_fast_enough(estimand: Estimand, updates: int, least: float) -> float:
    """The least τ from `least` up at which values come from as far as they must.

    A value is bootstrapped from the step after it, by targets that follow in 1 / τ updates: so
    many it takes for every step of the horizon, or of the 1 / (1 − γ) that the discount leaves.
    """
    return max(least, min(1.0, _steps(estimand) / updates))


def slow_to_reach(estimand: Estimand, config: FQEConfig) -> tuple[str, ...]:
    """A warning where the training is too short for that."""
    steps = _steps(estimand)
    needed = round(steps / config.tau)
    if config.fit.updates >= needed:
        return ()
    return (
        f"{config.fit.updates} updates are too few: values are bootstrapped step by step, and "
        f"with tau {config.tau:g} it takes {needed} for them to come from {steps:.0f} steps away; "
        "raise updates, or tau.",
    )


def _steps(estimand: Estimand) -> float:
    """From how far away values come."""
    steps = float(estimand.horizon)
    return min(steps, 1.0 / (1.0 - estimand.discount)) if estimand.discount < 1.0 else steps


@dataclass(frozen=True)
class ValueScale:
    """Q_t = G_k (offset + spread · output), with G_k = Σ_{j<k} γ^j of the k = T − t steps left.

    The networks learn the discounted *mean* reward of what remains, standardised by the logged
    rewards. So at every t, discount and horizon outputs are of order 1, untrained networks predict
    the log's mean reward at each step, which is nearly the behaviour's value, and V_T = 0 holds
    by itself. Without time as input k is infinite, and G = 1 / (1 − γ).

    Attributes:
        estimand: T and γ.
        steps: `[T + 1]`, G_{T − t} by t; without time a single number, `[]`.
        offset: mean logged reward.
        spread: its standard deviation.
        low: the least that G times a mean reward can be made of: the lowest logged reward, or 0
            where an episode can end.
        high: the largest.
    """

    estimand: Estimand
    steps: Tensor
    offset: float
    spread: float
    low: float
    high: float

    @classmethod
    def of(
        cls, rewards: Tensor, estimand: Estimand, *, has_time: bool, terminates: bool
    ) -> "ValueScale":
        """From the rewards `[R]` of the log."""
        discount, horizon = estimand.discount, estimand.horizon
        if has_time:
            powers = torch.tensor(discount, dtype=torch.float64) ** torch.arange(horizon)
            steps = torch.cat((powers.new_zeros(1), powers.cumsum(0))).flip(0)
        else:
            steps = torch.tensor(1.0 / (1.0 - discount))
        values = rewards.double()
        low, high, offset = float(values.min()), float(values.max()), float(values.mean())
        spread = float(values.std(correction=0))
        if spread <= 1e-6 * max(abs(low), abs(high), 1e-6):
            spread = max(abs(offset), 1e-6)
        if terminates:
            low, high = min(low, 0.0), max(high, 0.0)
        return cls(estimand, steps.float().to(rewards.device), offset, spread, low, high)

    @property
    def has_time(self) -> bool:
        return self.steps.dim() > 0

    def left(self, step: Tensor) -> Tensor:
        """G of what remains from step t on, in the shape of `step`."""
        return self.steps[step] if self.has_time else self.steps.expand(step.shape)

    def value(self, output: Tensor, left: Tensor) -> Tensor:
        return left * (self.offset + self.spread * output)

    def output(self, value: Tensor, left: Tensor) -> Tensor:
        """The inverse of `value`."""
        return (value / left - self.offset) / self.spread

    def bounded(self, value: Tensor, left: Tensor) -> Tensor:
        """The value, put on the bounds of what rewards allow."""
        return torch.minimum(torch.maximum(value, left * self.low), left * self.high)

    def beyond(self, value: Tensor, left: Tensor) -> Tensor:
        """Where a value lies outside by more than a twentieth of the largest value.

        Values of a good policy lie near a bound, and some a little beyond it: no divergence.
        """
        far = 0.05 * left * max(abs(self.low), abs(self.high))
        return (value > left * self.high + far) | (value < left * self.low - far)

    def clock(self, step: Tensor) -> Tensor:
        """`[..., 1]`, time as the networks see it, of mean 0 and variance 1; `[..., 0]` without."""
        if not self.has_time:
            return self.steps.new_empty((*step.shape, 0))
        return (step[..., None] / self.estimand.horizon - 0.5) * 12**0.5


class ValueNetworks(nn.Module):
    """Q of P policies by M members each, as networks of one batch: E = P · M, policy by policy.

    Every policy starts from the same weights, so that it learns the same alone and among others.

    Args:
        config: widths, members.
        policies: P.
        inputs: standardises states and actions `[S + A]`.
        scale: from outputs to values.
        generator: draws the initial weights; without one they are zero.
    """

    def __init__(
        self,
        config: FQEConfig,
        policies: int,
        inputs: Standardiser,
        scale: ValueScale,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config, self.policies, self.scale = config, policies, scale
        self.inputs = inputs
        sizes = (inputs.mean.numel() + scale.has_time, *config.hidden, 1)
        members, activation = config.members, config.activation
        self.trained = BatchedMLP(policies * members, sizes, activation)
        self.following = BatchedMLP(policies * members, sizes, activation)
        if generator is not None:
            own = BatchedMLP(members, sizes, activation, generator).state_dict()
            every = {
                name: values.repeat(policies, *(1 for _ in values.shape[1:]))
                for name, values in own.items()
            }
            self.trained.load_state_dict(every)
            self.following.load_state_dict(every)
        self.following.requires_grad_(False)
        self.trained.biases[-1].requires_grad_(False)  # `shift` alone moves it

    def features(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """What the networks see, `[..., D]`, of states, actions and steps of these leading axes."""
        clock = self.scale.clock(step)
        shape = action.shape[:-1]
        parts = (state.expand(*shape, -1), action)
        return torch.cat((self.inputs(torch.cat(parts, -1)), clock.expand(*shape, -1)), -1)

    def outputs(self, network: BatchedMLP, features: Tensor) -> Tensor:
        """`[P, M, n]` from `[P or 1, M or 1, n, D]`."""
        policies, members = self.policies, self.config.members
        rows = features.expand(policies, members, -1, -1).flatten(0, 1)
        found: Tensor = network(rows)[..., 0]
        return found.view(policies, members, -1)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the following networks by τ towards the trained ones."""
        following: list[Tensor] = list(self.following.parameters())
        torch._foreach_lerp_(following, list[Tensor](self.trained.parameters()), self.config.tau)

    @torch.no_grad()
    def shift(self, output: Tensor) -> None:
        """Add a constant `[P, M]` to the outputs of trained and following networks."""
        for network in (self.trained, self.following):
            network.biases[-1].add_(output.float().view(-1, 1, 1))

    @torch.no_grad()
    def take(self, parts: list["ValueNetworks"], order: Tensor) -> None:
        """Be the networks of these parts, one after the other, policies put into this order."""
        members = self.config.members
        places = (order[:, None] * members + torch.arange(members)).flatten()
        for name in ("trained", "following"):
            of_each = [getattr(part, name).parameters() for part in parts]
            for own, *others in zip(getattr(self, name).parameters(), *of_each, strict=True):
                own.copy_(torch.cat(others)[places.to(own.device)])

    def finite(self) -> bool:
        every = chain(self.trained.parameters(), self.following.parameters())
        return all(bool(values.isfinite().all()) for values in every)


ROWS_AT_A_LOOK = 1 << 12
"""Transitions of each member that the mean TD error is taken over, drawn anew every time."""


@dataclass
class Course:
    """What training went through, kept on its device until a look asks for it.

    Attributes:
        error: `[P, M]`, sum of squared TD errors since the last look, in units of value squared.
        beyond: `[P, M]`, sum of the shares of bootstrapped values that were bounded.
        updates: since the last look.
        looks: at each, the values at some initial states `[P, M]`, mean squared TD error and share
            bounded since the look before.
    """

    error: Tensor
    beyond: Tensor
    updates: int = 0
    looks: list[Tensor] = field(default_factory=list)

    def add(self, error: Tensor, beyond: Tensor) -> None:
        self.error += error
        self.beyond += beyond
        self.updates += 1

    def look(self, value: Tensor) -> None:
        """Record the values `[P, M]`, and start counting anew."""
        since = max(1, self.updates)
        found = torch.stack((value.double(), self.error / since, self.beyond / since))
        self.looks.append(found.cpu())
        self.error.zero_()
        self.beyond.zero_()
        self.updates = 0

    @property
    def record(self) -> Tensor:
        """`[looks, 3, P, M]`: value, mean squared TD error, share bounded."""
        return torch.stack(self.looks)


class BellmanError:
    """E[(Q_t(s, a) − r − γ (1 − terminated) V_{t+1}(s'))²] on logged transitions.

    V is the following networks' mean over K actions of the target policy, and t is drawn uniformly
    from all steps of the horizon, whatever the step that the transition was logged at: rewards and
    dynamics do not depend on it. Batches, steps and the noise of actions are shared by the
    policies.

    Args:
        networks: of the P policies.
        log: on their device.
        rows: of the members.
        policies: P.
        samples: K.
        next_actions: `[P, R, A]`, at the state that follows each transition, of policies that have
            no noise; None where they are drawn at every update.
        initial: `[P, K', n, D]`, features of initial states under the policies' actions.
        seed: of the actions' noise.
    """

    def __init__(
        self,
        networks: ValueNetworks,
        log: DeviceLog,
        rows: MemberRows,
        policies: TargetPolicies,
        *,
        samples: int,
        next_actions: Tensor | None,
        initial: Tensor,
        seed: int,
    ) -> None:
        self.networks, self.log, self.members = networks, log, rows
        self.policies, self.samples = policies, samples
        self.next_actions, self.initial, self.seed = next_actions, initial, seed
        self.rows, self.batches = rows.below, len(rows.size)
        self.updates = 0
        self.looking = torch.Generator(log.rewards.device).manual_seed(seed)
        count = policies.count, self.batches
        zero = torch.zeros(count, dtype=torch.float64, device=log.rewards.device)
        self.course = Course(zero, zero.clone())

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        networks, scale = self.networks, self.networks.scale
        chosen = self.members.pick(rows)
        logged = self.log.at(chosen)
        step = torch.randint(
            scale.estimand.horizon, rows.shape, generator=generator, device=rows.device
        )
        left, after = scale.left(step), scale.left(step + 1)
        found = self._next_value(logged.next_state, chosen, step + 1)
        following, beyond = scale.bounded(found, after), scale.beyond(found, after)
        going_on = ~logged.terminated
        discount = scale.estimand.discount
        target = logged.reward + discount * torch.where(going_on, following, 0.0)
        features = networks.features(logged.state, logged.action, step)
        output = networks.outputs(networks.trained, features[None])
        error = output - scale.output(target, left)
        with torch.no_grad():
            of_value = (error * left * scale.spread).square().mean(-1)
            self.course.add(of_value, (beyond & going_on).double().mean(-1))
        return error.square().mean(-1).flatten()

    @torch.no_grad()
    def _next_value(self, state: Tensor, chosen: Tensor, step: Tensor) -> Tensor:
        """V `[P, M, B]` at the next states `[M, B, S]` of the chosen transitions."""
        networks, scale = self.networks, self.networks.scale
        members, batch = chosen.shape
        if self.next_actions is None:
            drawn = self.policies.samples(state.flatten(0, 1), self.samples, self._fresh_seed())
            actions = drawn.view(len(drawn), self.samples, members, batch, -1).transpose(1, 2)
        else:
            stored = self.next_actions[:, chosen.flatten()]
            actions = stored.view(len(stored), members, 1, batch, -1)
        # [P, M, K, B, D]: the K draws at a state are further rows of its member's batch.
        features = networks.features(state[:, None], actions, step[:, None])
        output = networks.outputs(networks.following, features.flatten(2, 3))
        output = output.view(*features.shape[:-1]).mean(2)
        return scale.value(output, scale.left(step))

    def _fresh_seed(self) -> int:
        return self.seed + self.updates

    def updated(self) -> None:
        self.networks.follow()
        self.updates += 1
        if self.updates % self.networks.config.fit.evaluate_every == 0:
            self._balance()

    def held_out_loss(self) -> None:
        """Nothing is held out, as the targets are the networks' own; a look records the values."""
        self.course.look(initial_value(self.networks, self.initial))

    @torch.no_grad()
    def _balance(self) -> None:
        """Add to each Q the constant reward for every step left that makes its mean TD error 0.

        A constant is what bootstrapping learns slowest: it shrinks by γ each time that the targets
        have moved to what was learned, 1 / τ updates or more, and one sum solves for it. Q is a
        fixed point of both. In the second half of the training the steps are averaged, so that
        the noise of these rows is, too.
        """
        networks, scale, log = self.networks, self.networks.scale, self.log
        count = len(self.members.size), ROWS_AT_A_LOOK
        device = log.rewards.device
        rows = torch.randint(self.rows, count, generator=self.looking, device=device)
        step = torch.randint(scale.estimand.horizon, count, generator=self.looking, device=device)
        chosen = self.members.pick(rows)
        logged = log.at(chosen)
        going_on = scale.estimand.discount * (~logged.terminated).float()
        features = networks.features(logged.state, logged.action, step)
        left, after = scale.left(step), scale.left(step + 1)
        value = scale.value(networks.outputs(networks.following, features[None]), left)
        found = self._next_value(logged.next_state, chosen, step + 1)
        following = scale.bounded(found, after)
        error = (logged.reward + going_on * following - value).double().mean(-1)
        # A constant c for each step left changes Q by c · left and, where it is not bounded, V by
        # c · after; so it changes the mean TD error by −c times this.
        moving = going_on * (found == following)
        change = (left - moving * after).double().mean(-1)
        config = networks.config.fit
        weight = 1.0 / max(1.0, (self.updates - 0.5 * config.updates) / config.evaluate_every)
        networks.shift(weight * error / change / scale.spread)


@torch.no_grad()
def initial_value(networks: ValueNetworks, features: Tensor) -> Tensor:
    """Mean over states and draws `[P, M]` of V_0, from features `[P, K, n, D]`, float64."""
    scale = networks.scale
    output = networks.outputs(networks.following, features.flatten(1, 2)[:, None])
    left = scale.left(torch.zeros((), dtype=torch.int64, device=output.device))
    return scale.value(output.double(), left.double()).mean(-1)

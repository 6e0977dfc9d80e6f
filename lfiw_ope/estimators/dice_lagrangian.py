"""The regularised Lagrangian of occupancy ratios: settings, networks, loss, residual.

Where the horizon is infinite, d(s, a) = (1 − γ) Σ_t γ^t P(s_t = s, a_t = a, not yet terminated),
and for every function ν, with ν' = E_{a' ~ π}[ν(s', a')],

    (1 − γ) E[ν(s_0, a_0)] + E_D[ω (γ (1 − terminated) ν' − ν)] = 0,   ω = d / d^D,

where D is the logged transitions, all alike. Over T steps, with d_t of every step and ν_T = 0,

    E[ν_0(s_0, a_0)] + Σ_t E_{D_t}[ω_t ((1 − terminated) ν'_{t+1} − ν_t)] = 0,   ω_t = d_t / d_t^D,

where D_t is step t of the episodes that are observed there, each by its standing
(`lfiw_ope.data.censoring`): taken, or terminated before.

**Where terminated mass goes.** It goes to an absorbing state that pays nothing, and occupancies
sum to 1 only with it. The equation there can be solved by hand, so that no network has to learn
it: ν is set to 0 in it, which costs nothing because ν and ν + c say the same; and what it holds
follows from the transitions that lead to it,

    γ / (1 − γ) E_D[ω terminated],   or at step t of T   Σ_{u < t} E_{D_u}[ω_u terminated].

ν = 1 everywhere else then says that all masses sum to 1. A log needs no rows for it, and ω of real
transitions is relative to real transitions: E_D[ω x] is a mean of x under π's occupancy, with
x = 0 in the absorbing state.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Policy
from lfiw_ope.core.seeding import derive
from lfiw_ope.core.validation import choice, real
from lfiw_ope.data.censoring import PaddedEpisodes
from lfiw_ope.data.tensors import ROWS_AT_ONCE, DeviceLog
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimators.per_policy import PerPolicyConfig
from lfiw_ope.nn.batched_mlp import BatchedMLP, Standardiser
from lfiw_ope.nn.training import FitConfig
from lfiw_ope.policies.likelihood import TargetPolicies


@dataclass(frozen=True, kw_only=True)
class DICEConfig(PerPolicyConfig):
    """Settings of DICE: a member of the family of Yang et al. (2020), and its training.

    Their best setting, `DICEConfig.published()`, was found with 1e5 updates at a learning rate of
    1e-4 and rewards in the Lagrangian. The defaults here are for fewer updates at a higher rate,
    and come closer in as much time. With 500 episodes and a single seed, errors of the value (in
    standard deviations of the return) and of ω (of those that ω = 1 has) are

        example (`lfiw_envs`)   default, 10,000   published, 5000      published, 10,000
        chain, T = 12           0.05, 27 %        -                    0.05, 26 %
        chain, γ = 0.9          0.02, 5 %         0.10, 9 %            -
        taxi, T = 15            0.02, 21 %        0.33, 65 %           -
        taxi, γ = 0.95          0.02, 4 %         0.30, 9 %             -

    where 5000 updates of the larger batches take about as long as the default and 10,000 more than
    twice as long (`experiments/dice_settings.py`). The weights that the networks end with are their
    mean over the second half of the training, with either setting, which takes out most of the
    circling of a saddle point.

    Attributes:
        hidden: widths of the hidden layers, of ν's network and of ζ's.
        activation: between layers, a name in `lfiw_ope.nn.ACTIVATIONS`.
        dual_regulariser: α_ζ, on ½ ζ². It makes the saddle point stable and leaves ζ where it is.
        primal_regulariser: α_ν, on ½ ν². It biases ζ.
        reward: α_R, 1 puts rewards into the Lagrangian and 0 does not. ζ at the saddle point is the
            same; without rewards ν has less to learn, and ζ comes there sooner.
        critic_rate: how fast ν moves beside ζ, as a factor on its network's output (AdamW does not
            see the scale of a gradient). Where ζ is the faster one, it follows its own best answer
            to ν, and the two circle each other less.
        normalise: whether a multiplier λ holds the mass of ζ at 1 while it is learned.
        positivity: from ζ's network to ζ: "square", "softplus", or "none", which allows negative
            ratios.
        time: "input" gives the networks the time step, for ω_t over T steps; "none" solves the
            discounted equation of an infinite horizon; "auto" does so where γ^T is at most 0.01.
        fit: how the networks are trained. Nothing is held out, so training never stops early; a
            look (`evaluate_every`) records the values, which tells whether they have settled.
        device: where the networks are.
    """

    dual_regulariser: float = 1.0
    primal_regulariser: float = 0.0
    reward: float = 0.0
    critic_rate: float = 0.2
    normalise: bool = True
    positivity: Literal["square", "softplus", "none"] = "square"
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            updates=10_000,
            batch_size=512,
            learning_rate=2e-3,
            clip_gradient=1.0,
            evaluate_every=500,
            patience=None,
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        real("dual_regulariser", self.dual_regulariser, least=0.0)
        real("primal_regulariser", self.primal_regulariser, least=0.0)
        real("reward", self.reward, least=0.0, most=1.0)
        real("critic_rate", self.critic_rate, least=1e-6)
        choice("positivity", self.positivity, ("square", "softplus", "none"))

    @classmethod
    def published(cls, *, updates: int = 100_000, device: str = "cpu") -> "DICEConfig":
        """The best setting of Yang et al. (2020): rewards in the Lagrangian, plain slow rates.

        Weights are averaged over the second half of the training here, too; theirs are the last.

        Args:
            updates: 1e5 in the paper.
            device: where the networks are.
        """
        fit = FitConfig(
            updates=updates,
            batch_size=2048,
            learning_rate=1e-4,
            schedule="constant",
            clip_gradient=1.0,
            evaluate_every=max(1, updates // 20),
            patience=None,
        )
        return cls(reward=1.0, critic_rate=1.0, fit=fit, device=device)


@dataclass(frozen=True)
class LoggedFlow:
    """The transitions that the equation is over, R' of them.

    Attributes:
        estimand: T and γ.
        has_time: whether it is the equation over T steps.
        rows: `[R']`, in the log.
        step: `[R']` int64, each one's t in its episode; 0 without time.
        weight: `[R']` float64: mean(weight · x) is E_D[x], or (1/T) Σ_t E_{D_t}[x].
        episode: `[R']` int64, each one's place among the episodes.
        terminated: `[R']` bool.
        own: `[R']` float64, the behaviour's own ω: its occupancy, over the log. 1 with time.
    """

    estimand: Estimand
    has_time: bool
    rows: Tensor
    step: Tensor
    weight: Tensor
    episode: Tensor
    terminated: Tensor
    own: Tensor

    @classmethod
    def of(
        cls,
        data: Trajectories,
        log: DeviceLog,
        episodes: Sequence[int],
        estimand: Estimand,
        *,
        has_time: bool,
    ) -> "LoggedFlow":
        """Of some episodes of a log.

        Raises:
            DataError: if time counts and the longest episodes were cut short of the horizon.
        """
        rows = log.rows_of(episodes)
        chosen = torch.as_tensor(list(episodes), device=rows.device)
        lengths = log.lengths[chosen]
        episode = torch.repeat_interleave(torch.arange(len(chosen), device=rows.device), lengths)
        step = rows - log.first[chosen][episode]
        ends, chosen_data = log.terminated[rows], data.select(list(episodes))
        if not has_time:
            weight = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
            padded = PaddedEpisodes.of(chosen_data, int(lengths.max()))
            powers = (
                torch.tensor(estimand.discount, dtype=torch.float64, device=rows.device) ** step
            )
            standing = padded.standing.to(rows.device)[episode, step] / len(chosen)
            own = len(rows) * (1.0 - estimand.discount) * powers * standing
            return cls(estimand, False, rows, 0 * step, weight, episode, ends, own)
        padded = PaddedEpisodes.of(chosen_data, estimand.horizon)
        within = step < estimand.horizon
        rows, step, episode, ends = rows[within], step[within], episode[within], ends[within]
        standing = padded.standing.to(rows.device)[episode, step] / len(chosen)
        weight = len(rows) / estimand.horizon * standing
        return cls(estimand, True, rows, step, weight, episode, ends, torch.ones_like(weight))

    def at(self, places: Tensor) -> "LoggedFlow":
        """Some of the rows."""
        arrays = (self.rows, self.step, self.weight, self.episode, self.terminated, self.own)
        return LoggedFlow(self.estimand, self.has_time, *(array[places] for array in arrays))

    @property
    def start(self) -> float:
        """What the initial states weigh in the equation, beside the mean over rows."""
        return 1.0 / self.estimand.horizon if self.has_time else 1.0 - self.estimand.discount

    @property
    def onwards(self) -> Tensor:
        """`[R']` float64, what ν' weighs at each row."""
        going_on = ~self.terminated
        if self.has_time:
            return (going_on & (self.step + 1 < self.estimand.horizon)).double()
        return self.estimand.discount * going_on.double()

    @property
    def reward_weight(self) -> Tensor:
        """`[R']` float64, such that the value is mean(weight · reward_weight · ω · r)."""
        if not self.has_time:
            return torch.full_like(self.weight, 1.0 / (1.0 - self.estimand.discount))
        discount = torch.tensor(self.estimand.discount, dtype=torch.float64)
        return self.estimand.horizon * discount.to(self.step.device) ** self.step

    def normalisers(self, ratio: Tensor) -> Tensor:
        """What ω `[P, R']` is to be multiplied by, `[P, T]`, or `[P, 1]` without time.

        So that all masses, with the absorbing state's, sum to 1: step by step where time counts.
        """
        if not self.has_time:
            discount = self.estimand.discount
            mass = 1.0 + discount / (1.0 - discount) * self.terminated.double()
            return 1.0 / (ratio * mass).mean(-1, keepdim=True)
        horizon = self.estimand.horizon
        share = ratio * self.weight * (horizon / self.rows.numel())
        empty = share.new_zeros((len(ratio), horizon))
        mass = empty.index_add(1, self.step, share)
        ends = empty.index_add(1, self.step, share * self.terminated)
        alive = torch.ones_like(mass[:, 0])
        factors = []
        for t in range(horizon):
            factor = torch.where(mass[:, t] > 0, alive / mass[:, t], 0.0)
            factors.append(factor)
            alive = (alive - factor * ends[:, t]).clamp_min(0.0)
        return torch.stack(factors, 1)


class SaddleNetworks(nn.Module):
    """ν and ζ of P policies, as networks of one batch: E = P.

    Every policy starts from the same weights, so that it learns the same alone and among others.
    ζ starts at 1, which is the log's own ratio.

    Args:
        config: widths, positivity.
        policies: P.
        inputs: standardises states and actions `[S + A]`.
        horizon: T where time is an input, else None.
        generator: draws the initial weights; without one they are zero.
    """

    def __init__(
        self,
        config: DICEConfig,
        policies: int,
        inputs: Standardiser,
        horizon: int | None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config, self.policies, self.horizon = config, policies, horizon
        sizes = (inputs.mean.numel() + (horizon is not None), *config.hidden, 1)
        self.critic = BatchedMLP(policies, sizes, config.activation)
        self.ratio = BatchedMLP(policies, sizes, config.activation)
        self.multiplier = nn.Parameter(torch.zeros(policies, horizon or 1))
        self.inputs = inputs
        if generator is not None:
            for network in (self.critic, self.ratio):
                own = BatchedMLP(1, sizes, config.activation, generator).state_dict()
                network.load_state_dict(
                    {k: v.repeat(policies, *(1 for _ in v.shape[1:])) for k, v in own.items()}
                )
            with torch.no_grad():
                self.ratio.weights[-1].zero_()
                self.ratio.biases[-1].zero_()

    def features(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """What the networks see, `[..., n, D]`, at states and steps of the last axes of actions."""
        shape = action.shape[:-1]
        seen: Tensor = self.inputs(torch.cat((state.expand(*shape, -1), action), -1))
        if self.horizon is None:
            return seen
        clock = (step.to(seen.dtype) / self.horizon - 0.5) * 12**0.5
        return torch.cat((seen, clock.expand(shape)[..., None]), -1)

    def nu(self, features: Tensor) -> Tensor:
        """ν `[P, n]`"""
        output: Tensor = self.critic(features)[..., 0]
        return self.config.critic_rate * output

    def zeta(self, features: Tensor) -> Tensor:
        """ζ `[P, n]`"""
        output: Tensor = self.ratio(features)[..., 0]
        if self.config.positivity == "square":
            return (output + 1.0).square()
        if self.config.positivity == "softplus":
            return nn.functional.softplus(output + math.log(math.e - 1.0))
        return output + 1.0

    def price(self, step: Tensor, terminated: Tensor, ahead: float) -> Tensor:
        """What one unit of ω costs in λ `[P, n]`: its own mass, and what it leaves absorbed.

        Args:
            step: `[n]`
            terminated: `[n]`
            ahead: γ / (1 − γ), of what is absorbed, without time.
        """
        if self.horizon is None:
            cost: Tensor = self.multiplier * (1.0 + ahead * terminated)
            return cost
        later = self.multiplier.flip(1).cumsum(1).flip(1) - self.multiplier
        return self.multiplier[:, step] + later[:, step] * terminated

    @torch.no_grad()
    def take(self, parts: "list[SaddleNetworks]", order: Tensor) -> None:
        """Be the networks of these parts, one after the other, policies put into this order."""
        of_each = [part.parameters() for part in parts]
        for own, *others in zip(self.parameters(), *of_each, strict=True):
            own.copy_(torch.cat(others)[order.to(own.device)])


class Lagrangian:
    """min over ν and λ, max over ζ ≥ 0 of (Yang et al. 2020, equation 8, with f(x) = ½ x²)

        c E[ν(s_0, a_0)] + λ + E_D[ζ (α_R r + γ (1 − terminated) ν(s', a') − ν(s, a) − λ)]
            + α_ν ½ E_D[ν²] − α_ζ ½ E_D[ζ²]

    with the weights, the c and the absorbing state of `lfiw_ope.estimators.dice_lagrangian`. ν(s',
    a') enters linearly, so a single draw a' ~ π and a single s' leave the gradient unbiased. One
    step goes down in ν and λ and up in ζ: each sees the other as it was. Batches and the noise of
    actions are shared by the policies.

    Args:
        networks: ν, ζ and λ.
        log: on the networks' device.
        flow: the rows, and what they weigh.
        initial_states: `[N, S]`
        acting: the P policies.
        next_actions: `[P, R', A]` of policies without noise; None draws them at every update.
        watched: places among the rows where looks record the value.
        seed: of the actions' noise.
    """

    batches = 1

    def __init__(
        self,
        networks: SaddleNetworks,
        log: DeviceLog,
        flow: LoggedFlow,
        initial_states: Tensor,
        acting: TargetPolicies,
        *,
        next_actions: Tensor | None,
        watched: Tensor,
        seed: int,
    ) -> None:
        self.networks, self.log, self.flow = networks, log, flow
        self.averaged = copy.deepcopy(networks).requires_grad_(False)
        self.config, self.acting, self.seed = networks.config, acting, seed
        self.initial_states, self.next_actions = initial_states, next_actions
        self.rows = len(flow.rows)
        self.onwards, self.weight = flow.onwards.float(), flow.weight.float()
        rewards = log.rewards[flow.rows].double()
        spread = float(rewards.std(correction=0))
        scale = spread if spread > 1e-6 * float(rewards.abs().max()) else 1.0
        each = flow.reward_weight / flow.reward_weight.max().clamp_min(1e-300)
        self.rewards = (self.config.reward * each * rewards / scale).float()
        self.updates = 0
        self.looks: list[Tensor] = []
        self._watched = watched
        self._earned = flow.weight[watched] * flow.reward_weight[watched] * rewards[watched]

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        chosen, networks, flow = rows[0], self.networks, self.flow
        step, terminated = flow.step[chosen], flow.terminated[chosen]
        logged = self.log.at(flow.rows[chosen])
        here = networks.features(logged.state, logged.action, step)
        some = torch.randint(
            len(self.initial_states), chosen.shape, generator=generator, device=chosen.device
        )
        nu, nu_next, nu_start = self._nus(
            here, logged.next_state, chosen, self.initial_states[some]
        )
        zeta = networks.zeta(here)
        change = self.rewards[chosen] + self.onwards[chosen] * nu_next - nu
        weight = self.weight[chosen]
        loss = flow.start * nu_start.mean(-1)
        if self.config.normalise:
            discount = flow.estimand.discount
            ahead = 0.0 if flow.has_time else discount / (1.0 - discount)
            change = change - networks.price(step, terminated.float(), ahead)
            loss = loss + networks.multiplier.mean(-1)
        loss = loss + (weight * zeta.detach() * change).mean(-1)
        loss = loss + self.config.primal_regulariser * 0.5 * (weight * nu.square()).mean(-1)
        gain = zeta * change.detach() - self.config.dual_regulariser * 0.5 * zeta.square()
        return loss - (weight * gain).mean(-1)

    def _nus(
        self, here: Tensor, next_state: Tensor, chosen: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """ν `[P, B]` at (s, a), (s', a') and (s_0, a_0), in one pass."""
        networks, policies = self.networks, self.acting.count
        if self.next_actions is None:
            both = self.acting.act(torch.cat((next_state, start)), self.seed + self.updates)
            after, first = torch.split(both, [len(next_state), len(start)], 1)
        else:
            after = self.next_actions[:, chosen]
            first = self.acting.act(start, self.seed)
        step = self.flow.step[chosen]
        there = networks.features(next_state, after, step + 1)
        begun = networks.features(start, first, torch.zeros_like(step))
        rows = torch.cat((here.expand(policies, -1, -1), there, begun), 1)
        nu, nu_next, nu_start = torch.split(
            networks.nu(rows), [len(step), len(step), len(start)], 1
        )
        return nu, nu_next, nu_start

    @torch.no_grad()
    def updated(self) -> None:
        """Keep the running mean of the weights over the second half of the training."""
        self.updates += 1
        since = self.updates - self.config.fit.updates // 2
        if since > 0:
            mean: list[Tensor] = list(self.averaged.parameters())
            torch._foreach_lerp_(mean, list[Tensor](self.networks.parameters()), 1.0 / since)

    def held_out_loss(self) -> None:
        """Nothing is held out: a lower Lagrangian is no better one. A look records values."""
        halfway = self.updates > self.config.fit.updates // 2
        networks = self.averaged if halfway else self.networks
        ratio = ratios(networks, self.log, self.flow, self._watched)
        part = self.flow.at(self._watched)
        scaled = ratio * part.normalisers(ratio)[:, part.step]
        self.looks.append((scaled * self._earned).mean(-1).cpu())


@torch.no_grad()
def ratios(networks: SaddleNetworks, log: DeviceLog, flow: LoggedFlow, places: Tensor) -> Tensor:
    """ζ `[P, n]` float64, at these places among the rows."""
    found = []
    for some in torch.split(places, 1 << 13):
        logged = log.at(flow.rows[some])
        features = networks.features(logged.state, logged.action, flow.step[some])
        found.append(networks.zeta(features).double())
    return torch.cat(found, -1)


class Violation(NamedTuple):
    """Of P policies, `[P]` float64 each: see `lfiw_ope.estimators.dice.RatioReport`."""

    ratio: Tensor
    behaviour: Tensor
    behaviour_z: Tensor
    left: Tensor


TESTS_AT_ONCE = 1 << 25
"""Values of test functions that are held together: 256 MB an array."""


def violation(
    networks: SaddleNetworks,
    log: DeviceLog,
    flow: LoggedFlow,
    initial_states: Tensor,
    policies: Sequence[Policy],
    ratio: Tensor,
    seed: int,
) -> Violation:
    """The equation's left side with ω, and with the behaviour's own occupancy.

    Args:
        networks: what standardises states, actions and steps.
        log: the log.
        flow: its rows.
        initial_states: `[N, S]`, of the episodes that the rows are of.
        policies: P.
        ratio: `[P, R']`, ω.
        seed: of the policies' noise: one action at each state.
    """
    tests = (2 if networks.horizon is None else 4) * networks.inputs.mean.numel()
    largest = max(1, TESTS_AT_ONCE // (tests * max(2 * len(initial_states), ROWS_AT_ONCE)))
    found = []
    for start in range(0, len(policies), largest):
        some = slice(start, start + largest)
        acting = TargetPolicies(policies[some], log.rewards.device)
        found.append(_of_some(networks, log, flow, initial_states, acting, ratio[some], seed))
    return Violation(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _of_some(
    networks: SaddleNetworks,
    log: DeviceLog,
    flow: LoggedFlow,
    initial_states: Tensor,
    acting: TargetPolicies,
    ratio: Tensor,
    seed: int,
) -> Violation:
    """Of policies few enough for memory."""
    episodes, count = len(initial_states), len(flow.rows)
    zeros = torch.zeros(episodes, dtype=torch.int64, device=log.rewards.device)
    first = acting.act(initial_states, derive(seed, "dice", "violation", "start"))
    start = flow.start * _tests(networks, initial_states, first, zeros)
    by_episode = torch.stack((start, start))  # [2, P, N, K], by ω and by the behaviour
    each = flow.weight * (episodes / count)
    for part, places in enumerate(
        torch.split(torch.arange(count, device=zeros.device), ROWS_AT_ONCE)
    ):
        logged, step = log.at(flow.rows[places]), flow.step[places]
        after = acting.act(logged.next_state, derive(seed, "dice", "violation", str(part)))
        here = _tests(networks, logged.state, logged.action[None], step)
        there = _tests(networks, logged.next_state, after, step + 1)
        change = flow.onwards[places, None] * there - here
        change = each[places, None] * change
        for side, omega in enumerate((ratio[:, places], flow.own[places])):
            by_episode[side].index_add_(1, flow.episode[places], omega[..., None] * change)
    size, error = by_episode.mean(2), by_episode.std(2) / episodes**0.5
    found = size.square().mean(-1).sqrt() / flow.start
    z = (size[1].abs() / error[1].clamp_min(1e-12)).amax(-1)
    along = (size[0] * size[1]).sum(-1) / size[1].square().sum(-1).clamp_min(1e-300)
    return Violation(found[0].cpu(), found[1].cpu(), z.cpu(), along.cpu())


@torch.no_grad()
def _tests(networks: SaddleNetworks, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
    """Test functions `[P or 1, n, K]` float64."""
    features = networks.features(state, action, step).double()
    if networks.horizon is None:
        return torch.cat((features, features.square()), -1)
    features, clock = features[..., :-1], features[..., -1:]
    both = torch.cat((features, features.square()), -1)
    return torch.cat((both, both * clock), -1)

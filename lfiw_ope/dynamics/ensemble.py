"""A learned ensemble of one-step models, known from outside by one function: `sample`."""

import copy
import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.protocols import Reward, Termination, Transition
from lfiw_ope.core.validation import choice, device_there, real, whole, widths
from lfiw_ope.dynamics.noise import NOISE_KINDS, Noise, NoiseKind
from lfiw_ope.dynamics.sampling import Draws
from lfiw_ope.nn.batched_mlp import ACTIVATIONS, BatchedMLP, Standardiser
from lfiw_ope.nn.training import Deal, FitConfig, FitReport, autocast

LOG_SCALE_BOUNDS = (-4.0, 0.5)
"""Of the heteroscedastic noise, in units of the targets' standard deviation. A lower floor lets an
entry that hardly varies weigh e^12 times its squared error, and the others are not learned."""


def default_training() -> FitConfig:
    """The default training of dynamics networks: by the data's size, in the fastest precision."""
    return FitConfig(updates=32_000, epochs=40, precision="auto", evaluate_every=500)


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """The ensemble and how it is trained.

    Attributes:
        members: M.
        hidden: width of each hidden layer.
        activation: "silu", "tanh" or "relu".
        layer_norm: normalise each hidden layer before its activation (Ba et al. 2016), without
            learned gain and shift.
        noise: of a simulated step, see `lfiw_ope.dynamics.Noise`. "none", "gaussian" and
            "bootstrap" share networks that are trained by squared error; "heteroscedastic" trains
            mean and bounded scale by likelihood. "auto" is chosen on held-out episodes by `LFIW`
            and `ModelBased`; everything else takes "bootstrap" for it.
        noise_scale: c, which multiplies the noise.
        member_episodes: what each member learns from. "jackknife": all training episodes but a
            group of its own, 1/M of them, so that the members' spread is a delete-a-group jackknife
            estimate of what another log would change; "bootstrap": a bootstrap sample of the
            episodes, which leaves out 37 % of them; "all": the same episodes, and members differ by
            initial weights and batches alone.
        bound_margin: states and rewards that leave the data's range by more than this many ranges
            are clipped there, and counted; inf never clips.
        device: where the model is fitted and simulated, such as "cpu" or "cuda".
        fit: the training.

    Raises:
        ConfigError: if a setting is out of its range, or the device does not exist.
    """

    members: int = 5
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "relu"
    layer_norm: bool = True
    noise: Literal["auto"] | NoiseKind = "auto"
    noise_scale: float = 1.0
    member_episodes: Literal["jackknife", "bootstrap", "all"] = "jackknife"
    bound_margin: float = 1.0
    device: str = "cpu"
    fit: FitConfig = field(default_factory=default_training)

    def __post_init__(self) -> None:
        whole("members", self.members, least=1)
        widths("hidden", self.hidden)
        choice("activation", self.activation, tuple(ACTIVATIONS))
        choice("noise", self.noise, ("auto", *NOISE_KINDS))
        real("noise_scale", self.noise_scale, least=0.0)
        choice("member_episodes", self.member_episodes, ("jackknife", "bootstrap", "all"))
        if not isinstance(self.layer_norm, bool):
            raise ConfigError(f"`layer_norm` must be True or False, got {self.layer_norm!r}.")
        real("bound_margin", self.bound_margin, least=0.0)
        device_there(self.device)

    @property
    def noise_kind(self) -> NoiseKind:
        """The kind of noise where nothing chooses one."""
        return "bootstrap" if self.noise == "auto" else self.noise


class Outputs(NamedTuple):
    """What the networks say, in standardised units; D = S + 1 targets, the reward last."""

    mean: Tensor  # [..., D]
    log_scale: Tensor | None  # [..., D]
    termination_logit: Tensor | None  # [...]


class EnsembleDynamics(nn.Module):
    """p_θ(s', r, terminated | s, a): a uniform mixture of M networks, each with noise.

    (s' − s, r) = μ_m(s, a) + c e,   m ~ U{1..M},   e as `lfiw_ope.dynamics.Noise` has it

    Targets are the standardised difference s' − s and the reward. Termination is a known rule, a
    learned Bernoulli head, or never. Build it with `lfiw_ope.fit_dynamics`.

    Attributes:
        noise: of a simulated step.
        low, high: `[S + 1]`, where drawn states and rewards are clipped.
        report: how the training went.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        config: DynamicsConfig,
        inputs: Standardiser,
        targets: Standardiser,
        bounds: tuple[Tensor, Tensor],
        *,
        state_size: int,
        learns_termination: bool,
        reward: Reward | None = None,
        termination: Termination | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.state_size = state_size
        self.learns_termination = learns_termination
        self.reward_rule, self.termination_rule = reward, termination
        self.inputs, self.targets = inputs, targets
        self.target_size = state_size + 1
        own_scale = config.noise == "heteroscedastic"
        outputs = self.target_size * (1 + own_scale) + learns_termination
        sizes = (inputs.mean.numel(), *config.hidden, outputs)
        self.network = BatchedMLP(
            config.members, sizes, config.activation, generator, layer_norm=config.layer_norm
        )
        # Until residuals of held-out transitions are known, means alone.
        kind: NoiseKind = "heteroscedastic" if own_scale else "none"
        self.noise = Noise(kind, scale=config.noise_scale)
        self.register_buffer("low", bounds[0])
        self.register_buffer("high", bounds[1])
        self.report: FitReport | None = None

    def member_outputs(self, state: Tensor, action: Tensor) -> Outputs:
        """All members at their own rows `[M, B, ·]`, or all at the same rows `[B, ·]`."""
        return self._outputs(self.network(self.inputs(torch.cat((state, action), -1))))

    def _outputs(self, raw: Tensor) -> Outputs:
        size = self.target_size
        log_scale = None
        if self.config.noise == "heteroscedastic":
            low, high = LOG_SCALE_BOUNDS
            log_scale = low + (high - low) * torch.sigmoid(raw[..., size : 2 * size])
        logit = raw[..., -1] if self.learns_termination else None
        return Outputs(raw[..., :size], log_scale, logit)

    def with_noise(self, kind: NoiseKind, scale: float | None = None) -> "EnsembleDynamics":
        """The same networks with another noise; parameters are shared, not copied.

        Raises:
            ConfigError: if the networks were not trained for that kind.
        """
        if (kind == "heteroscedastic") != (self.config.noise == "heteroscedastic"):
            raise ConfigError(
                f"`kind` must be one that the networks were trained for, got {kind!r} with "
                f"networks of DynamicsConfig(noise={self.config.noise!r})."
            )
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other.noise = self.noise.with_kind(kind, scale)
        return other

    @torch.no_grad()
    def sample(self, state: Tensor, action: Tensor, generator: torch.Generator) -> Draws:
        """One draw at each (state `[..., n, S]`, action `[..., n, A]`): member, noise, bounding.

        Every row's member is uniform and independent of every other call. Within a call, members
        are dealt out evenly (a random permutation cut into M equal hands), so that each network
        runs on n / M rows and not on n: across rows that is stratified sampling of the mixture.
        """
        # A caller's autocast, such as that of a training loop, must not change the distribution.
        with torch.autocast(state.device.type, enabled=False):
            return self._sample(state, action, generator)

    def _sample(self, state: Tensor, action: Tensor, generator: torch.Generator) -> Draws:
        lead, n = state.shape[:-2], state.shape[-2]
        batch = state.reshape(-1, n, state.shape[-1])
        batch_action = action.reshape(-1, n, action.shape[-1])
        deal = Deal.draw(n, self.config.members, state.device, generator, policies=len(batch))
        inputs = deal.out(self.inputs(torch.cat((batch, batch_action), -1)))
        with autocast(state.device, self.config.fit.precision):
            raw = self.network(inputs)
        outputs = self._outputs(deal.back(raw))
        drawn = self._draw(batch, batch_action, outputs, deal.member(n), generator)
        return drawn.each(lambda of: of.view(*lead, *of.shape[1:]))

    @torch.no_grad()
    def draw(self, state: Tensor, action: Tensor, count: int, generator: torch.Generator) -> Draws:
        """`count` independent draws at each (s, a) of `[P, n, ·]`, fields `[count, P, n, ·]`.

        Every draw's member is uniform, so each is distributed as `sample`'s. All members are
        evaluated at each (s, a) once, and the draws choose among them: M networks, not `count`.
        """
        with torch.autocast(state.device.type, enabled=False):
            policies, n = state.shape[:2]
            predicted = self._at(state, action)
            # Drawn for the draws and the n axis; policies share them.
            member = torch.randint(
                self.config.members, (count, n), generator=generator, device=state.device
            )
            row = torch.arange(policies * n, device=state.device).view(policies, 1, n)
            flat = (member * (policies * n) + row).flatten()
            chosen = predicted.flatten(0, 1).index_select(0, flat)
            outputs = self._outputs(chosen.view(policies, count * n, -1))
            wide = (state.repeat(1, count, 1), action.repeat(1, count, 1))
            drawn = self._draw(*wide, outputs, member.flatten(), generator)
        return drawn.each(lambda of: of.view(policies, count, n, *of.shape[2:]).transpose(0, 1))

    @torch.no_grad()
    def mean(self, state: Tensor, action: Tensor) -> Tensor:
        """`[..., n, S + 1]`, the expected next state and reward before clipping."""
        with torch.autocast(state.device.type, enabled=False):
            raw = self._at(state, action)
        return self._means(raw.view(len(raw), *state.shape[:-1], -1), state).mean(0)

    def _means(self, raw: Tensor, state: Tensor) -> Tensor:
        """`[..., S + 1]`, (s', r) as members expect it, of the networks' outputs."""
        mean: Tensor = self.targets.inverse(self._outputs(raw).mean)
        mean[..., :-1] += state
        return mean

    @torch.no_grad()
    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        """`[M, B, O]`, the networks' outputs at rows `[B, ·]`, for `sample_from`."""
        with torch.autocast(state.device.type, enabled=False):
            return self._at(state, action)

    @torch.no_grad()
    def sample_from(
        self,
        predicted: Tensor,
        state: Tensor,
        action: Tensor,
        generator: torch.Generator,
        member: Tensor | None = None,
    ) -> Draws:
        """One draw at each row `[B, ·]`, distributed as `sample`'s, without evaluating networks.

        Args:
            predicted: `[M, B, O]`, what `predict` gave at the rows.
            state: `[B, S]`
            action: `[B, A]`
            generator: of member and noise, independent for each row.
            member: `[B]` int64, that predicts each row; None to draw it.
        """
        rows, most = len(state), len(predicted)
        if member is None:
            member = torch.randint(most, (rows,), generator=generator, device=state.device)
        chosen = predicted[member, torch.arange(rows, device=state.device)]
        drawn = self._draw(
            state[None], action[None], self._outputs(chosen[None]), member, generator
        )
        return drawn.each(lambda of: of[0])

    @torch.no_grad()
    def member_mean(self, predicted: Tensor, member: Tensor, state: Tensor) -> Tensor:
        """`[B, S + 1]`, (s', r) as one member of each row expects it.

        Args:
            predicted: `[M, B, O]`, what `predict` gave at the rows.
            member: `[B]` int64
            state: `[B, S]`
        """
        return self._means(predicted[member, torch.arange(len(state), device=state.device)], state)

    @torch.no_grad()
    def mean_error(self, predicted: Tensor, generator: torch.Generator) -> Tensor:
        """Draws `[B, S + 1]` of the error of the mean of (s', r), as the members tell it.

            Σ_m g_m f (μ_m − μ̄),   g_m ~ N(0, 1)

        Their covariance is that of one fit: with members that left out a group each, of the
        delete-a-group jackknife, f² = (M − 1) / M; else the members' own, f² = 1 / (M − 1).

        Args:
            predicted: `[M, B, O]`, what `predict` gave at the rows.
            generator: of the draws, independent for each row.
        """
        mean = self._outputs(predicted).mean
        members = len(mean)
        if members == 1:
            return torch.zeros_like(mean[0])
        jackknife = self.config.member_episodes == "jackknife"
        factor = math.sqrt((members - 1) / members if jackknife else 1.0 / (members - 1))
        normal = torch.randn(
            mean.shape[:2], dtype=mean.dtype, generator=generator, device=mean.device
        )
        error = torch.einsum("mb,mbd->bd", factor * normal, mean - mean.mean(0))
        return error * self.targets.scale

    def _at(self, state: Tensor, action: Tensor) -> Tensor:
        """What every member says at every (s, a), `[M, rows, ·]`, in the precision of `sample`."""
        inputs = self.inputs(torch.cat((state, action), -1)).flatten(0, -2)
        with autocast(state.device, self.config.fit.precision):
            raw: Tensor = self.network(inputs)
        return raw

    @torch.no_grad()
    def log_density(self, state: Tensor, action: Tensor, transition: Transition) -> Tensor:
        """log p_θ(s', r, terminated | s, a), `[K, ..., n]` or `[..., n]`, float64.

        In the environment's units, of the draw before it is clipped to the model's bounds: a
        Gaussian mixture over members. An entry that never varied in the data adds nothing. A reward
        or termination that a known rule decides is certain given s', adds nothing and is not looked
        at. Where nothing can terminate, a transition that does has −∞.

        Args:
            state: `[..., n, S]`
            action: `[..., n, A]`
            transition: its fields may lead with a K axis that states and actions do not have.

        Raises:
            ConfigError: if the noise has no density ("none", "bootstrap").
        """
        if self.noise.kind in ("none", "bootstrap"):
            raise ConfigError(
                f"A model with noise={self.noise.kind!r} has no density; use noise='gaussian' or "
                "'heteroscedastic'."
            )
        with torch.autocast(state.device.type, enabled=False):
            raw = self._at(state, action)
        outputs = self._outputs(raw.view(self.config.members, *state.shape[:-1], -1))
        # Residuals of the reward, the last entry, are left out where a rule decides it.
        kept = slice(self.state_size + (self.reward_rule is None))
        targets = self.targets
        mean = outputs.mean.double() * targets.scale.double() + targets.mean.double()
        mean[..., :-1] += state.double()
        drawn = torch.cat((transition.next_state, transition.reward[..., None]), -1).double()
        free = torch.arange(self.target_size, device=self.low.device)[kept]
        free = free[self.low[free] < self.high[free]]
        unit = (self.noise.scale * targets.scale[free]).double()
        covariance = self._noise_factor.double() @ self._noise_factor.double().T
        normal = MultivariateNormal(torch.zeros_like(unit), covariance[free][:, free])
        log_densities = []
        for m in range(self.config.members):
            scale = unit
            if outputs.log_scale is not None:
                scale = unit * outputs.log_scale[m][..., free].double().exp()
            residual = (drawn - mean[m])[..., free] / scale
            own: Tensor = normal.log_prob(residual)  # type: ignore[no-untyped-call]
            log_densities.append(own - scale.log().sum(-1))
        by_member = torch.stack(log_densities)
        if self.termination_rule is None:
            ended, logit = transition.terminated, outputs.termination_logit
            if logit is None:
                logit = mean.new_full(mean.shape[:-1], -torch.inf)
            logit = logit if ended.dim() < logit.dim() else logit[:, None]  # a K axis
            by_member += nn.functional.logsigmoid(torch.where(ended, logit, -logit))
        return torch.logsumexp(by_member, 0) - math.log(self.config.members)

    @property
    def _noise_factor(self) -> Tensor:
        if self.noise.kind == "gaussian":
            return self.noise.factor
        return torch.eye(self.target_size, device=self.low.device)

    def _draw(
        self,
        state: Tensor,
        action: Tensor,
        outputs: Outputs,
        member: Tensor,
        generator: torch.Generator,
    ) -> Draws:
        """Noise and clipping, given what each row's member predicts, `[P, n, ·]`."""
        n = state.shape[-2]
        noise = self.noise.draw(member, self.target_size, generator, outputs.log_scale)
        mean = free = self.targets.inverse(outputs.mean)
        mean[..., :-1] += state
        if noise is not None:
            free = mean + noise * self.targets.scale
        kept = torch.clamp(free, self.low, self.high)
        next_state, reward = kept[..., :-1], kept[..., -1]
        # An entry that never varies in the data is pinned: that is no excursion to count.
        outside = (kept != free) & (self.low < self.high)
        if self.reward_rule is not None:
            reward = self.reward_rule(state, action, next_state)
            outside = outside[..., :-1]
        bounded = outside.any(-1)
        terminated = torch.zeros_like(bounded)
        if self.termination_rule is not None:
            terminated = self.termination_rule(state, action, next_state)
        elif outputs.termination_logit is not None:
            draw = torch.rand(n, generator=generator, device=state.device)
            terminated = draw < outputs.termination_logit.sigmoid()
        return Draws(next_state, reward, terminated, bounded, mean)

"""A learned ensemble of one-step models, known from outside by one function: `sample`."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lfiw_ope.censored import members_log_density
from lfiw_ope.checks import choice, device_there, real, whole, widths
from lfiw_ope.drawing import Draws
from lfiw_ope.errors import ConfigError
from lfiw_ope.nn.dealing import Deal
from lfiw_ope.nn.ensemble import ACTIVATIONS, BatchedMLP, Standardiser
from lfiw_ope.nn.fit import autocast
from lfiw_ope.nn.fit_config import FitConfig, FitReport
from lfiw_ope.types import Reward, Termination, Transition

LOG_SCALE_BOUNDS = (-4.0, 0.5)
"""Of the heteroscedastic noise, in units of the targets' standard deviation. A lower floor lets an
entry that hardly varies weigh e^12 times its squared error, and the others are not learned."""


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """The ensemble and how it is trained.

    Attributes:
        members: M.
        hidden: width of each hidden layer.
        activation: "silu", "tanh" or "relu".
        noise: "residual": means trained by squared error, constant noise with the covariance of
            held-out residuals; "diagonal": the same with their variances alone; "gaussian": mean
            and bounded scale trained by likelihood, independent entries.
        bootstrap: each member learns from its own bootstrap sample of the training episodes, so
            that members differ as fits to other logs would; else all learn from the same, and
            differ by initial weights and batches alone.
        bound_margin: states and rewards that leave the data's range by more than this many ranges
            are put back there, and counted; inf never does.
        device: where the model is fitted and simulated, such as "cpu" or "cuda".
        fit: the training.

    Raises:
        ConfigError: if a setting is out of its range, or the device is not there.
    """

    members: int = 5
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "silu"
    noise: Literal["residual", "diagonal", "gaussian"] = "residual"
    bootstrap: bool = True
    bound_margin: float = 1.0
    device: str = "cpu"
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        whole("members", self.members, least=1)
        widths("hidden", self.hidden)
        choice("activation", self.activation, tuple(ACTIVATIONS))
        choice("noise", self.noise, ("residual", "diagonal", "gaussian"))
        if not isinstance(self.bootstrap, bool):
            raise ConfigError(f"bootstrap is {self.bootstrap!r}; it must be True or False.")
        real("bound_margin", self.bound_margin, least=0.0)
        device_there(self.device)


class Outputs(NamedTuple):
    """What the networks say, in standardised units; D = S + 1 targets, the reward last."""

    mean: Tensor  # [..., D]
    log_scale: Tensor | None  # [..., D]
    termination_logit: Tensor | None  # [...]


class EnsembleDynamics(nn.Module):
    """p_θ(s', r, terminated | s, a): a uniform mixture of M Gaussian networks.

    p_θ(s', r | s, a) = (1/M) Σ_m N((s' − s, r); μ_m(s, a), Σ)

    Targets are the standardised residual s' − s and the reward. Σ is the second moment of held-out
    residuals, or diagonal with each member's own bounded output. Termination is a known rule, a
    learned Bernoulli head, or never. Build it with `lfiw_ope.dynamics_fit.fit_dynamics`.

    Attributes:
        noise_factor: `[S + 1, S + 1]`, lower Cholesky factor of Σ, standardised; the identity
            where members say their own scale.
        low, high: `[S + 1]`, where drawn states and rewards are bounded.
        report: how the training went.
    """

    noise_factor: Tensor
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
        outputs = self.target_size * (1 + (config.noise == "gaussian")) + learns_termination
        sizes = (inputs.mean.numel(), *config.hidden, outputs)
        self.network = BatchedMLP(config.members, sizes, config.activation, generator)
        self.register_buffer("noise_factor", torch.eye(self.target_size, dtype=torch.float32))
        self.register_buffer("low", bounds[0])
        self.register_buffer("high", bounds[1])
        self.report: FitReport | None = None

    def member_outputs(self, state: Tensor, action: Tensor) -> Outputs:
        """All members at their own rows `[M, B, ·]`, or all at the same rows `[B, ·]`."""
        return self._outputs(self.network(self.inputs(torch.cat((state, action), -1))))

    def _outputs(self, raw: Tensor) -> Outputs:
        size = self.target_size
        log_scale = None
        if self.config.noise == "gaussian":
            low, high = LOG_SCALE_BOUNDS
            log_scale = low + (high - low) * torch.sigmoid(raw[..., size : 2 * size])
        logit = raw[..., -1] if self.learns_termination else None
        return Outputs(raw[..., :size], log_scale, logit)

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
        drawn = self._draw(batch, batch_action, self._outputs(deal.back(raw)), generator)
        return Draws(*(field.view(*lead, *field.shape[1:]) for field in drawn))

    @torch.no_grad()
    def draw(self, state: Tensor, action: Tensor, count: int, generator: torch.Generator) -> Draws:
        """`count` independent draws at each (s, a) of `[P, n, ·]`, fields `[count, P, n, ·]`.

        Every draw's member is uniform, so each is distributed as `sample`'s. All members are
        evaluated at each (s, a) once, and the draws choose among them: M networks, not `count`.
        """
        with torch.autocast(state.device.type, enabled=False):
            policies, n = state.shape[:2]
            raw = self._at(state, action).flatten(0, 1)
            # Drawn for the draws and the n axis; policies share them.
            member = torch.randint(
                self.config.members, (count, n), generator=generator, device=state.device
            )
            row = torch.arange(policies * n, device=state.device).view(policies, 1, n)
            chosen = raw.index_select(0, (member * (policies * n) + row).flatten())
            outputs = self._outputs(chosen.view(policies, count * n, -1))
            wide = (state.repeat(1, count, 1), action.repeat(1, count, 1))
            drawn = self._draw(*wide, outputs, generator)
        fields = (field.view(policies, count, n, *field.shape[2:]) for field in drawn)
        return Draws(*(field.transpose(0, 1) for field in fields))

    def _at(self, state: Tensor, action: Tensor) -> Tensor:
        """What every member says at every (s, a), `[M, rows, ·]`, in the precision of `sample`."""
        inputs = self.inputs(torch.cat((state, action), -1)).flatten(0, -2)
        with autocast(state.device, self.config.fit.precision):
            raw: Tensor = self.network(inputs)
        return raw

    @torch.no_grad()
    def log_density(self, state: Tensor, action: Tensor, transition: Transition) -> Tensor:
        """log p_θ(s', r, terminated | s, a), `[K, ..., n]` or `[..., n]`, float64.

        In the environment's units. An entry on one of its bounds has the probability that was put
        there, not a density (`lfiw_ope.censored`); beyond them the log-density is −∞. A reward or
        termination that a known rule decides is certain given s', adds nothing and is not looked
        at. Where nothing can terminate, a transition that does has −∞.

        Args:
            state: `[..., n, S]`
            action: `[..., n, A]`
            transition: its fields may lead with a K axis that states and actions do not have.
        """
        with torch.autocast(state.device.type, enabled=False):
            raw = self._at(state, action)
        outputs = self._outputs(raw.view(self.config.members, *state.shape[:-1], -1))
        # Residuals of the reward, the last entry, are left out where a rule decides it.
        kept = slice(self.state_size + (self.reward_rule is None))
        targets = self.targets
        mean = outputs.mean.double() * targets.scale.double() + targets.mean.double()
        mean[..., :-1] += state.double()
        by_member = members_log_density(
            torch.cat((transition.next_state, transition.reward[..., None]), -1)[..., kept],
            (self.low[kept], self.high[kept]),
            mean[..., kept],
            targets.scale[kept],
            None if outputs.log_scale is None else outputs.log_scale[..., kept],
            self.noise_factor[kept, kept],
        )
        if self.termination_rule is None:
            ended, logit = transition.terminated, outputs.termination_logit
            if logit is None:
                logit = mean.new_full(mean.shape[:-1], -torch.inf)
            logit = logit if ended.dim() < logit.dim() else logit[:, None]  # a K axis
            by_member += nn.functional.logsigmoid(torch.where(ended, logit, -logit))
        return torch.logsumexp(by_member, 0) - math.log(self.config.members)

    def _draw(
        self, state: Tensor, action: Tensor, outputs: Outputs, generator: torch.Generator
    ) -> Draws:
        """Noise and bounding, given what each row's member says, `[P, n, ·]`."""
        n = state.shape[-2]
        noise = torch.randn(
            (n, self.target_size), generator=generator, device=state.device, dtype=state.dtype
        )
        noise = noise @ self.noise_factor.T
        if outputs.log_scale is not None:
            noise = noise * outputs.log_scale.exp()
        free = self.targets.inverse(outputs.mean + noise)
        free[..., :-1] += state
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
        return Draws(next_state, reward, terminated, bounded)

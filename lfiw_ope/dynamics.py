"""A learned ensemble of one-step models, known from outside by one function: `sample`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lfiw_ope.data.trajectories import Trajectories, TransitionArrays
from lfiw_ope.errors import ConfigError
from lfiw_ope.nn.ensemble import BatchedMLP, Standardiser
from lfiw_ope.nn.fit import FitConfig, FitReport, autocast, fit
from lfiw_ope.seeding import torch_generator
from lfiw_ope.types import Progress, Reward, Termination, silent

LOG_SCALE_BOUNDS = (-4.0, 0.5)
"""Of the heteroscedastic noise, in units of the targets' standard deviation. A lower floor lets an
entry that hardly varies weigh e^12 times its squared error, and the others are not learned."""

EVALUATED_AT_ONCE = 8192
"""Held-out rows in one forward pass: bounds the memory of a look, not its result."""


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
        bound_margin: states and rewards that leave the data's range by more than this many ranges
            are put back there, and counted.
        fit: the training.
    """

    members: int = 5
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "silu"
    noise: Literal["residual", "diagonal", "gaussian"] = "residual"
    bound_margin: float = 1.0
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        if self.members < 1:
            raise ConfigError(f"members is {self.members!r}; it must be 1 or more.")
        if self.noise not in ("residual", "diagonal", "gaussian"):
            raise ConfigError(
                f"noise is {self.noise!r}; it must be one of 'residual', 'diagonal', 'gaussian'."
            )
        if self.bound_margin < 0:
            raise ConfigError(f"bound_margin is {self.bound_margin!r}; it must be 0 or more.")


class ModelTransition(NamedTuple):
    """A drawn transition; `lfiw_ope.types.Transition` says what the fields are."""

    next_state: Tensor
    reward: Tensor
    terminated: Tensor
    bounded: Tensor


class TransitionTensors(NamedTuple):
    """Logged transitions on a device, one a row; also a `Transition` of their own."""

    state: Tensor  # [R, S]
    action: Tensor  # [R, A]
    reward: Tensor  # [R]
    next_state: Tensor  # [R, S]
    terminated: Tensor  # [R] bool
    bounded: Tensor  # [R] bool, all False

    @classmethod
    def of(cls, rows: TransitionArrays, device: torch.device) -> "TransitionTensors":
        tensors = [torch.from_numpy(column).to(device) for column in rows[:5]]
        state, action, reward, next_state, terminated = tensors
        return cls(state, action, reward, next_state, terminated, torch.zeros_like(terminated))

    def at(self, rows: Tensor) -> "TransitionTensors":
        """The rows with these indices, in the indices' shape."""
        return TransitionTensors(*(column[rows] for column in self))


class _Outputs(NamedTuple):
    """What the networks say, in standardised units; D = S + 1 targets, the reward last."""

    mean: Tensor  # [..., D]
    log_scale: Tensor | None  # [..., D]
    termination_logit: Tensor | None  # [...]


class EnsembleDynamics(nn.Module):
    """p_θ(s', r, terminated | s, a): a uniform mixture of M Gaussian networks.

    p_θ(s', r | s, a) = (1/M) Σ_m N((s' − s, r); μ_m(s, a), Σ)

    Targets are the standardised residual s' − s and the reward. Σ is the second moment of held-out
    residuals, or diagonal with each member's own bounded output. Termination is a known rule, a
    learned Bernoulli head, or never. Build it with `fit_dynamics`.

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
        self.register_buffer("noise_factor", torch.eye(self.target_size))
        self.register_buffer("low", bounds[0])
        self.register_buffer("high", bounds[1])
        self.report: FitReport | None = None

    def member_outputs(self, state: Tensor, action: Tensor) -> _Outputs:
        """All members at their own rows `[M, B, ·]`, or all at the same rows `[B, ·]`."""
        raw = self.network(self.inputs(torch.cat((state, action), -1)))
        size = self.target_size
        log_scale = None
        if self.config.noise == "gaussian":
            low, high = LOG_SCALE_BOUNDS
            log_scale = low + (high - low) * torch.sigmoid(raw[..., size : 2 * size])
        logit = raw[..., -1] if self.learns_termination else None
        return _Outputs(raw[..., :size], log_scale, logit)

    @torch.no_grad()
    def sample(self, state: Tensor, action: Tensor, generator: torch.Generator) -> ModelTransition:
        """One draw at each (state `[..., n, S]`, action `[..., n, A]`): member, noise, bounding.

        Every row's member is uniform and independent of every other call. Within a call, members
        are dealt out evenly (a random permutation cut into M equal hands), so that each network
        runs on n / M rows and not on n: across rows that is stratified sampling of the mixture.
        """
        lead, n = state.shape[:-2], state.shape[-2]
        batch = state.reshape(-1, n, state.shape[-1])
        batch_action = action.reshape(-1, n, action.shape[-1])
        slot = _deal(n, self.config.members, state.device, generator)
        hands = (_hand_out(batch, slot), _hand_out(batch_action, slot))
        with autocast(state.device, self.config.fit.precision):
            outputs = self.member_outputs(*hands)
        mean = _take_back(outputs.mean, slot, n)
        noise = torch.randn((n, self.target_size), generator=generator, device=state.device)
        noise = noise @ self.noise_factor.T
        if outputs.log_scale is not None:
            noise = noise * _take_back(outputs.log_scale, slot, n).exp()
        target = self.targets.inverse(mean + noise)
        free = torch.cat((batch + target[..., :-1], target[..., -1:]), -1)
        kept = torch.clamp(free, self.low, self.high)
        next_state, reward = kept[..., :-1], kept[..., -1]
        # An entry that never varies in the data is pinned: that is no excursion to count.
        outside = (kept != free) & (self.low < self.high)
        if self.reward_rule is not None:
            reward = self.reward_rule(batch, batch_action, next_state)
            outside = outside[..., :-1]
        bounded = outside.any(-1)
        terminated = torch.zeros_like(bounded)
        if self.termination_rule is not None:
            terminated = self.termination_rule(batch, batch_action, next_state)
        elif outputs.termination_logit is not None:
            probability = _take_back(outputs.termination_logit[..., None], slot, n)[
                ..., 0
            ].sigmoid()
            draw = torch.rand(n, generator=generator, device=state.device)
            terminated = draw < probability
        return ModelTransition(
            next_state.view(*lead, n, -1),
            reward.view(*lead, n),
            terminated.view(*lead, n),
            bounded.view(*lead, n),
        )


def _deal(n: int, members: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """`[M, ceil(n / M)]`, which row each member gets at each place; n and above is nobody."""
    places = members * math.ceil(n / members)
    return torch.randperm(places, generator=generator, device=device).view(members, -1)


def _hand_out(rows: Tensor, slot: Tensor) -> Tensor:
    """`[P, n, D] -> [M, P · ceil(n / M), D]`; nobody's places hold some row, unused."""
    members, hand = slot.shape
    dealt = rows[:, slot.clamp_max(rows.shape[1] - 1).view(-1)]
    return dealt.view(rows.shape[0], members, hand, -1).transpose(0, 1).flatten(1, 2)


def _take_back(dealt: Tensor, slot: Tensor, n: int) -> Tensor:
    """The inverse: `[M, P · ceil(n / M), D] -> [P, n, D]`."""
    members, hand = slot.shape
    rows = dealt.view(members, -1, hand, dealt.shape[-1]).transpose(0, 1).flatten(1, 2)
    return rows[:, torch.argsort(slot.view(-1))[:n]]


class _OneStepLoss:
    """Squared error or Gaussian likelihood of standardised targets, and of termination."""

    def __init__(
        self, model: EnsembleDynamics, train: TransitionTensors, held_out: TransitionTensors
    ) -> None:
        self.model, self.train, self.held_out = model, train, held_out
        self.rows = train.state.shape[0]

    def targets(self, rows: TransitionTensors) -> Tensor:
        moved = torch.cat((rows.next_state - rows.state, rows.reward[..., None]), -1)
        standardised: Tensor = self.model.targets(moved)
        return standardised

    def _loss(self, rows: TransitionTensors) -> Tensor:
        outputs = self.model.member_outputs(rows.state, rows.action)
        error = (self.targets(rows) - outputs.mean).square()
        if outputs.log_scale is not None:
            error = 0.5 * error * torch.exp(-2.0 * outputs.log_scale) + outputs.log_scale
        loss = error.mean((1, 2))
        if outputs.termination_logit is not None:
            ended = rows.terminated.to(outputs.termination_logit.dtype)
            logit = outputs.termination_logit
            loss = loss + nn.functional.binary_cross_entropy_with_logits(
                logit, ended.expand_as(logit), reduction="none"
            ).mean(1)
        return loss

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return self._loss(self.train.at(rows))

    def held_out_loss(self) -> Tensor:
        members, count = self.model.config.members, self.held_out.state.shape[0]
        total = torch.zeros(members, device=self.held_out.state.device)
        for chunk in torch.split(torch.arange(count, device=total.device), EVALUATED_AT_ONCE):
            total += self._loss(self.held_out.at(chunk)) * chunk.numel()
        return total / count

    @torch.no_grad()
    def residual_moment(self) -> Tensor:
        """`[D, D]` float64, second moment of held-out residuals over rows and members."""
        model = self.model
        size = model.target_size
        squares = torch.zeros((size, size), dtype=torch.float64, device=model.low.device)
        count = self.held_out.state.shape[0]
        for chunk in torch.split(torch.arange(count, device=squares.device), EVALUATED_AT_ONCE):
            rows = self.held_out.at(chunk)
            with autocast(squares.device, model.config.fit.precision):
                outputs = model.member_outputs(rows.state, rows.action)
            error = (self.targets(rows) - outputs.mean).double().flatten(0, 1)
            squares += error.T @ error / model.config.members
        return squares / count


def _factor(moment: Tensor, diagonal: bool) -> Tensor:
    """Lower Cholesky factor of a second moment `[D, D]`, of its diagonal alone if so wished."""
    variance = moment.diagonal()
    if diagonal:
        return torch.diag(variance.sqrt())
    # A thousandth of each variance is added: entries that move as one (a sine and its cosine, a
    # constant) leave the matrix singular but for rounding.
    factor: Tensor = torch.linalg.cholesky(moment + torch.diag(1e-3 * variance + 1e-12))
    return factor


def _range(rows: TransitionTensors) -> tuple[Tensor, Tensor]:
    """Lowest and highest of each state entry, before and after the step, and of the reward."""
    states = torch.stack((rows.state, rows.next_state))
    low = torch.cat((states.amin((0, 1)), rows.reward.amin()[None]))
    high = torch.cat((states.amax((0, 1)), rows.reward.amax()[None]))
    return low, high


def fit_dynamics(
    data: Trajectories,
    config: DynamicsConfig,
    seed: int,
    *,
    train: Sequence[int],
    held_out: Sequence[int],
    device: torch.device | str = "cpu",
    reward: Reward | None = None,
    termination: Termination | None = None,
    progress: Progress = silent,
    checkpoint: Path | None = None,
) -> EnsembleDynamics:
    """Fit the ensemble to the episodes `train`, stopped and scaled by the episodes `held_out`.

    Args:
        data: the log.
        config: the ensemble.
        seed: of weights and batches.
        train: episodes to learn from.
        held_out: other episodes, for early stopping and the scale of the noise.
        device: where the ensemble lives.
        reward: the reward as a function, where it is known exactly; else it is learned.
        termination: the termination rule, where known; else it is learned if any logged episode
            terminated, and never happens if none did.
        progress: told how far training is.
        checkpoint: see `lfiw_ope.nn.fit.fit`.

    Raises:
        DivergedError: if a member's loss stops being finite.
    """
    device = torch.device(device)
    rows = TransitionTensors.of(data.select(train).transitions(), device)
    held_out_rows = TransitionTensors.of(data.select(held_out).transitions(), device)
    moved = torch.cat((rows.next_state - rows.state, rows.reward[:, None]), -1)
    low, high = _range(rows)
    margin = config.bound_margin * (high - low)
    model = EnsembleDynamics(
        config,
        Standardiser.of(torch.cat((rows.state, rows.action), -1)),
        Standardiser.of(moved),
        (low - margin, high + margin),
        state_size=data.state_size,
        learns_termination=termination is None and bool(data.terminated.any()),
        reward=reward,
        termination=termination,
        generator=torch_generator(seed, "dynamics", "weights"),
    ).to(device)
    loss = _OneStepLoss(model, rows, held_out_rows)
    model.report = fit(
        model.network,
        loss,
        config.fit,
        torch_generator(seed, "dynamics", "batches", device=device),
        stage="dynamics",
        progress=progress,
        checkpoint=checkpoint,
    )
    if config.noise != "gaussian":
        model.noise_factor.copy_(_factor(loss.residual_moment(), config.noise == "diagonal"))
    return model.requires_grad_(False)

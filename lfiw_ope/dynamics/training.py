"""Fitting the dynamics ensemble: its losses, the scale of its noise, its bounds."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lfiw_ope.core.protocols import Progress, Reward, Termination, silent
from lfiw_ope.core.seeding import torch_generator
from lfiw_ope.data.tensors import (
    DeviceLog,
    MemberRows,
    TransitionTensors,
    bootstrapped,
    leave_group_out,
    thin,
)
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics.ensemble import DynamicsConfig, EnsembleDynamics
from lfiw_ope.dynamics.noise import MAX_BANK_ENTRIES, MAX_BANK_ROWS, Noise
from lfiw_ope.nn.batched_mlp import Standardiser
from lfiw_ope.nn.training import autocast, fit

MOST_HELD_OUT = 1 << 16
"""Held-out transitions that a look uses. Their mean loss is known to well below a percent by then;
more of them, at 1e7 transitions, would cost more than the training."""


class _OneStepLoss:
    """Squared error or Gaussian likelihood of standardised targets, and of termination.

    Held out, squared error is replaced by absolute error: a single episode that goes where no
    other went (a robot on its back) can hold most of the squared error, and training then stops
    long before the other episodes are learned.
    """

    def __init__(
        self, model: EnsembleDynamics, log: DeviceLog, train: MemberRows, held_out: Tensor
    ) -> None:
        self.model, self.log, self.train, self.held_out = model, log, train, held_out
        self.rows = train.below

    def targets(self, rows: TransitionTensors) -> Tensor:
        standardised: Tensor = self.model.targets(_moved(rows))
        return standardised

    def _loss(self, rows: TransitionTensors, *, held_out: bool = False) -> Tensor:
        outputs = self.model.member_outputs(rows.state, rows.action)
        error = self.targets(rows) - outputs.mean
        if outputs.log_scale is not None:
            square = (error * torch.exp(-outputs.log_scale)).square()
            error = 0.5 * square + outputs.log_scale
        else:
            error = error.abs() if held_out else error.square()
        loss = error.mean((1, 2))
        if outputs.termination_logit is not None:
            ended = rows.terminated.to(outputs.termination_logit.dtype)
            logit = outputs.termination_logit
            loss = loss + nn.functional.binary_cross_entropy_with_logits(
                logit, ended.expand_as(logit), reduction="none"
            ).mean(1)
        return loss

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return self._loss(self.log.at(self.train.pick(rows)))

    def held_out_loss(self) -> Tensor:
        total = torch.zeros(self.model.config.members, device=self.held_out.device)
        for rows in self.log.chunks(self.held_out):
            total += self._loss(rows, held_out=True) * len(rows.reward)
        return total / len(self.held_out)

    @torch.no_grad()
    def residuals(self, generator: torch.Generator) -> Tensor:
        """`[M, R, D]`, standardised residuals of held-out transitions, for each member."""
        model = self.model
        per_row = model.config.members * model.target_size
        most = max(2, min(MAX_BANK_ROWS, MAX_BANK_ENTRIES // per_row))
        parts = []
        for rows in self.log.chunks(thin(self.held_out, most, generator)):
            with autocast(model.low.device, model.config.fit.precision):
                outputs = model.member_outputs(rows.state, rows.action)
            parts.append(self.targets(rows) - outputs.mean)
        return torch.cat(parts, 1)


def _moved(rows: TransitionTensors) -> Tensor:
    """`[..., S + 1]`, what the networks predict: s' − s and the reward."""
    return torch.cat((rows.next_state - rows.state, rows.reward[..., None]), -1)


def _range(log: DeviceLog) -> tuple[Tensor, Tensor]:
    """Lowest and highest of each state entry and of the reward."""
    low = torch.cat((log.states.amin(0), log.rewards.amin()[None]))
    high = torch.cat((log.states.amax(0), log.rewards.amax()[None]))
    return low, high


def fit_dynamics(
    data: Trajectories,
    config: DynamicsConfig,
    seed: int,
    *,
    train: Sequence[int],
    held_out: Sequence[int],
    reward: Reward | None = None,
    termination: Termination | None = None,
    progress: Progress = silent,
) -> EnsembleDynamics:
    """Fit the ensemble to the episodes `train`, stopped and scaled by the episodes `held_out`.

    Args:
        data: the log.
        config: the ensemble.
        seed: of weights and batches.
        train: episodes to learn from.
        held_out: other episodes, for early stopping and the scale of the noise.
        reward: the reward as a function, where it is known exactly; else it is learned.
        termination: the termination rule, where known; else it is learned if any logged episode
            terminated, and never happens if none did.
        progress: told how far training is.

    Raises:
        DivergedError: if a member's loss stops being finite.
    """
    device = torch.device(config.device)
    log = DeviceLog.of(data, device)
    rows = log.rows_of(train)
    # Over all the log: bounds are no fit, and an entry that is constant in one part may not be so
    # in another.
    low, high = _range(log)
    margin = torch.where(high > low, config.bound_margin * (high - low), 0.0)
    model = EnsembleDynamics(
        config,
        Standardiser.of_chunks(
            torch.cat((some.state, some.action), -1) for some in log.chunks(rows)
        ),
        Standardiser.of_chunks(_moved(some) for some in log.chunks(rows)),
        (low - margin, high + margin),
        state_size=data.state_size,
        learns_termination=termination is None and bool(data.terminated.any()),
        reward=reward,
        termination=termination,
        generator=torch_generator(seed, "dynamics", "weights"),
    ).to(device)
    drawing = torch_generator(seed, "dynamics", "held out", device=device)
    kept = thin(log.rows_of(held_out), MOST_HELD_OUT, drawing)
    learned = MemberRows.shared(rows, config.members)
    if config.member_episodes != "all":
        chosen = bootstrapped if config.member_episodes == "bootstrap" else leave_group_out
        learned = MemberRows.of(log, chosen(np.asarray(train), config.members, seed, "dynamics"))
    loss = _OneStepLoss(model, log, learned, kept)
    model.report = fit(
        model.network,
        loss,
        config.fit.for_rows(len(rows)),
        torch_generator(seed, "dynamics", "batches", device=device),
        stage="dynamics",
        progress=progress,
    )
    if config.noise != "heteroscedastic":
        model.noise = Noise(config.noise_kind, loss.residuals(drawing), scale=config.noise_scale)
    return model.requires_grad_(False)

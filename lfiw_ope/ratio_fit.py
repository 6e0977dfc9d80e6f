"""Fitting the density ratio: classifiers, their calibration and their report."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lfiw_ope.classifier import ClassifierReport
from lfiw_ope.data.tensors import DeviceLog, TransitionTensors, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.nn.ensemble import Standardiser
from lfiw_ope.nn.fit import autocast, fit
from lfiw_ope.ratio import RatioConfig, TransitionRatio
from lfiw_ope.seeding import torch_generator
from lfiw_ope.types import Progress, silent

MOST_HELD_OUT = 1 << 16
"""Held-out transitions that calibration and the report rest on: more would not change them."""

LOG_TEMPERATURE_BOUNDS = (-0.7, 5.0)
"""Early-stopped classifiers are hardly under-confident: logits are at most doubled, so that a
handful of held-out rows, which chance may separate, cannot sharpen noise into weights."""


class _RealOrSimulated:
    """Binary cross-entropy of logged against freshly simulated transitions at the same (s, a)."""

    def __init__(
        self,
        ratio: TransitionRatio,
        log: DeviceLog,
        train: Tensor,
        held_out: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.ratio, self.log, self.train, self.held_out = ratio, log, train, held_out
        self.rows = len(train)
        # Held-out negatives are drawn once: looks at the loss then differ by training alone.
        pairs = [self._features(rows, generator) for rows in log.chunks(held_out)]
        self.real_features, self.simulated_features = (
            torch.cat(features) for features in zip(*pairs, strict=True)
        )

    def content(self) -> tuple[str, Sequence[Tensor]]:
        # Held-out negatives come from the model: another model is another training.
        own = (self.train, self.real_features, self.simulated_features)
        # Averages and calibrations come after training: one checkpoint serves them all.
        settings = replace(self.ratio.config, average="logits", calibration="none")
        return repr(settings), (*self.log, *own)

    def _features(
        self, rows: TransitionTensors, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Of logged transitions `[B, F]`, and of as many simulated at the same (s, a)."""
        ratio = self.ratio
        simulated = ratio.dynamics.sample(rows.state, rows.action, generator)
        given = ratio.given(rows.state, rows.action)
        return ratio.features(given, rows), ratio.features(given, simulated)

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        logged = self.log.at(self.train.index_select(0, rows.flatten()))
        pair = (some.view(*rows.shape, -1) for some in self._features(logged, generator))
        logits = self.ratio.member_logits(torch.cat(tuple(pair), 1))
        real_logits, simulated_logits = logits.chunk(2, 1)
        return log_loss(real_logits, simulated_logits)

    def held_out_logits(self) -> tuple[Tensor, Tensor]:
        """`[C, R]` of logged and of simulated held-out transitions."""
        member_logits = self.ratio.member_logits
        return member_logits(self.real_features), member_logits(self.simulated_features)

    def held_out_loss(self) -> Tensor:
        return log_loss(*self.held_out_logits())


def log_loss(real: Tensor, simulated: Tensor) -> Tensor:
    """Balanced binary cross-entropy of logits `[..., R] -> [...]`, in nats."""
    softplus = nn.functional.softplus
    return 0.5 * (softplus(-real).mean(-1) + softplus(simulated).mean(-1))


def fit_transition_ratio(
    data: Trajectories,
    dynamics: EnsembleDynamics,
    config: RatioConfig,
    seed: int,
    *,
    train: Sequence[int],
    held_out: Sequence[int],
    progress: Progress = silent,
    checkpoint: Path | None = None,
) -> TransitionRatio:
    """Fit the ratio of the process behind `data` to `dynamics`.

    Args:
        data: the log.
        dynamics: the model; it must have been fitted to other episodes, because its residuals on
            its own are too small and would teach the classifiers overfitting.
        config: the classifiers.
        seed: of weights, batches and negatives.
        train: episodes to learn from.
        held_out: further episodes, for early stopping, calibration and the report.
        progress: told how far training is.
        checkpoint: see `lfiw_ope.nn.fit.fit`.

    Raises:
        DivergedError: if a member's loss stops being finite.
    """
    device = dynamics.low.device
    log = DeviceLog.of(data, device)
    rows = log.rows_of(train)
    ratio = TransitionRatio(
        config,
        dynamics,
        Standardiser.of_chunks(
            torch.cat((some.state, some.action), -1) for some in log.chunks(rows)
        ),
        Standardiser.of_chunks(
            torch.cat((_outcome(some, config), some.reward[:, None]), -1)
            for some in log.chunks(rows)
        ),
        torch_generator(seed, "ratio", "weights"),
    ).to(device)
    drawing = torch_generator(seed, "ratio", "held out", device=device)
    objective = _RealOrSimulated(
        ratio,
        log,
        rows,
        thin(log.rows_of(held_out), MOST_HELD_OUT, drawing),
        drawing,
    )
    ratio.fit_report = fit(
        ratio.network,
        objective,
        config.fit,
        torch_generator(seed, "ratio", "batches", device=device),
        stage="classifier",
        progress=progress,
        checkpoint=checkpoint,
    )
    _calibrate(ratio, objective)
    return ratio.requires_grad_(False)


def _outcome(rows: TransitionTensors, config: RatioConfig) -> Tensor:
    return rows.next_state if config.features == "raw" else rows.next_state - rows.state


@torch.no_grad()
def _calibrate(ratio: TransitionRatio, objective: _RealOrSimulated) -> None:
    """Fit the temperature to the averaged classifier's held-out log-loss, and report."""
    with autocast(ratio.temperature.device, ratio.config.fit.precision):
        real, simulated = (ratio.average(logits) for logits in objective.held_out_logits())
    if ratio.config.calibration == "temperature":
        pairs = zip(real, simulated, strict=True)
        fitted = [_fit_temperature(*pair) for pair in pairs]
        ratio.temperature.copy_(torch.tensor(fitted)[:, None])
    temperature = ratio.temperature
    right = (real > 0).double().mean() + (simulated <= 0).double().mean()
    ratio.report = ClassifierReport(
        log_loss=float(log_loss(real / temperature, simulated / temperature).mean()),
        uncalibrated_log_loss=float(log_loss(real, simulated).mean()),
        accuracy=float(right) / 2,
        temperature=float(temperature.mean())
        if ratio.config.calibration == "temperature"
        else None,
    )


def _fit_temperature(real: Tensor, simulated: Tensor) -> float:
    """Of one classifier's held-out logits `[R]`, the temperature of least log-loss."""
    from scipy.optimize import minimize_scalar  # a third of the time that torch takes to import

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        return float(log_loss(real / temperature, simulated / temperature))

    return math.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURE_BOUNDS, method="bounded").x)

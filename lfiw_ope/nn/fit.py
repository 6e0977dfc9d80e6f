"""The package's only training loop: E networks at once, early-stopped each on its own."""

import hashlib
import math
import os
import pickle
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lfiw_ope.errors import ConfigError, DivergedError
from lfiw_ope.nn.adamw import AdamW
from lfiw_ope.nn.fit_config import FitConfig, FitReport
from lfiw_ope.nn.objective import Following, Objective, SharedBatches
from lfiw_ope.types import Progress, silent


def resolve_precision(device: torch.device, precision: str) -> str:
    """`FitConfig.precision` on this device: "float32" or "bfloat16"."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        units = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        units = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return "bfloat16" if units else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The one meaning of `FitConfig.precision`, in training and in use."""
    low = resolve_precision(device, precision) == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low)


def fit(
    network: nn.Module,
    objective: Objective,
    config: FitConfig,
    generator: torch.Generator,
    *,
    stage: str,
    progress: Progress = silent,
    checkpoint: Path | None = None,
) -> FitReport:
    """Train `network` in place; each member ends with its weights of lowest held-out loss.

    Where the objective holds nothing out, each ends with its last weights.

    Batches are drawn uniformly with replacement, for each member its own unless the objective
    shares them. Nothing is copied to the host between two looks at the held-out loss.

    Args:
        network: every parameter leads with the E axis.
        objective: losses of the E members.
        config: schedule, precision, stopping.
        generator: the only source of randomness, on the network's device.
        stage: what is being trained, for progress and errors.
        progress: told how far training is.
        checkpoint: a file kept up to date at every look. Where it exists, training goes on from
            it and ends with the numbers of an uninterrupted run.

    Raises:
        DivergedError: if a member's loss stops being finite; it names stage, member and update.
        ConfigError: if the checkpoint belongs to another training, or one is wanted of an objective
            that is `Following`.
    """
    if checkpoint is not None and isinstance(objective, Following):
        raise ConfigError(
            f"Training of the {stage} keeps more than its weights, such as target networks, which "
            "a checkpoint would lose; train it without one."
        )
    started = time.perf_counter()
    config = config.for_rows(objective.rows)
    run = _Run(network, objective, config, generator, stage)
    if checkpoint is not None and checkpoint.exists():
        run.load(checkpoint)
    while run.update < config.updates and not run.stale:
        run.step()
        if run.update % config.evaluate_every == 0 or run.update == config.updates:
            run.evaluate()
            progress(stage, run.update, config.updates, f"{run.judge} {run.history[-1][2]:.4g}")
            if checkpoint is not None:
                run.save(checkpoint)
        elif run.update % 25 == 0:
            progress(stage, run.update, config.updates)
    progress(stage, config.updates, config.updates, f"{run.judge} {run.best_loss.mean():.4g}")
    return run.finish(time.perf_counter() - started)


class _Run:
    """The state of one training: all that a checkpoint must hold."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        config: FitConfig,
        generator: torch.Generator,
        stage: str,
    ) -> None:
        self.network, self.objective, self.config = network, objective, config
        self.generator, self.stage = generator, stage
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        first = self.parameters[0]
        self.device, self.members = first.device, first.shape[0]
        self.optimiser = AdamW(
            self.parameters,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.batches = self.members
        if isinstance(objective, SharedBatches):
            self.batches = objective.batches
        self.update = 0
        self.judge = "held-out loss"
        self.looks_without_gain = 0
        self.train_loss = torch.zeros(self.members, device=self.device)
        self.best = [p.detach().clone() for p in self.parameters]
        self.best_loss = torch.full((self.members,), math.inf)
        self.best_update = torch.zeros(self.members, dtype=torch.int64)
        self.history: list[tuple[int, float, float]] = []

    @property
    def stale(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.looks_without_gain >= patience

    def step(self) -> None:
        config = self.config
        if config.schedule == "cosine":
            turn = math.cos(math.pi * self.update / config.updates)
            self.optimiser.learning_rate = config.learning_rate * 0.5 * (1.0 + turn)
        rows = torch.randint(
            self.objective.rows,
            (self.batches, config.batch_size),
            generator=self.generator,
            device=self.device,
        )
        with autocast(self.device, config.precision):
            loss = self.objective.loss(rows, self.generator)
        self.optimiser.zero_grad()
        # Members share no parameter: the gradient of the sum is each member's own gradient.
        loss.sum().backward()  # type: ignore[no-untyped-call]
        if config.clip_gradient is not None:
            torch.nn.utils.clip_grad_value_(self.parameters, config.clip_gradient)
        self.optimiser.step()
        if isinstance(self.objective, Following):
            self.objective.updated()
        self.train_loss += loss.detach()
        self.update += 1

    @torch.no_grad()
    def evaluate(self) -> None:
        since = self.update - (self.history[-1][0] if self.history else 0)
        trained = (self.train_loss / since).cpu()
        self.train_loss.zero_()
        with autocast(self.device, self.config.precision):
            told = self.objective.held_out_loss()
        held_out = trained if told is None else told.cpu()
        self.judge = "training loss" if told is None else "held-out loss"
        broken = ~(held_out.isfinite() & trained.isfinite())
        if broken.any():
            member = int(broken.nonzero()[0])
            raise DivergedError(
                f"Training of the {self.stage} diverged: member {member + 1} of {self.members} "
                f"had a training loss of {trained[member]:.4g} and a held-out loss of "
                f"{held_out[member]:.4g} by update {self.update}; lower learning_rate (now "
                f"{self.config.learning_rate:g}) or look for extreme values in the data."
            )
        better = held_out < self.best_loss if told is not None else torch.ones(len(held_out)).bool()
        self.best_loss = torch.where(better, held_out, self.best_loss)
        self.best_update[better] = self.update
        mask = better.to(self.device)
        for kept, parameter in zip(self.best, self.parameters, strict=True):
            kept[mask] = parameter.detach()[mask]
        self.looks_without_gain = 0 if better.any() else self.looks_without_gain + 1
        self.history.append((self.update, float(trained.mean()), float(held_out.mean())))

    @torch.no_grad()
    def finish(self, seconds: float) -> FitReport:
        for kept, parameter in zip(self.best, self.parameters, strict=True):
            parameter.copy_(kept)
        return FitReport(
            held_out_loss=tuple(self.best_loss.tolist()),
            best_update=tuple(self.best_update.tolist()),
            updates=self.update,
            history=tuple(self.history),
            seconds=seconds,
            precision=resolve_precision(self.device, self.config.precision),
        )

    @cached_property
    def _identity(self) -> dict[str, Any]:
        settings, tensors = self.objective.content()
        data = hashlib.sha256()
        for tensor in tensors:
            data.update(str(tuple(tensor.shape)).encode())
            data.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return {
            "stage": self.stage,
            "config": asdict(self.config),
            "settings": settings,
            "shapes": [list(p.shape) for p in self.parameters],
            "seed": self.generator.initial_seed(),
            "data": data.hexdigest(),
        }

    def save(self, path: Path) -> None:
        state = {
            "identity": self._identity,
            "parameters": [p.detach() for p in self.parameters],
            "moments": self.optimiser.state(),
            "generator": self.generator.get_state(),
            "best": self.best,
            "best_loss": self.best_loss,
            "best_update": self.best_update,
            "update": self.update,
            "looks_without_gain": self.looks_without_gain,
            "history": self.history,
        }
        partial = path.with_name(path.name + ".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        os.replace(partial, path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            saved_identity, moments = state["identity"], state["moments"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} is no checkpoint of a training; delete it or name another file."
            ) from error
        mine = self._identity
        differing = [k for k in mine if saved_identity.get(k) != mine[k]]
        if differing:
            raise ConfigError(
                f"The checkpoint {path} belongs to another training ({', '.join(differing)} "
                "differ); delete it or name another file."
            )
        for parameter, saved in zip(self.parameters, state["parameters"], strict=True):
            parameter.copy_(saved)
        self.optimiser.load(moments)
        self.generator.set_state(state["generator"].cpu())
        self.best = state["best"]
        self.best_loss = state["best_loss"].cpu()
        self.best_update = state["best_update"].cpu()
        self.update = state["update"]
        self.looks_without_gain = state["looks_without_gain"]
        self.history = [tuple(entry) for entry in state["history"]]

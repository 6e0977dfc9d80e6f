"""Settings of a training, and its report."""

from dataclasses import dataclass, replace
from typing import Literal

from lfiw_ope.checks import choice, real, whole

MIN_UPDATES = 2_000
"""Fewest updates of a training whose length follows from the data, unless `updates` is less."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a network is trained.

    Attributes:
        updates: gradient steps at most.
        epochs: passes over the training rows, but `MIN_UPDATES` gradient steps at least; None makes
            `updates` steps, whatever the data's size.
        batch_size: B, rows for each member in an update.
        learning_rate: AdamW's, at the start.
        schedule: "cosine" goes down to zero at the last update; "constant" stays.
        weight_decay: AdamW's, decoupled.
        precision: of the hidden products in training and in use: "float32", or "bfloat16"
            autocast (parameters, last layer, loss and optimiser stay float32). "auto" is bfloat16
            where the processor has matrix units for it (AMX, CUDA), else float32: results then
            depend on the processor.
        clip_gradient: the largest entry that a gradient may have, either way; None for any.
        evaluate_every: updates between two looks at the held-out loss.
        patience: looks without any member improving before training stops; None never stops.
    """

    updates: int = 4000
    epochs: float | None = None
    batch_size: int = 256
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    clip_gradient: float | None = None
    evaluate_every: int = 200
    patience: int | None = 10

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "evaluate_every"):
            whole(name, getattr(self, name), least=1)
        if self.epochs is not None:
            real("epochs", self.epochs, least=1e-3)
        if self.patience is not None:
            whole("patience", self.patience, least=1)
        real("learning_rate", self.learning_rate, least=1e-12, most=1e3)
        if self.clip_gradient is not None:
            real("clip_gradient", self.clip_gradient, least=1e-12)
        real("weight_decay", self.weight_decay, least=0.0, most=1e3)
        choice("schedule", self.schedule, ("cosine", "constant"))
        choice("precision", self.precision, ("auto", "float32", "bfloat16"))

    def for_rows(self, rows: int) -> "FitConfig":
        """These settings with the number of updates that `epochs` means for so many rows."""
        if self.epochs is None:
            return self
        wanted = max(MIN_UPDATES, round(self.epochs * rows / self.batch_size))
        return replace(self, updates=min(self.updates, wanted), epochs=None)


@dataclass(frozen=True)
class FitReport:
    """How a training went.

    Attributes:
        held_out_loss: each member's best, whose weights it ends with; where nothing is held out,
            its training loss since the last look.
        best_update: the update where each member had it.
        updates: how many were run.
        history: (update, mean training loss since the last look, mean held-out loss).
        seconds: wall-clock, of this process.
        precision: of the hidden products, "float32" or "bfloat16".
    """

    held_out_loss: tuple[float, ...]
    best_update: tuple[int, ...]
    updates: int
    history: tuple[tuple[int, float, float], ...]
    seconds: float
    precision: str = "float32"

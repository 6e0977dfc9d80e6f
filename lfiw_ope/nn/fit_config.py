"""Settings of a training."""

from dataclasses import dataclass
from typing import Literal

from lfiw_ope.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a network is trained.

    Attributes:
        updates: gradient steps at most.
        batch_size: B, rows for each member in an update.
        learning_rate: AdamW's, at the start.
        schedule: "cosine" goes down to zero at the last update; "constant" stays.
        weight_decay: AdamW's, decoupled.
        precision: of the hidden products in training and in use: "float32", or "bfloat16"
            autocast (parameters, last layer, loss and optimiser stay float32).
        evaluate_every: updates between two looks at the held-out loss.
        patience: looks without any member improving before training stops; None never stops.
    """

    updates: int = 4000
    batch_size: int = 256
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    evaluate_every: int = 200
    patience: int | None = 10

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be 1 or more.")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate!r}; it must be positive.")
        if self.weight_decay < 0:
            raise ConfigError(f"weight_decay is {self.weight_decay!r}; it must be 0 or more.")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"patience is {self.patience!r}; it must be 1 or more, or None.")
        for name, known in (
            ("schedule", ("cosine", "constant")),
            ("precision", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}."
                )

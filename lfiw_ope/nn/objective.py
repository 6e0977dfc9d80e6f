"""What the training loop minimises."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class Objective(Protocol):
    """What is minimised, for E members at once."""

    @property
    def rows(self) -> int:
        """Training rows to draw batches from."""
        ...

    def content(self) -> tuple[str, Sequence[Tensor]]:
        """Settings and tensors that the losses rest on, for a checkpoint to be told by."""
        ...

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The members' losses `[E]` on their batches, row indices `[E, B]`.

        Of an objective with `SharedBatches`, fewer batches than networks: `[batches, B]`.
        """
        ...

    def held_out_loss(self) -> Tensor | None:
        """The members' losses `[E]` on data that training never sees.

        None where such a loss would not tell a better network, as where its targets are made by
        the networks themselves: training then never stops early and keeps its last weights.
        """
        ...


@runtime_checkable
class Following(Protocol):
    """An objective that moves something of its own after every update, such as target networks."""

    def updated(self) -> None: ...


@runtime_checkable
class SharedBatches(Protocol):
    """An objective whose networks share batches, as those of P policies that learn alike do."""

    @property
    def batches(self) -> int:
        """How many are drawn for an update."""
        ...

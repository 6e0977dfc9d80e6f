"""Samples of a distribution: rows that are there, or a function that draws fresh ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.errors import DataError
from lfiw_ope.seeding import torch_generator

Draw = Callable[[int, torch.Generator], Tensor | NDArray[Any]]
"""(count, generator) -> `[count, D]`: fresh independent samples, by the generator alone."""

Samples = Tensor | NDArray[Any] | Draw

LEAST_ROWS = 10
"""Of an array: fewer leave no held-out samples that could stop a training or calibrate anything."""


class Rows:
    """Samples that are there: batches are drawn from them with replacement."""

    def __init__(self, train: Tensor, held_out: Tensor) -> None:
        self.train, self.held_out = train, held_out

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(
            len(self.train), (count,), generator=generator, device=self.train.device
        )
        return self.train.index_select(0, chosen)


class Drawn:
    """Samples that are drawn when they are needed: every batch is fresh."""

    def __init__(self, name: str, draw: Draw, held_out: int, generator: torch.Generator) -> None:
        self._name, self._draw = name, draw
        self._size: int | None = None
        # Standardised by samples of their own: those held out judge, and do nothing else.
        self.train, self.held_out = (
            _finite(name, self.draw(held_out, generator)) for _ in range(2)
        )

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        rows = torch.as_tensor(
            self._draw(count, generator), dtype=torch.float32, device=generator.device
        )
        size = self._size if self._size is not None or rows.dim() != 2 else rows.shape[1]
        if rows.dim() != 2 or rows.shape != (count, size):
            expected = "D" if size is None else size
            raise DataError(
                f"The {self._name} drew an array of the shape {list(rows.shape)}; {count} samples "
                f"were asked for, so [{count}, {expected}] was expected."
            )
        self._size = size
        return rows


Source = Rows | Drawn


def source_of(
    name: str, given: Samples, share: float, draws: int, seed: int, device: torch.device
) -> Source:
    """Where the samples of one side come from, with some of them held out.

    Args:
        name: of the side, for messages and for its random streams.
        given: `[R, D]`, or a function.
        share: of the rows, those held out.
        draws: how many a function draws once in their place.
        seed: of what is held out.
        device: where the samples are kept or drawn.

    Raises:
        DataError: if they are no samples `[R, D]`, too few, or not finite.
    """
    if callable(given):
        generator = torch_generator(seed, "density ratio", name, "held out", device=device)
        return Drawn(name, given, draws, generator)
    rows = _finite(name, _as_rows(name, given))
    # On the host: a seed holds the same rows out wherever the classifiers are fitted.
    order = torch.randperm(len(rows), generator=torch_generator(seed, "density ratio", name))
    kept = min(max(2, round(share * len(rows))), len(rows) - 2)
    shuffled = rows[order.to(rows.device)].to(device)
    return Rows(shuffled[kept:], shuffled[:kept])


def _as_rows(name: str, given: Tensor | NDArray[Any]) -> Tensor:
    """`[R, D]` float32, a copy where it must be."""
    values = given if isinstance(given, Tensor) else np.asarray(given)
    if values.dtype.is_complex if isinstance(values, Tensor) else values.dtype.kind not in "fiub":
        raise DataError(f"The {name} holds {values.dtype} values; pass real numbers, [R, D].")
    if isinstance(values, Tensor):
        rows = values.detach().to(torch.float32)
    else:
        with np.errstate(over="ignore"):  # too large for float32 is infinite, and is refused
            rows = torch.from_numpy(values.astype(np.float32))
    if rows.dim() != 2 or rows.shape[1] < 1:
        raise DataError(
            f"The {name} has the shape {list(rows.shape)}; samples are expected as [R, D], one a "
            "row (for plain numbers x, pass x[:, None])."
        )
    if len(rows) < LEAST_ROWS:
        raise DataError(
            f"The {name} has {len(rows)} samples; {LEAST_ROWS} or more are needed, some of them to "
            "be held out."
        )
    return rows


def _finite(name: str, rows: Tensor) -> Tensor:
    bad = int((~rows.isfinite()).sum())
    if bad:
        raise DataError(
            f"The {name}'s samples hold {bad} of {rows.numel()} entries that are NaN, infinite or "
            "too large for float32; drop or repair them."
        )
    return rows

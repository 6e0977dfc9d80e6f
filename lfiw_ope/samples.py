"""Samples of a distribution: rows that are there, or a function that draws fresh ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.errors import ConfigError, DataError
from lfiw_ope.seeding import torch_generator

Draw = Callable[[int, torch.Generator], Tensor | NDArray[Any]]
"""(count, generator) -> `[count, D]`: fresh independent samples, by the generator alone."""

Samples = Tensor | NDArray[Any] | Draw

LEAST_ROWS = 10
"""Of an array: fewer leave no held-out samples that could stop a training or calibrate anything."""


LEAST_SPREAD = 2.0**-20
"""Standard deviation of a column, relative to its largest entry: float32 has 8 steps in it, and
what varies less is standardised as a constant."""

ROUNDING = 2.0**-48
"""Standard deviation, relative to the largest entry, that rounding alone may give in float64."""


def tensor_of(name: str, drawn: object, device: torch.device) -> Tensor:
    """What a drawing function gave, on a device.

    Raises:
        ConfigError: if it is no array.
    """
    try:
        return torch.as_tensor(drawn, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{name} drew a {type(drawn).__name__}; a function that draws must give a tensor or an "
            "array of numbers, one sample a row."
        ) from error


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
        with torch.no_grad():
            self.train, self.held_out = (
                _in_float32(name, self._as_drawn(held_out, generator)) for _ in range(2)
            )

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return self._as_drawn(count, generator).to(torch.float32)

    def _as_drawn(self, count: int, generator: torch.Generator) -> Tensor:
        """Of whatever number type it is."""
        rows = tensor_of(f"The {self._name}", self._draw(count, generator), generator.device)
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
        ConfigError: if a function gives no array.
        DataError: if they are no samples `[R, D]`, too few, not finite, or vary too little for
            float32.
    """
    if callable(given):
        generator = torch_generator(seed, "density ratio", name, "held out", device=device)
        return Drawn(name, given, draws, generator)
    rows = _as_rows(name, given)
    # On the host: a seed holds the same rows out wherever the classifiers are fitted.
    order = torch.randperm(len(rows), generator=torch_generator(seed, "density ratio", name))
    kept = min(max(2, round(share * len(rows))), len(rows) - 2)
    shuffled = rows[order.to(rows.device)].to(device)
    return Rows(shuffled[kept:], shuffled[:kept])


def _as_rows(name: str, given: Tensor | NDArray[Any]) -> Tensor:
    """`[R, D]` float32 and finite, a copy where it must be."""
    values = given if isinstance(given, Tensor) else np.asarray(given)
    if values.dtype.is_complex if isinstance(values, Tensor) else values.dtype.kind not in "fiub":
        raise DataError(f"The {name} holds {values.dtype} values; pass real numbers, [R, D].")
    rows = values.detach() if isinstance(values, Tensor) else _as_tensor(values)
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
    return _in_float32(name, rows)


def _as_tensor(values: NDArray[Any]) -> Tensor:
    # torch takes neither arrays that may not be written to nor every type and byte order.
    kind = np.float32 if np.can_cast(values.dtype, np.float32) else np.float64
    return torch.from_numpy(values.astype(kind))


def _in_float32(name: str, given: Tensor) -> Tensor:
    """`[R, D]` float32, or an error where that leaves nothing of them."""
    rows = given.to(torch.float32)
    bad = int((~rows.isfinite()).sum())
    if bad:
        raise DataError(
            f"The {name}'s samples hold {bad} of {rows.numel()} entries that are NaN, infinite or "
            "too large for float32; drop or repair them."
        )
    if given.dtype not in (torch.float64, torch.int64, torch.int32):
        return rows
    wide = given.double()
    spread, largest = wide.std(0, correction=0), wide.abs().amax(0)
    # What only float64's rounding varies is constant, and is standardised as such.
    varies = spread > ROUNDING * largest
    lost = (varies & (spread < LEAST_SPREAD * largest)).nonzero().flatten()
    if len(lost):
        column = int(lost[0])
        raise DataError(
            f"Column {column} of the {name}'s samples varies by {float(spread[column]):.3g} about "
            f"{float(wide[:, column].mean()):.3g}, which float32 cannot hold; subtract the offset "
            "from both sides' samples, in float64."
        )
    return rows

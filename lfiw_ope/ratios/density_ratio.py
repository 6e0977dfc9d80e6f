"""The density ratio of two sets of samples, by classification."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfiw_ope.core.errors import ConfigError, DataError
from lfiw_ope.core.protocols import Progress, silent
from lfiw_ope.core.seeding import torch_generator
from lfiw_ope.core.validation import choice, device_there, real, whole
from lfiw_ope.nn.batched_mlp import Standardiser
from lfiw_ope.nn.training import FitReport
from lfiw_ope.ratios.classifier import (
    ClassifierConfig,
    ClassifierEnsemble,
    ClassifierReport,
    Pair,
    TwoSampleObjective,
    fit_classifiers,
)


class DensityRatio(nn.Module):
    """log p(x) / q(x), where p and q are known by samples alone.

    The classifiers tell samples of p from samples of q; see `ClassifierEnsemble`. Build it with
    `lfiw_ope.fit_density_ratio`.

    Args:
        config: the classifiers.
        inputs: standardises a sample `[..., D]`.
        generator: draws the initial weights; see `BatchedMLP`.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        inputs: Standardiser,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.inputs = inputs
        self.classifiers = ClassifierEnsemble(config, inputs.mean.numel(), generator)

    @property
    def report(self) -> ClassifierReport | None:
        """How well the classifiers tell held-out samples apart; None before they are fitted."""
        return self.classifiers.report

    @property
    def fit_report(self) -> FitReport | None:
        """How their training went."""
        return self.classifiers.fit_report

    @torch.no_grad()
    def log_ratio(self, x: Tensor | NDArray[Any]) -> Tensor:
        """Of samples `[..., D] -> [...]`, in nats, on the classifiers' device.

        Where `average` is "estimates", each classifier's own: `[C, ...]`.

        Raises:
            DataError: if the last axis is not D, or an entry is NaN, infinite or too large for
                float32.
        """
        mean = self.inputs.mean
        rows = torch.as_tensor(x, dtype=mean.dtype, device=mean.device)
        if rows.shape[-1:] != mean.shape:
            raise DataError(
                f"The samples have the shape {list(rows.shape)}; the ratio was fitted to samples "
                f"of {mean.numel()} entries, so the last axis must be {mean.numel()}."
            )
        bad = int((~rows.isfinite()).sum())
        if bad:
            raise DataError(
                f"{bad} of the samples' {rows.numel()} entries are NaN, infinite or too large for "
                "float32; they have no log-ratio, so drop or repair them."
            )
        return self.classifiers.log_ratio(self.inputs(rows))


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


class _EqualNumbers(TwoSampleObjective):
    """B samples of either side make an update, so that the logit is the log-ratio."""

    rows = 1  # a source draws for itself; the loop's row numbers give batches their shape alone

    def __init__(self, ratio: DensityRatio, numerator: Source, denominator: Source) -> None:
        self.inputs, self.classifiers = ratio.inputs, ratio.classifiers
        self.sides = numerator, denominator
        self.held_out = ratio.inputs(numerator.held_out), ratio.inputs(denominator.held_out)
        first, second = (len(side) // 2 for side in self.held_out)
        self.halves = first, second

    def batch(self, rows: Tensor, generator: torch.Generator) -> Pair:
        drawn = (side.draw(rows.numel(), generator) for side in self.sides)
        numerator, denominator = (self.inputs(x).view(*rows.shape, -1) for x in drawn)
        return numerator, denominator


class _Pooled(_EqualNumbers):
    """Batches of both sides together, in proportion to their sizes.

    A classifier so trained has the logit log(n_p / n_q) + log p / q. That constant is added to the
    network's output in the loss, so that what the network learns is the log-ratio.
    """

    def __init__(self, ratio: DensityRatio, numerator: Rows, denominator: Rows) -> None:
        super().__init__(ratio, numerator, denominator)
        self.union = torch.cat((numerator.train, denominator.train))
        self.rows, self.of_numerator = len(self.union), len(numerator.train)
        self.share = self.of_numerator / self.rows
        self.log_odds = math.log(self.of_numerator / (self.rows - self.of_numerator))

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        chosen = self.inputs(self.union.index_select(0, rows.flatten()))
        logits = self.classifiers.member_logits(chosen.view(*rows.shape, -1)) + self.log_odds
        label = (rows < self.of_numerator).to(logits.dtype)
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits, label, reduction="none"
        ).mean(1)

    def held_out_loss(self) -> Tensor:
        numerator, denominator = (logits + self.log_odds for logits in self.held_out_logits())
        softplus = torch.nn.functional.softplus
        of_numerator, of_denominator = softplus(-numerator).mean(-1), softplus(denominator).mean(-1)
        return self.share * of_numerator + (1.0 - self.share) * of_denominator


def fit_density_ratio(
    numerator: Samples,
    denominator: Samples,
    config: ClassifierConfig | None = None,
    *,
    seed: int,
    held_out: float = 0.2,
    held_out_draws: int = 10_000,
    balance: Literal["equal", "pooled"] = "equal",
    device: str = "cpu",
    progress: Progress = silent,
) -> DensityRatio:
    """Fit log p(x) / q(x) from samples of p and of q (Grover et al. 2019, section 2).

    Classifiers learn to tell the two apart, are stopped early and calibrated on held-out samples,
    and `DensityRatio.report` says how well that went.

    Args:
        numerator: samples of p: an array `[R, D]` of any number type, or a function
            (count, generator) -> `[count, D]` that draws independent ones, on the generator's
            device and from it alone.
        denominator: samples of q, as many or not: `[R', D]`, or a function.
        config: the classifiers; the defaults where None.
        seed: of weights, batches, draws and of what is held out.
        held_out: share of an array's rows that training does not see, at random: rows must not
            come in near-copies, such as the steps of one episode.
        held_out_draws: how many a function draws once in their place.
        balance: "equal" draws B samples of either side for an update; "pooled" draws B from both
            arrays together, in proportion to their sizes, and takes the prior odds that this gives
            the classifiers back out of the log-ratio. The ratio is the same. "pooled" sees each row
            as often as any other, "equal" has more of a rare side in its batches.
        device: where everything is fitted, such as "cpu" or "cuda".
        progress: told how far training is.

    Raises:
        DataError: if an array is no `[R, D]`, has too few rows or entries that are not finite, or
            the two disagree in D.
        ConfigError: if a setting is outside its range, the device is not there, or `balance` is
            "pooled" and a side is a function.
        DivergedError: if a member's loss stops being finite.
        MissingDependencyError: if the calibration needs a package that is not installed.
    """
    if not isinstance(config, ClassifierConfig | None):
        raise ConfigError(
            f"config is a {type(config).__name__}; give a ClassifierConfig, or None for the "
            "defaults."
        )
    choice("balance", balance, ("equal", "pooled"))
    real("held_out", held_out, least=0.01, most=0.9)
    whole("held_out_draws", held_out_draws, least=LEAST_ROWS)
    device_there(device)
    above, below = (
        source_of(name, given, held_out, held_out_draws, seed, torch.device(device))
        for name, given in (("numerator", numerator), ("denominator", denominator))
    )
    sizes = [side.train.shape[1] for side in (above, below)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"The numerator's samples have {sizes[0]} entries and the denominator's {sizes[1]}; "
            "a ratio needs both in the same space."
        )
    ratio = DensityRatio(
        ClassifierConfig() if config is None else config,
        Standardiser.of_chunks((above.train, below.train)),
        torch_generator(seed, "density ratio", "weights"),
    ).to(device)
    fit_classifiers(
        _objective(ratio, above, below, balance),
        torch_generator(seed, "density ratio", "batches", device=device),
        progress=progress,
    )
    return ratio.requires_grad_(False)


def _objective(
    ratio: DensityRatio, numerator: Source, denominator: Source, balance: str
) -> TwoSampleObjective:
    if balance == "equal":
        return _EqualNumbers(ratio, numerator, denominator)
    if isinstance(numerator, Drawn) or isinstance(denominator, Drawn):
        raise ConfigError(
            'balance is "pooled", and a function that draws has no size to be drawn in proportion '
            'to; pass two arrays, or balance="equal".'
        )
    return _Pooled(ratio, numerator, denominator)

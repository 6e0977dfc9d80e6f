"""Fitting the density ratio of two sets of samples, each an array or a function that draws."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lfiw_ope.checks import choice, device_there, real, whole
from lfiw_ope.classifier import ClassifierConfig
from lfiw_ope.classifier_fit import Pair, TwoSampleObjective, fit_classifiers
from lfiw_ope.density_ratio import DensityRatio
from lfiw_ope.errors import ConfigError, DataError
from lfiw_ope.nn.ensemble import Standardiser
from lfiw_ope.samples import LEAST_ROWS, Drawn, Rows, Samples, Source, source_of
from lfiw_ope.seeding import torch_generator
from lfiw_ope.types import Progress, silent


class _EqualNumbers(TwoSampleObjective):
    """B samples of either side make an update, so that the logit is the log-ratio."""

    rows = 1  # a source draws for itself; the loop's row numbers give batches their shape alone

    def __init__(self, ratio: DensityRatio, numerator: Source, denominator: Source) -> None:
        self.inputs, self.classifiers = ratio.inputs, ratio.classifiers
        self.sides = numerator, denominator
        self.held_out = ratio.inputs(numerator.held_out), ratio.inputs(denominator.held_out)
        first, second = (len(side) // 2 for side in self.held_out)
        self.halves = first, second

    def sources(self) -> Sequence[Tensor]:
        return tuple(side.train for side in self.sides)

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

    def content(self) -> tuple[str, Sequence[Tensor]]:
        settings, tensors = super().content()
        return f"{settings}, pooled", tensors

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
    checkpoint: Path | None = None,
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
        checkpoint: see `lfiw_ope.nn.fit.fit`. It serves every average and every calibration.

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
        checkpoint=checkpoint,
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

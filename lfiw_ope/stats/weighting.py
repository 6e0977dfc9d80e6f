"""Forms of importance weights: which there are, how they shape ratios, SIR's choice of a step.

Weights are given as logarithms and are float64 throughout. Nothing here hands a number to the
host, so that a rollout's loop on a GPU never waits.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.validation import choice, real, whole
from lfiw_ope.stats.weights import (
    check_clip,
    clip,
    cumulate,
    effective_sample_size,
    flatten,
    longest_first,
    pareto_smooth,
    require_finite,
    require_weights,
    temper,
)


def choose(log_ratio: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """SIR's step: which of K candidates goes on, with probability w_j / Σ w, and their mean ratio.

    Args:
        log_ratio: `[K, ..., n]`
        uniform: `[n]` or `[..., n]`, float64 in [0, 1).

    Returns:
        The chosen index `[..., n]`, and log (1/K) Σ_j w_j `[..., n]`, float64.
    """
    log_ratio = log_ratio.double()
    level = torch.softmax(log_ratio, 0).cumsum(0)
    # A candidate of weight 0 does not raise the level, and so is passed over.
    index = (level <= uniform * level[-1]).sum(0).clamp_max(len(log_ratio) - 1)
    return index, torch.logsumexp(log_ratio, 0) - math.log(len(log_ratio))


MOST_EXPONENT = 100.0


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """Which weights an estimate uses. The settings combine, and work in the order they stand in.

    Attributes:
        form: "uniform" weighs every rollout alike: the plain model, or with `candidates` the
            induced one; "trajectory" weighs a rollout's return by the product of its ratios;
            "stepwise" weighs the reward at t by the product up to and including t.
        candidates: k of sampling-importance-resampling: each step goes on from one of k draws,
            chosen in proportion to their ratios, and its ratio is then the k draws' mean. A
            weighted form carries that mean, "uniform" drops it.
        calibrated: choose candidates by a ratio whose moments were calibrated for this k
            (`lfiw_ope.ratios.moments`), with "uniform" alone.
        conditional: divide each ratio by its mean over K draws of the model at the same (s, a).
        clip: lowest and highest ratio of a step; 0 and infinity leave a side open.
        exponent: α, weights are w^α.
        first: H, ratios of the first H steps only; None is all of them. With exact ratios the
            target is then "true dynamics for H steps, the model afterwards", not the true value.
        first_ess: choose H for each policy as the longest that keeps an effective sample size of
            this share of the rollouts.
        temper: lower the exponent until the effective sample size is this share of the rollouts:
            of the whole product, or at each step where stepwise.
        pareto: smooth the largest weights (PSIS), and report k̂.
        self_normalised: divide by the sum of the weights and not by their number.

    Raises:
        ConfigError: if a setting is out of its range, or two cannot go together.
    """

    form: Literal["uniform", "trajectory", "stepwise"] = "trajectory"
    candidates: int = 1
    calibrated: bool = False
    conditional: bool = False
    clip: tuple[float, float] | None = None
    exponent: float = 1.0
    first: int | None = None
    first_ess: float | None = None
    temper: float | None = None
    pareto: bool = False
    self_normalised: bool = True

    def __post_init__(self) -> None:
        choice("form", self.form, ("uniform", "trajectory", "stepwise"))
        whole("candidates", self.candidates, least=1)
        real("exponent", self.exponent, least=0.0, most=MOST_EXPONENT)
        if self.first is not None:
            whole("first", self.first, least=0)
        for name in ("first_ess", "temper"):
            share = getattr(self, name)
            if share is not None:
                real(name, share, least=0.0, most=1.0)
        for name in ("calibrated", "conditional", "pareto", "self_normalised"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be True or False.")
        if self.clip is not None:
            _check_clip(self.clip)
        _refuse_contradictions(self)

    @property
    def needs_ratio(self) -> bool:
        """Whether it rests on a density ratio."""
        return self.form != "uniform" or self.candidates > 1

    @property
    def label(self) -> str:
        """A short name for tables, such as "c-LFIW first 80"."""
        if self.form == "uniform":
            return "calibrated " * self.calibrated + self._sir if self._sir else "model"
        form = "LFIW" if self.form == "trajectory" else "stepwise"
        parts = ["c-" * self.conditional + form]
        if self._sir:
            parts.append(self._sir)
        if self.clip is not None:
            parts.append(f"clipped {self.clip[0]:g} to {self.clip[1]:g}")
        if self.exponent != 1.0:
            parts.append(f"α {self.exponent:g}")
        if self.first is not None:
            parts.append(f"first {self.first}")
        if self.first_ess is not None:
            parts.append(f"first by ESS {self.first_ess:g}")
        if self.temper is not None:
            parts.append(f"tempered {self.temper:g}")
        if self.pareto:
            parts.append("Pareto")
        if not self.self_normalised:
            parts.append("unnormalised")
        return " ".join(parts)

    @property
    def _sir(self) -> str:
        return f"SIR {self.candidates}" if self.candidates > 1 else ""


def _check_clip(bounds: object) -> None:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ConfigError(
            f"clip is {bounds!r}; it must be a pair, the lowest and the highest ratio of a step, "
            "such as (0.1, 10)."
        )
    check_clip(*bounds)
    if not bounds[0] <= 1.0 <= bounds[1]:
        raise ConfigError(
            f"clip is {bounds!r}; it must hold 1, the ratio of a step that the model gets right "
            "and of every step after a rollout's end."
        )


SHAPING: dict[str, object] = {
    "conditional": False,
    "clip": None,
    "exponent": 1.0,
    "first": None,
    "first_ess": None,
    "temper": None,
    "pareto": False,
}
"""Settings that shape the weights of finished rollouts, and where each is off."""


def _refuse_contradictions(weighting: Weighting) -> None:
    """Settings of which one would undo or ignore the other.

    Raises:
        ConfigError: naming the two.
    """
    shaping = [name for name, off in SHAPING.items() if getattr(weighting, name) != off]
    reason = ""
    if weighting.first is not None and weighting.first_ess is not None:
        reason = "first and first_ess both say how long H is; give one of them."
    elif weighting.form == "uniform" and shaping:
        reason = (
            f"uniform weights leave nothing for {shaping[0]} to work on; choose a weighted form."
        )
    elif weighting.calibrated and (weighting.form != "uniform" or weighting.candidates == 1):
        reason = (
            'calibrated is of the form "uniform" with 2 or more candidates, and this is '
            f'"{weighting.form}" with {weighting.candidates}.'
        )
    elif weighting.candidates > 1 and weighting.conditional:
        reason = (
            "conditional normalisation divides by the mean that sampling-importance-resampling "
            "carries; choose one of them, or the uniform form to drop the mean."
        )
    if reason:
        raise ConfigError("These settings cannot go together: " + reason)


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """Weights as a form wants them; `lfiw_ope.stats.WeightedValue` says what the fields are."""

    log_weight: Tensor  # [n, T], or [n, 1] where every reward meets the whole product
    raw_ess: float
    exponent: float | None = None
    first: int | None = None
    pareto_k: float | None = None
    clipped_share: float | None = None


def shape(log_ratio: Tensor, weighting: Weighting, standing: Tensor, *, zeros: bool) -> Shaped:
    """Weights by ratio alone where they are seen, `[n, T]` or `[n, 1]`, and −∞ elsewhere."""
    n, seen = len(standing), standing > 0
    if weighting.form == "uniform":
        return Shaped(
            log_weight=_only(seen, torch.zeros_like(standing)),
            raw_ess=float(effective_sample_size(standing.log(), dim=0)),
        )
    check = require_weights if zeros else require_finite
    log_ratio = check(log_ratio, "log-ratios").double()
    clipped_share = exponent = pareto_k = None
    if weighting.clip is not None:
        within = clip(log_ratio, *weighting.clip)
        clipped_share = float((within != log_ratio).double().mean())
        log_ratio = within
    log_ratio = flatten(log_ratio, weighting.exponent)
    first = weighting.first
    if weighting.first_ess is not None:
        first = int(longest_first(log_ratio, max(1.0, weighting.first_ess * n)))
    kept = slice(-1, None) if weighting.form == "trajectory" else slice(None)
    raw = _only(seen, cumulate(log_ratio, weighting.first)[:, kept])
    raw_ess = float(effective_sample_size(raw + standing.log(), dim=0).min())
    log_weight = raw
    if first != weighting.first:
        log_weight = _only(seen, cumulate(log_ratio, first)[:, kept])
    if weighting.temper is not None:
        log_weight, exponent = _tempered(log_weight, seen.sum(0), weighting.temper)
    if weighting.pareto:
        smoothed = [pareto_smooth(column) for column in log_weight.T]
        log_weight = torch.stack([one.log_weight for one in smoothed], 1)
        pareto_k = max((one.shape for one in smoothed if one.shape is not None), default=None)
    return Shaped(
        log_weight=log_weight,
        raw_ess=raw_ess,
        exponent=exponent,
        first=first,
        pareto_k=pareto_k,
        clipped_share=clipped_share,
    )


def _only(seen: Tensor, log_weight: Tensor) -> Tensor:
    return torch.where(seen, log_weight, -torch.inf)


def _tempered(log_weight: Tensor, count: Tensor, share: float) -> tuple[Tensor, float]:
    """Weights that keep this share of those that are seen at each step, and the least exponent."""
    found, least = log_weight.clone(), 1.0
    for number in set(count.tolist()):
        alike = count == number
        tempered = temper(log_weight[:, alike], max(1.0, share * number), dim=0)
        found[:, alike] = tempered.log_weight
        least = min(least, float(tempered.exponent.min()))
    return found, least

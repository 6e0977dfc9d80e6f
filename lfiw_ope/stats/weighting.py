"""Forms of importance weights: which there are, how they shape ratios, resampling.

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


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """What is resampled while rollouts run. The default is nothing: independent rollouts of p_θ.

    Sampling-importance-resampling (SIR; Rubin 1988; Grover et al. 2019, section 5) draws k
    candidates at each step and goes on from one of them, chosen in proportion to its ratio. The
    step's weight is then the candidates' mean ratio: carried, estimates with an exact ratio keep
    their target at any k; dropped, they approach it with a bias of O(1/k).

    Sequential Monte Carlo (SMC; Doucet, de Freitas and Gordon 2001) resamples whole rollouts, in
    proportion to the product of their ratios so far, when the effective sample size of those
    products falls below a share of the rollouts. Rollouts of one population then depend on each
    other; populations do not, and standard errors come from their spread.

    Attributes:
        candidates: k of SIR at each step; 1 is none.
        below: SMC's share, in [0, 1], of a population's size: it is resampled at the end of every
            step that leaves its effective sample size lower. 0 keeps the weights and never
            resamples; None is no SMC.
        populations: independent repeats of SMC: the n rollouts are cut along n into so many
            populations of equal size.
        conditional: SMC's weights are products of conditionally normalised ratios.
    """

    candidates: int = 1
    below: float | None = None
    populations: int = 1
    conditional: bool = False

    def __post_init__(self) -> None:
        whole("candidates", self.candidates, least=1)
        whole("populations", self.populations, least=1)
        if self.below is not None:
            real("below", self.below, least=0.0, most=1.0)
        elif self.populations > 1 or self.conditional:
            raise ConfigError(
                "populations and conditional are settings of sequential Monte Carlo, and below is "
                "None, which is none; give below a share, such as 0.5."
            )
        if self.conditional and self.candidates > 1:
            raise ConfigError(
                f"conditional divides by the mean ratio that {self.candidates} candidates have for "
                "their weight, so nothing would be left; use one or the other."
            )

    @property
    def none(self) -> bool:
        """Whether nothing is resampled and no running weights are kept."""
        return self.candidates == 1 and self.below is None

    def check(self, *, rollouts: int, draws: int, weighted: bool) -> None:
        """That a simulation of n rollouts with K draws, with or without a ratio, can do this.

        Raises:
            ConfigError: if it cannot; it says why.
        """
        if self.none:
            return
        if not weighted:
            raise ConfigError("Resampling needs a density ratio, and none was given.")
        if self.candidates > 1 and draws > 1:
            raise ConfigError(
                f"candidates is {self.candidates} and draws is {draws}: both are draws of one "
                "step, to choose from or to normalise by; set one of them to 1."
            )
        if self.conditional and draws == 1:
            raise ConfigError("Conditional normalisation needs 2 or more draws, and draws is 1.")
        if rollouts % self.populations:
            raise ConfigError(
                f"{rollouts} rollouts cannot be cut into {self.populations} populations of equal "
                "size; let populations divide rollouts."
            )


NO_RESAMPLING = Resampling()


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


def systematic(log_weight: Tensor, uniform: Tensor) -> Tensor:
    """Systematic resampling: which slot each of n slots continues, `[..., n]` int64, ascending.

    The n points (j + u) / n, j = 0 .. n − 1, of one uniform u are looked up in the cumulative
    normalised weights. The expected number of slots that continue slot i is n W_i, and the number
    itself lies within 1 of it (Kitagawa 1996; Douc and Cappé 2005). A slot of weight 0 is never
    continued.

    Args:
        log_weight: `[..., n]`, not all −∞.
        uniform: `[...]` or fewer axes, float64 in [0, 1): one of each population.
    """
    n = log_weight.shape[-1]
    level = torch.softmax(log_weight.double(), -1).cumsum(-1)
    step = torch.arange(n, dtype=torch.float64, device=log_weight.device)
    point = (step + uniform[..., None]) / n
    # Rounding may carry the last point to 1, past every slot that has weight.
    point = point.clamp_max(1.0 - 2.0**-53)
    point = point.expand(level.shape).contiguous()
    found = torch.searchsorted(level / level[..., -1:], point, right=True)
    return found.clamp_max(n - 1)


class RunningWeights:
    """SMC's weights of P policies' n rollouts while they run, and who continues whom.

    A population that is resampled goes on with weights equal to their mean, not to 1: so the
    product of mean weights is carried, and E[W f] keeps its target.

    Attributes:
        log_weight: `[T, P, n]` float64, what meets the reward of step t, before resampling at t.
        ancestors: `[T, P, n]` int64, the slot at step t that each slot of step t + 1 continues.
    """

    def __init__(
        self, resampling: Resampling, shape: tuple[int, int, int], generator: torch.Generator
    ) -> None:
        """Of shape (T, P, n), on the generator's device."""
        assert resampling.below is not None
        _, policies, n = shape
        device = generator.device
        self.populations, self.size = resampling.populations, n // resampling.populations
        self.least_ess = resampling.below * self.size
        self.generator = generator
        self.now = torch.zeros((policies, n), dtype=torch.float64, device=device)
        self.slot = torch.arange(n, device=device)
        self.log_weight = torch.zeros(shape, dtype=torch.float64, device=device)
        self.ancestors = self.slot.expand(shape).contiguous()

    def add(self, t: int, log_ratio: Tensor) -> None:
        """Step t's log-ratios `[P, n]`, 0 after the end."""
        self.now = self.now + log_ratio
        self.log_weight[t] = self.now

    def resample(self, t: int) -> Tensor:
        """Ancestors `[P, n]` of the slots of step t + 1, within each population of each policy."""
        weight = self.now.view(-1, self.populations, self.size)
        # NaN compares false: a population that diverged is left as it is, and raises when weighed.
        poor = (effective_sample_size(weight) < self.least_ess)[..., None]
        # Drawn at every step and shared along P: what one policy needs changes no other's numbers.
        uniform = torch.rand(
            self.populations, dtype=torch.float64, generator=self.generator, device=weight.device
        )
        slot = self.slot.view(self.populations, self.size)
        ancestors = torch.where(poor, systematic(weight, uniform) + slot[:, :1], slot).flatten(-2)
        mean = torch.logsumexp(weight, -1, keepdim=True) - math.log(self.size)
        self.now = torch.where(poor, mean, weight).flatten(-2)
        self.ancestors[t] = ancestors
        return ancestors


POPULATIONS = 10
"""Of sequential Monte Carlo: enough to know their spread to a quarter."""

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
        resample_below: sequential Monte Carlo: rollouts are resampled in proportion to their
            weights when the effective sample size falls below this share.
        populations: independent ones that the rollouts of sequential Monte Carlo are cut into; the
            standard error comes from them.
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
    resample_below: float | None = None
    populations: int = POPULATIONS
    temper: float | None = None
    pareto: bool = False
    self_normalised: bool = True

    def __post_init__(self) -> None:
        choice("form", self.form, ("uniform", "trajectory", "stepwise"))
        whole("candidates", self.candidates, least=1)
        whole("populations", self.populations, least=1)
        real("exponent", self.exponent, least=0.0, most=MOST_EXPONENT)
        if self.first is not None:
            whole("first", self.first, least=0)
        for name in ("first_ess", "temper", "resample_below"):
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
    def resampling(self) -> Resampling:
        """What of it happens while rollouts are simulated."""
        if self.resample_below is None:
            return Resampling(candidates=self.candidates)
        return Resampling(
            candidates=self.candidates,
            below=self.resample_below,
            populations=self.populations,
            conditional=self.conditional,
        )

    @property
    def label(self) -> str:
        """A short name for tables, such as "c-LFIW first 80"."""
        if self.form == "uniform":
            return "calibrated " * self.calibrated + self._sir if self._sir else "model"
        smc = self.resample_below is not None
        parts = [
            "c-" * self.conditional + ("SMC" if smc else "LFIW" if self._whole else "stepwise")
        ]
        if smc and not self._whole:
            parts.append("stepwise")
        if smc and self.resample_below != 0.5:
            parts.append(f"below {self.resample_below:g}")
        if self.populations != POPULATIONS:
            parts.append(f"of {self.populations} populations")
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

    @property
    def _whole(self) -> bool:
        return self.form == "trajectory"


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
    smc = weighting.resample_below is not None
    reason = ""
    if weighting.populations != POPULATIONS and not smc:
        reason = (
            "populations is of sequential Monte Carlo, and resample_below is None, which is none."
        )
    elif weighting.first is not None and weighting.first_ess is not None:
        reason = "first and first_ess both say how long H is; give one of them."
    elif weighting.form == "uniform" and (shaping or smc):
        what = shaping[0] if shaping else "resample_below"
        reason = f"uniform weights leave nothing for {what} to work on; choose a weighted form."
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
    elif smc and set(shaping) - {"conditional"}:
        reason = (
            f"sequential Monte Carlo has used the weights up while it simulates, so {shaping[-1]} "
            "has nothing to work on; leave one of them out."
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

"""Intervals of simulated values: noise and starts, the members' spread, a bound on the bias."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from scipy import optimize, special
from torch import Tensor

from lfiw_ope.core.validation import choice
from lfiw_ope.nn.training import FitConfig
from lfiw_ope.ratios.behaviour_cloning import BehaviourConfig
from lfiw_ope.stats.intervals import LEVELS, Interval, check_levels, student_t

MANY = 1e8
"""Degrees of freedom at which Student's distribution is the normal one."""

LARGE_SHIFT = 1e6
"""Standard errors of bias beyond which an interval is the bias to either side, and a little more:
a root would be found to fewer digits than that."""


def _short_clone() -> BehaviourConfig:
    fit = FitConfig(
        updates=2000,
        batch_size=128,
        learning_rate=3e-3,
        weight_decay=0.1,
        evaluate_every=100,
        patience=3,
    )
    return BehaviourConfig(source="cloned", folds=2, hidden=(32, 32), fit=fit)


@dataclass(frozen=True, kw_only=True)
class SimulatedIntervalConfig:
    """Which intervals a simulated value has.

    Attributes:
        method: "total" holds what another log and another simulation would change, and a bound on
            the model's bias; "simulation" holds simulation noise alone and does not cover the
            model's error; "none" gives none.
        levels: confidence levels.
        anchors: where the bias is measured, besides the anchors that the estimator is given:
            "clone" on a clone of the behaviour, whose value the log tells; "none" nowhere.
        clone: how that clone is fitted; never longer than the dynamics.

    Raises:
        ConfigError: if a setting is out of its range.
    """

    method: Literal["total", "simulation", "none"] = "total"
    levels: tuple[float, ...] = LEVELS
    anchors: Literal["clone", "none"] = "clone"
    clone: BehaviourConfig = field(default_factory=_short_clone)

    def __post_init__(self) -> None:
        choice("method", self.method, ("total", "simulation", "none"))
        choice("anchors", self.anchors, ("clone", "none"))
        object.__setattr__(self, "levels", check_levels(self.levels))


class Noise(NamedTuple):
    """A standard error, and the degrees of freedom that it is known with."""

    standard_error: float
    freedom: float


def clustered(influence: Tensor, starts: Tensor) -> Noise:
    """What simulation and the choice of logged starts add to a mean over rollouts.

        se² = G / (G − 1) Σ_g (Σ_{i: start g} ψ_i)²,   ψ_i = (R_i − R̄) / n for a plain mean

    G of the N logged starts have rollouts, n_g each. With σ_b² the variance of the value over
    starts and σ_w² that of returns from one start, E[Σ_g (Σ_i ψ_i)²] ≈ Σ_g (n_g² σ_b² + n_g σ_w²)
    / n². As E[Σ_g n_g²] = n + n (n − 1) / N, that is

        σ_w² / n  +  σ_b² (1 / n + (1 − 1 / n) / N):

    the noise of the n rollouts, of drawing starts for them, and of there being N logged ones (Liang
    and Zeger 1986). A mean over rollouts without the clusters has the last left out.

    Args:
        influence: `[n]`, what each rollout adds to the estimate's deviation, as `WeightedValue`
            has it: with its factor √(n / (n − 1)).
        starts: `[n]`, int64, where each began.
    """
    n = len(influence)
    psi = influence.double() * math.sqrt((n - 1) / n)
    begun = torch.unique(starts)
    if len(begun) < 2:
        return Noise(float(influence.double().square().sum().sqrt()), n - 1)
    total = psi.new_zeros(int(begun[-1]) + 1).index_add(0, starts, psi)
    groups = len(begun)
    square = float(total.square().sum()) * groups / (groups - 1)
    return Noise(math.sqrt(square), groups - 1)


def combined(*parts: Noise) -> Noise:
    """Independent errors together, with Welch and Satterthwaite's degrees of freedom."""
    variance = sum(part.standard_error**2 for part in parts)
    uncertain = sum(part.standard_error**4 / part.freedom for part in parts)
    freedom = variance**2 / uncertain if uncertain > 0 else math.inf
    return Noise(math.sqrt(variance), freedom)


def critical_value(shift: float, freedom: float, level: float) -> float:
    """c with P(|T_ν + shift| ≤ c) = level: what a bias of so many standard errors asks for.

    For ν = ∞ it is cv_α(b / se), the quantile of a folded normal (Armstrong and Kolesár 2018,
    "Optimal inference in a class of regression models").
    """
    shift, known = abs(shift), min(freedom, MANY)
    if shift > LARGE_SHIFT:  # the other side is out of reach
        return shift + float(special.stdtrit(known, level))

    def beyond(c: float) -> float:
        inside = special.stdtr(known, c - shift) - special.stdtr(known, -c - shift)
        return float(inside) - level

    widest = shift + float(special.stdtrit(known, 0.5 + level / 2))
    # Wider by what rounding takes from a level next to 0 or 1.
    return float(optimize.brentq(beyond, 0.0, widest * (1.0 + 1e-6) + 1e-9))


def bias_aware(
    value: float, noise: Noise, bias: float, *, levels: Sequence[float], method: str
) -> tuple[Interval, ...]:
    """Intervals that cover as they say as long as the bias is at most so large.

    Args:
        value: the estimate.
        noise: its standard error, without the bias.
        bias: a bound on its absolute value.
        levels: confidence levels.
        method: what they are called.
    """
    error, freedom = noise
    if bias == 0.0:
        return student_t(value, error, freedom, levels=levels, method=method)
    found = []
    for level in levels:
        half = bias if error == 0.0 else error * critical_value(bias / error, freedom, level)
        found.append(Interval(level, value - half, value + half, method))
    return tuple(found)


def spread_of(values: Sequence[float], *, jackknife: bool = False) -> Noise:
    """The error of one fit to another log, from the values under each of M members.

    Members that are fitted to bootstrap samples of the logged episodes: their standard deviation
    is the bootstrap standard error of a fit. Members that each leave out a group of 1/M of the
    episodes: the delete-a-group jackknife (Kott 2001),

        se² = (M − 1) / M Σ_m (v_m − v̄)²

    Both hold the noise of initial weights and batches as well; for an ensemble's mean that part is
    too large, which is left so.

    Args:
        values: `[M]`
        jackknife: whether members left out a group each.
    """
    count = len(values)
    deviation = float(torch.tensor(values, dtype=torch.float64).std())
    factor = (count - 1) / math.sqrt(count) if jackknife else 1.0
    return Noise(factor * deviation, count - 1)

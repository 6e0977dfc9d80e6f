"""Doubly robust sums: settings, equations, MAGIC's blend, warnings.

With Q̂ a guess of the target's action value and V̂_t(s) = E_{a ~ π}[Q̂_t(s, a)], V̂_T = 0, let

    δ_t = r_t + γ (1 − terminated_t) V̂_{t+1}(s_{t+1}) − Q̂_t(s_t, a_t)

Then v(π) = E[V̂_0(s_0)] + Σ_t γ^t E_{d^π_t}[δ_t], whatever Q̂ is: the direct method plus the
expected errors under the target, which a weight takes from the log. The weight is a product of
policy ratios (Jiang and Li 2016), self-normalised at each step (Thomas and Brunskill 2016), or an
occupancy ratio. Summed by steps, these are the usual forms: ρ_t V̂_{t+1} of step t is the usual
+ρ_{t-1} V̂_t of the step after it.

In this form the convention for ragged episodes (`lfiw_ope.data.censoring`) keeps what is good in
it: a step that was cut away takes δ_t with it, whose mean is near 0 at any state where Q̂ is near
right, so that where logs were cut matters as little as Q̂ is wrong.

Thomas and Brunskill (2016). The blend is over the lengths j = 0 … T of corrected
returns: g_j uses the log's weighted residuals of the first j steps and the value function
afterwards, so that g_0 is the direct method and g_T is WDR.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from lfiw_ope.core.errors import ConfigError, DataError, DivergedError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.validation import choice, real, whole
from lfiw_ope.dynamics.ensemble import DynamicsConfig
from lfiw_ope.estimators.dice_lagrangian import DICEConfig
from lfiw_ope.estimators.fqe_networks import FQEConfig
from lfiw_ope.ratios.behaviour_cloning import BehaviourConfig
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.intervals import (
    IntervalConfig,
    RatioSums,
    episode_intervals,
    no_bernstein,
    no_interval,
)
from lfiw_ope.stats.weighted_mean import LEAST_ESS_FOR_A_STANDARD_ERROR
from lfiw_ope.stats.weights import effective_sample_size, require_finite


@dataclass(frozen=True, kw_only=True)
class DoublyRobustConfig:
    """Settings of `DR` and `WDR`.

    Attributes:
        value: where Q̂ and V̂ come from: "fqe" trains them for every policy, "model" simulates any
            policy in a dynamics model that is fitted once.
        folds: parts that the episodes are dealt to; Q̂ at an episode comes from a fit to the other
            parts, which unbiasedness asks for. 1 fits it to all of them and judges the same.
        behaviour: where the behaviour's likelihoods come from.
        fqe: the fitted Q, where it is that.
        dynamics: the model, where it is that.
        rollouts: simulated from each logged state, where it is a model.
        interval: how intervals are made.
    """

    value: Literal["fqe", "model"] = "fqe"
    folds: int = 2
    behaviour: BehaviourConfig = field(default_factory=BehaviourConfig)
    fqe: FQEConfig = field(default_factory=FQEConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    rollouts: int = 1
    interval: IntervalConfig = field(default_factory=IntervalConfig)

    def __post_init__(self) -> None:
        choice("value", self.value, ("fqe", "model"))
        no_bernstein(self.interval)
        whole("folds", self.folds, least=1)
        whole("rollouts", self.rollouts, least=1)


@dataclass(frozen=True, kw_only=True)
class MAGICConfig(DoublyRobustConfig):
    """Settings of `MAGIC`: those of `DR`, and how returns are blended.

    Attributes:
        lengths: at most so many lengths of partially corrected returns are blended, evenly spread
            from 0 to T.
        resamples: bootstrap samples of the episodes, for the interval that biases are taken from.
        confidence: of that interval.
        interval: none by default. MAGIC leans to the value function alone, whose own error no
            spread over episodes shows: such intervals were several times too narrow on a test-bed.
    """

    lengths: int = 50
    resamples: int = 200
    confidence: float = 0.9
    interval: IntervalConfig = field(default_factory=lambda: IntervalConfig(method="none"))

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("lengths", self.lengths, least=2)
        whole("resamples", self.resamples, least=2)
        real("confidence", self.confidence, least=0.0, most=1.0)


@dataclass(frozen=True, kw_only=True)
class CorrectedModelConfig:
    """Settings of `CorrectedModel`.

    Attributes:
        folds: parts that the episodes are dealt to; model and ratio at an episode come from fits
            to the other parts. 1 fits them to all and judges the same.
        dynamics: the model.
        dice: the ratio. Its time is this configuration's.
        time: "input" corrects each of T steps by itself, "none" solves the discounted equation of
            an infinite horizon, with all logged steps alike; "auto" does so where γ^T is at most
            0.01.
        rollouts: simulated for the direct part, spread evenly over the logged initial states, at
            least one from each.
        transitions: logged steps whose residual is simulated, at most; drawn at random.
        interval: how intervals are made.
    """

    folds: int = 2
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    dice: DICEConfig = field(default_factory=DICEConfig)
    time: Literal["auto", "input", "none"] = "auto"
    rollouts: int = 1000
    transitions: int = 10_000
    interval: IntervalConfig = field(default_factory=IntervalConfig)

    def __post_init__(self) -> None:
        no_bernstein(self.interval)
        choice("time", self.time, ("auto", "input", "none"))
        whole("folds", self.folds, least=1)
        whole("rollouts", self.rollouts, least=1)
        whole("transitions", self.transitions, least=1)
        if self.dice.time != "auto":
            raise ConfigError(
                f"dice.time is {self.dice.time!r}; leave it at 'auto' and set this configuration's "
                "time, which value and ratio share."
            )


@dataclass(frozen=True)
class Terms:
    """What doubly robust estimates of one policy are made of.

    Attributes:
        initial: `[N]` float64, V̂_0(s_0) of each episode.
        residual: `[N, T]` float64, γ^t δ_t; 0 where no step was taken.
        log_weight: `[N, T]` float64, log of what meets the residual of step t, such as the product
            of ratios up to and including t; −∞ is a weight of 0. After a terminal state frozen.
        standing: `[N, T]` float64, what each episode counts at each step, of sum N; 0 where it is
            unobserved (`lfiw_ope.data.censoring`).

    Raises:
        DataError: if shapes disagree.
        DivergedError: if a value or a residual is not finite, or a weight is NaN or infinite.
    """

    initial: Tensor
    residual: Tensor
    log_weight: Tensor
    standing: Tensor

    def __post_init__(self) -> None:
        shapes = [list(x.shape) for x in (self.residual, self.log_weight, self.standing)]
        if len({tuple(shape) for shape in shapes}) > 1 or self.residual.shape[:1] != (
            *self.initial.shape,
        ):
            raise DataError(
                f"Initial values have the shape {list(self.initial.shape)} and residuals, weights "
                f"and standings {shapes}; expected [N] and three times [N, T]."
            )
        advice = "the value function or the policy left the finite numbers at logged states"
        require_finite(self.initial, "initial values", advice)
        require_finite(self.residual, "temporal-difference errors", advice)
        met = (self.standing > 0) & (self.log_weight > -math.inf)
        weights = torch.where(met, self.log_weight, 0.0)
        require_finite(weights, "log-weights", advice)

    @property
    def direct(self) -> float:
        """The direct method: the mean of V̂_0(s_0)."""
        return float(self.initial.mean())

    @property
    def seen_log_weight(self) -> Tensor:
        """`[N, T]`, log of weights times standings, −∞ where a step is unobserved."""
        log_weight = torch.where(self.standing > 0, self.log_weight.double(), -math.inf)
        return log_weight + self.standing.log()

    @property
    def ess_by_step(self) -> Tensor:
        """`[T]`, of the weights times standings; 0 where none has any."""
        some = ~(self.seen_log_weight == -math.inf).all(0)
        return torch.where(some, effective_sample_size(self.seen_log_weight, dim=0), 0.0)


@dataclass(frozen=True, kw_only=True)
class CorrectedValue:
    """A direct method's value and what the log corrects it by.

    Attributes:
        value: the estimate.
        direct: the direct method's part of it; the rest is the correction.
        standard_error: from the sampling of episodes, the value function, the ratios and standings
            taken as given. None where fewer than `LEAST_ESS_FOR_A_STANDARD_ERROR` effective
            episodes carry the weights at some step.
        influence: `[N]`, what each episode adds to the estimate's deviation; the standard error is
            the root of the sum of their squares.
        ess_by_step: `[T]`, effective sample size of the weights over episodes; 0 at steps where
            none has any, at which nothing was corrected.
        sums: what the value is a function of.
    """

    value: float
    direct: float
    standard_error: float | None
    influence: Tensor
    ess_by_step: Tensor
    sums: RatioSums = field(repr=False)


def doubly_robust(terms: Terms) -> CorrectedValue:
    """DR: mean_i V̂_0(s_i0) + Σ_t mean_i ρ_it γ^t δ_it (Jiang and Li 2016).

    With known ratios ρ it is unbiased for any Q̂ that does not see the episodes it is used on. The
    mean at step t is over the episodes by their standing at t.

    Raises:
        DivergedError: if weights overflow.
    """
    share = terms.seen_log_weight.exp() / len(terms.initial)
    largest = float(terms.seen_log_weight.max())
    if not math.isfinite(float(share.max())):
        raise DivergedError(
            f"The weights of DR overflow: the largest has a logarithm of {largest:.0f}; use WDR."
        )
    term = share * terms.residual
    over = terms.standing / len(terms.initial)
    return corrected(terms.initial, term, over, terms.ess_by_step)


def weighted_doubly_robust(terms: Terms) -> CorrectedValue:
    """WDR: mean_i V̂_0(s_i0) + Σ_t Σ_i w_it γ^t δ_it, w_it = ρ_it / Σ_j ρ_jt.

    Thomas and Brunskill (2016), with weights, times standings, normalised at each step over the
    episodes that are observed there. Biased, and consistent. At a step where no episode has a
    weight above 0 nothing is known of δ_t and nothing is added: see `CorrectedValue.ess_by_step`.
    The standard error is the delta method's.
    """
    share = normalised(terms)
    return corrected(terms.initial, share * terms.residual, share, terms.ess_by_step)


def normalised(terms: Terms) -> Tensor:
    """`[N, T]`, weights that sum to 1 at each step, or to 0 where no episode has any."""
    log_weight = terms.seen_log_weight
    total = torch.logsumexp(log_weight, 0)
    return torch.where(total > -math.inf, (log_weight - total).exp(), 0.0)


def corrected(initial: Tensor, term: Tensor, over: Tensor, ess_by_step: Tensor) -> CorrectedValue:
    """The direct method and a correction, with the standard error of both together.

    Args:
        initial: `[N]`, V̂_0(s_0).
        term: `[N, K]`, what each episode adds to the correction's K parts.
        over: `[N, K]`, what it counts in each, of sum 1 (or 0, where none counts): a part is the
            ratio of the two's sums.
        ess_by_step: `[T]`, of the correction's weights.
    """
    n, direct = len(initial), float(initial.mean())
    whole = initial[:, None] / n
    sums = RatioSums.of(
        torch.cat((whole, term), 1), torch.cat((torch.full_like(whole, 1 / n), over), 1)
    )
    influence = torch.from_numpy(sums.influence) * math.sqrt(n / max(n - 1, 1))
    known = float(ess_by_step.min()) >= LEAST_ESS_FOR_A_STANDARD_ERROR
    return CorrectedValue(
        value=direct + float(term.sum()),
        direct=direct,
        standard_error=float(influence.square().sum().sqrt()) if known else None,
        influence=influence,
        ess_by_step=ess_by_step,
        sums=sums,
    )


@dataclass(frozen=True, kw_only=True)
class Blend(CorrectedValue):
    """MAGIC's value, and what it is blended from.

    Attributes:
        lengths: `[J]`, how many steps of each return are corrected, 0 to T.
        weights: `[J]`, of the returns; they sum to 1.
        returns: `[J]`, the partially corrected values.
    """

    lengths: Tensor
    weights: Tensor
    returns: Tensor


def lengths_of(horizon: int, most: int) -> Tensor:
    """At most `most` lengths from 0 to T, evenly spread, both ends among them."""
    spread = torch.linspace(0, horizon, min(most, horizon + 1), dtype=torch.float64)
    return torch.tensor(sorted(set(spread.round().long().tolist())))


def resample_counts(episodes: int, resamples: int, generator: torch.Generator) -> Tensor:
    """`[resamples, N]` float64, how often each episode is in each bootstrap sample of episodes."""
    drawn = torch.randint(episodes, (resamples, episodes), generator=generator)
    counts = torch.zeros((resamples, episodes), dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts))


def magic(terms: Terms, lengths: Tensor, counts: Tensor, confidence: float = 0.9) -> Blend:
    """v = Σ_j x_j g_j, x on the simplex, the minimiser of x' (Ω + b b') x.

    g_j = mean_i V̂_0(s_i0) + Σ_{t<j} Σ_i w_it γ^t δ_it. Ω is the sample covariance of the episodes'
    shares in the g_j, weights and standings taken as given; b_j, the bias, is how far g_j lies from
    a percentile bootstrap interval of WDR, which is widened to hold WDR itself. The standard error
    takes x as given and is the delta method's for the weights.

    Args:
        terms: of one policy.
        lengths: `[J]` int64, rising, of the j that are blended; T is to be among them.
        counts: `[resamples, N]`, how often each episode is in each bootstrap sample.
        confidence: of the interval; 0.9 is the paper's.
    """
    share = normalised(terms)
    n, horizon = share.shape
    term = share * terms.residual
    blended = (torch.arange(horizon) < lengths[:, None]).double()  # [J, T]
    of_episode = terms.initial[:, None] / n + term @ blended.T  # [N, J]
    returns = of_episode.sum(0)
    centred = of_episode - returns / n
    covariance = centred.T @ centred * n / max(n - 1, 1)
    whole = weighted_doubly_robust(terms).value
    low, high = _interval(terms, counts, confidence)
    low, high = min(low, whole), max(high, whole)
    bias = (returns - returns.clamp(low, high)).abs()
    error = (covariance + bias[:, None] * bias).numpy()
    weights = torch.from_numpy(least_on_simplex(error))
    blend = weights @ blended  # [T], how much of each step's correction is in
    found = corrected(terms.initial, term * blend, share, terms.ess_by_step)
    return Blend(**vars(found), lengths=lengths, weights=weights, returns=returns)


def _interval(terms: Terms, counts: Tensor, confidence: float) -> tuple[float, float]:
    """Percentile bootstrap of WDR. A resample with no weight at a step corrects nothing there."""
    log_weight = terms.seen_log_weight
    top = log_weight.amax(0)
    # Relative to each step's largest: a resample's weights are normalised, whatever the unit.
    weight = (log_weight - torch.where(top.isfinite(), top, 0.0)).exp()
    total = counts @ weight
    correction = torch.where(total > 0, (counts @ (weight * terms.residual)) / total, 0.0)
    values = (counts @ terms.initial) / len(terms.initial) + correction.sum(1)
    tails = torch.tensor([0.5 - confidence / 2, 0.5 + confidence / 2], dtype=torch.float64)
    low, high = torch.quantile(values, tails).tolist()
    return low, high


def least_on_simplex(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x ≥ 0 with Σ x = 1 that minimises x' M x, for a positive semi-definite M `[J, J]`.

    By non-negative least squares, exactly: with M = A'A, y that minimises ‖A y‖² + (1'y − 1)² is
    x / (1 + x'Mx), because for a given direction the best length of y leaves x'Mx / (1 + x'Mx),
    which rises with x'Mx.
    """
    diagonal = np.diagonal(error)
    # In units of the best single return: the two parts of the sum are then of one size.
    unit = max(diagonal.min(), 1e-9 * diagonal.max())
    if unit <= 0.0:  # every return is certain: all are the same
        last: NDArray[np.float64] = np.eye(len(error))[-1]
        return last
    level, direction = np.linalg.eigh(error / unit)
    root = np.sqrt(np.clip(level, 0.0, None))[:, None] * direction.T
    matrix = np.concatenate((root, np.ones((1, len(error)))))
    # scipy stops after 3 J exchanges, which returns of sizes far apart can need more of.
    found, _ = nnls(matrix, np.eye(len(matrix))[-1], maxiter=1000 * len(error))
    weights: NDArray[np.float64] = found / found.sum()
    return weights


BY_PRODUCTS = (
    "use MAGIC, which corrects as many steps as pay, an occupancy ratio (DICE, CorrectedModel), or "
    "more episodes"
)
"""What to do about weights that are products of policy ratios and rest on few episodes."""

BY_OCCUPANCY = "use a log that goes where the policy goes"

LEANS_ON_VALUE = (
    "MAGIC leans to the value function alone where it can, and how wrong that is does not show in "
    "any spread over episodes; wrap it in Refitted, which fits the value function again."
)
"""Why MAGIC has no interval of its own."""


def said_of(
    label: str,
    estimand: Estimand,
    seed: int,
    found: CorrectedValue,
    *,
    interval: IntervalConfig,
    advice: str,
    diagnostics: dict[str, float],
    seconds: dict[str, float],
    warnings: Sequence[str],
) -> Estimate:
    """The estimate of one policy; `diagnostics` and `warnings` are those of what it rests on."""
    some = found.ess_by_step > 0
    unweighted, episodes = int((~some).sum()), len(found.influence)
    ess = float(found.ess_by_step[some].min()) if some.any() else None
    said = list(warnings)
    if unweighted:
        said.append(
            f"At {unweighted} of {len(some)} steps no logged episode could be the policy's: there "
            f"{label} is the value function's word alone. Use a log that covers the policy's "
            "actions."
        )
    if ess is not None and ess < LEAST_ESS_FOR_A_STANDARD_ERROR:
        said.append(
            f"The weights of {label} rest on {ess:.1f} of {episodes} episodes at some step, so "
            f"what it corrects there means little and has no standard error: {advice}."
        )
    if interval.method == "none" and isinstance(found, Blend):
        told = no_interval(LEANS_ON_VALUE)
    else:
        told = episode_intervals(
            found.sums, standard_error=found.standard_error, config=interval, seed=seed
        )
    return Estimate(
        estimator=label,
        estimand=estimand,
        value=found.value,
        seed=seed,
        standard_error=found.standard_error,
        intervals=told.intervals,
        no_interval=told.no_interval,
        episodes=episodes,
        ess=ess,
        raw_ess=ess,
        ess_by_step=found.ess_by_step.numpy(),
        diagnostics={
            "direct": found.direct,
            "correction": found.value - found.direct,
            "unweighted_steps": float(unweighted),
            **diagnostics,
        },
        seconds=seconds,
        warnings=tuple(said),
    )


def value_warnings(folds: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Warnings of every fold's value function, told once where they are the same."""
    told = dict.fromkeys(text for of_fold in folds for text in of_fold)
    return tuple(f"Of the value function: {text}" for text in told)

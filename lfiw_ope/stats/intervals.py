"""Confidence intervals of estimates over logged episodes and over ensemble members.

Importance sampling in every form, doubly robust values, corrections of a model and the plain mean
return are all of one form: a sum of ratios of sums over episodes,

    v = Σ_k Σ_i x_ik / Σ_i y_ik

IS has one x (weight times return) over one y of 1, WIS has the weight for y, the stepwise forms
have a pair for each step, and a doubly robust value one more, V̂_0(s_0) over 1. What bootstrap,
jackknife and point estimate want is then one thing: v where episode i counts c_i times. A y is the
episode's standing where weights are not self-normalised (`lfiw_ope.data.censoring`), so that
standings, weights' shapes and all that was fitted are taken as given.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.seeding import numpy_generator
from lfiw_ope.core.validation import choice, real, settings, whole

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Confidence levels that an estimate has intervals at, where it has any."""


def percent(level: float) -> str:
    """A confidence level as it is told: 95%, 97.5%."""
    return f"{100 * level:.7g}%"


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval of a policy's value.

    Attributes:
        level: its nominal coverage, in (0, 1).
        low, high: its ends, in units of return.
        method: how it was made, such as "bca", "percentile", "t" or "members".
    """

    level: float
    low: float
    high: float
    method: str

    @property
    def width(self) -> float:
        """In units of return."""
        return self.high - self.low

    def covers(self, value: float) -> bool:
        """Whether the value lies in it, ends included."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{percent(self.level)} [{self.low:.4g}, {self.high:.4g}]"


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Confidence levels, rising.

    Raises:
        ConfigError: if there is none, or one is not between 0 and 1.
    """
    if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
        raise ConfigError(
            f"levels is {levels!r}; it must be one confidence level or more, such as (0.8, 0.95)."
        )
    found = {real("A confidence level", level, least=1e-6, most=1 - 1e-6) for level in levels}
    return tuple(sorted(found))


def student_t(
    value: float,
    standard_error: float,
    freedom: float,
    *,
    levels: Sequence[float],
    method: str = "t",
) -> tuple[Interval, ...]:
    """value ± t_{(1 + level) / 2, ν} · standard error, at each level.

    Args:
        value: the estimate.
        standard_error: of the estimate.
        freedom: ν, degrees of freedom of the standard error; infinity is the normal distribution.
        levels: confidence levels.
        method: what the interval is called.
    """
    found = []
    for level in levels:
        half = float(special.stdtrit(freedom, 0.5 + level / 2)) * standard_error
        found.append(Interval(level, value - half, value + half, method))
    return tuple(found)


def percentiles(
    values: NDArray[np.float64], levels: Sequence[float], method: str
) -> tuple[Interval, ...]:
    """The quantiles of replicated estimates at (1 ∓ level) / 2.

    Args:
        values: `[B]`, the estimate on other samples.
        levels: confidence levels.
        method: what the interval is called.
    """
    ends = (np.quantile(values, (0.5 - level / 2, 0.5 + level / 2)).tolist() for level in levels)
    return tuple(
        Interval(level, low, high, method) for level, (low, high) in zip(levels, ends, strict=True)
    )


Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RatioSums:
    """What each episode adds to the sums that an estimate is made of.

    Attributes:
        numerator: `[N, K]` float64, x.
        denominator: `[N, K]` float64, y, 0 or more. A ratio whose y are all 0 is 0.
    """

    numerator: Floats
    denominator: Floats

    @classmethod
    def of(cls, numerator: Tensor, denominator: Tensor) -> "RatioSums":
        """From `[N, K]` and `[N, K]`; ratios that all have the same y become one."""
        x, y = numerator.double().numpy(), denominator.double().numpy()
        if (y == y[:, :1]).all():
            return cls(x.sum(1, keepdims=True), y[:, :1])
        return cls(x, y)

    def __len__(self) -> int:
        """N"""
        return len(self.numerator)

    @property
    def value(self) -> float:
        """v, every episode counted once."""
        return float(self._ratios.sum())

    def counted(self, counts: Floats) -> Floats:
        """v `[B]`, of samples in which the episodes count so often, `[B, N]`.

        Where a sample has no y of a ratio, as it has drawn no episode with a weight, the ratio of
        all episodes stands in.
        """
        return self._value(counts @ self.numerator, counts @ self.denominator)

    @property
    def influence(self) -> Floats:
        """`[N]`, what each episode adds to v's deviation (delta method); they sum to 0."""
        over = self.denominator.sum(0)
        deviation = self.numerator - self._ratios * self.denominator
        shares: Floats = np.divide(deviation, over, out=np.zeros_like(deviation), where=over > 0)
        found: Floats = shares.sum(1)
        return found

    @property
    def _ratios(self) -> Floats:
        x, y = self.numerator.sum(0), self.denominator.sum(0)
        ratios: Floats = np.divide(x, y, out=np.zeros_like(x), where=y > 0)
        return ratios

    def _value(self, x: Floats, y: Floats) -> Floats:
        stand_in = np.broadcast_to(self._ratios, x.shape).copy()
        ratios: Floats = np.divide(x, y, out=stand_in, where=y > 0)
        found: Floats = np.add.reduce(ratios, axis=-1)
        return found


METHODS = ("bca", "percentile", "t", "bernstein", "none")


@dataclass(frozen=True, kw_only=True)
class IntervalConfig:
    """Settings of the intervals of an estimate that is a function of sums over logged episodes.

    All but "bernstein" hold for many episodes only, and take as given what was fitted to them: the
    value function, a cloned behaviour, an occupancy ratio, MAGIC's blend. `lfiw_ope.Refitted` fits
    them again.

    Attributes:
        method: "percentile" takes quantiles of the estimate over bootstrap samples of the episodes
            (Efron 1979); "bca" moves them by the bias and the skewness of the estimate, which is
            second-order correct (Efron 1987, "Better bootstrap confidence intervals"); "t" is
            v̂ ± t_{ν, (1 + level) / 2} · standard error, with ν by how heavy the tail is of what
            episodes add (`lfiw_ope.stats.degrees_of_freedom`), and covered best of the
            three on test-beds where weights differ much; "bernstein" holds for any number of
            episodes, where the likelihoods were logged and `return_range` is known
            (`lfiw_ope.stats.bernstein`), and is wide; "none" gives no interval.
        levels: confidence levels.
        resamples: bootstrap samples, of "bca" and "percentile".
        return_range: the lowest and the highest discounted return over the horizon that there can
            be, of any policy, for "bernstein".

    Raises:
        ConfigError: if a setting is out of its range, or one is given that the method has no use
            for, or lacks one that it needs.
    """

    method: Literal["bca", "percentile", "t", "bernstein", "none"] = "t"
    levels: Sequence[float] = LEVELS
    resamples: int = 1000
    return_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        choice("method", self.method, METHODS)
        object.__setattr__(self, "levels", check_levels(self.levels))
        whole("resamples", self.resamples, least=100)
        if (self.return_range is not None) != (self.method == "bernstein"):
            raise ConfigError(
                f"method is {self.method!r} and return_range is {self.return_range!r}; "
                "'bernstein', and it alone, takes the lowest and the highest return that there "
                "can be, such as return_range=(0, 100)."
            )
        if self.return_range is not None:
            object.__setattr__(self, "return_range", _range(self.return_range))


def _range(given: object) -> tuple[float, float]:
    if isinstance(given, tuple | list) and len(given) == 2:
        try:
            low, high = (float(end) for end in given)
        except (TypeError, ValueError):
            low = high = math.nan
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return low, high
    raise ConfigError(
        f"return_range is {given!r}; it must be the lowest and the highest return, such as "
        "(0, 100)."
    )


def check_interval(config: object) -> None:
    """That it is these settings.

    Raises:
        ConfigError: if it is something else.
    """
    settings("interval", config, IntervalConfig, 'IntervalConfig(method="t")')


def no_bernstein(config: IntervalConfig) -> None:
    """That an estimator which rests on what was fitted is not asked for a guarantee.

    Raises:
        ConfigError: if it is, or the settings are of another class.
    """
    check_interval(config)
    if config.method == "bernstein":
        raise ConfigError(
            "The interval's method is 'bernstein', which holds where nothing was fitted; use 't', "
            "'percentile' or 'bca' here, or one of IS, PDIS, WIS, WPDIS and BehaviourMean."
        )


NUMBERS_AT_ONCE = 1 << 22
"""Counts of episodes in bootstrap samples that are held together: 32 MB."""


class Told(NamedTuple):
    """Intervals, rising in level, or why there are none."""

    intervals: tuple[Interval, ...]
    no_interval: str | None


def no_interval(reason: str) -> Told:
    """None, and why."""
    return Told((), reason)


NOT_WANTED = no_interval("The interval's method is 'none'.")

TOO_FEW_CARRY = no_interval(
    "Too few episodes carry the weights: what the others would have told does not show in any "
    "resampling of them."
)


def episode_intervals(
    sums: RatioSums,
    *,
    standard_error: float | None,
    config: IntervalConfig,
    seed: int,
) -> Told:
    """Of a function of sums over episodes, by "bca", "percentile" or "t".

    One set of bootstrap samples serves every level, so that intervals are nested, and is the same
    for every policy of a fit.

    Args:
        sums: what the estimate is made of.
        standard_error: of the estimate; None where too few episodes carry the weights, and then
            there is no interval either: resampling cannot show what none of the episodes has.
        config: which.
        seed: of the bootstrap samples.
    """
    if config.method == "none":
        return NOT_WANTED
    if standard_error is None:
        return TOO_FEW_CARRY
    if config.method == "t":
        freedom = degrees_of_freedom(sums.influence)
        return Told(student_t(sums.value, standard_error, freedom, levels=config.levels), None)
    ends = bootstrap_ends(sums, config, seed)
    if ends is None:
        return no_interval(
            "The estimates on all bootstrap samples lie on one side of the estimate: they say "
            "nothing of its spread."
        )
    found = (
        Interval(level, *at, config.method) for level, at in zip(config.levels, ends, strict=True)
    )
    return Told(tuple(found), None)


def degrees_of_freedom(influence: Floats) -> float:
    """ν of the standard error: those of the χ² that varies as much as the squared error does.

    A variance estimated from N terms of kurtosis κ has itself a relative variance of about
    (κ − 1) / N, and that of χ²_ν / ν is 2 / ν (Satterthwaite 1946), so

        ν = 2 N / (κ − 1),   κ = N Σ u⁴ / (Σ u²)²

    N for normal terms, and never more than N − 1; where a few heavy weights carry the estimate,
    about as many as they are, down to 2. Weighted estimates need it: on test-beds with targets far
    from the behaviour, an interval with ν = N − 1 covered less than it says.

    Args:
        influence: `[N]`, u, what each episode adds to the estimate's deviation.
    """
    square = np.square(influence)
    n, total = len(influence), float(square.sum())
    if total == 0.0:
        return n - 1.0  # every episode says the same
    excess = float(np.square(square).sum()) / total**2 - 1.0 / n
    return min(2.0 / excess, n - 1.0) if excess > 0 else n - 1.0


def bootstrap_ends(
    sums: RatioSums, config: IntervalConfig, seed: int
) -> list[tuple[float, float]] | None:
    """The ends at each level, by scipy, from one set of samples of episodes with replacement.

    BCa's jackknife takes N samples of N − 1 episodes, at every level anew: at N = 10 000 that is
    seconds, where percentiles take tenths.

    Args:
        sums: what the estimate is made of.
        config: "percentile" or "bca", the levels, and how many samples.
        seed: of the samples.

    Returns:
        None where BCa has no ends, as all samples' estimates are below the estimate or above it.
    """
    count, value = len(sums), sums.value

    def estimate(drawn: np.ndarray[tuple[int, ...], np.dtype[np.int64]], axis: int) -> Floats:  # noqa: ARG001
        # How often each episode was drawn says all, and takes sums by one product of matrices.
        rows = drawn.reshape(-1, drawn.shape[-1])
        places = rows + count * np.arange(len(rows))[:, None]
        counts = np.bincount(places.ravel(), minlength=len(rows) * count).reshape(-1, count)
        return sums.counted(counts.astype(np.float64)).reshape(drawn.shape[:-1])

    from scipy import stats  # as long to import as all of this package

    def resampled(method: str, level: float, **given: Any) -> Any:
        return stats.bootstrap(
            (np.arange(count),),
            estimate,
            batch=max(1, NUMBERS_AT_ONCE // count),
            vectorized=True,
            confidence_level=level,
            method=method,
            **given,
        )

    rng = numpy_generator(seed, "interval")
    found = resampled("percentile", config.levels[0], n_resamples=config.resamples, rng=rng)
    distribution = found.bootstrap_distribution
    if (distribution == distribution[0]).all():
        return [(value, value)] * len(config.levels)  # every episode says the same
    if config.method == "bca" and not distribution.min() <= value <= distribution.max():
        return None
    ends = []
    for level in config.levels:
        told = resampled(config.method, level, n_resamples=0, bootstrap_result=found)
        ends.append((float(told.confidence_interval.low), float(told.confidence_interval.high)))
    return ends


@dataclass(frozen=True, kw_only=True)
class MemberIntervalConfig:
    """Settings of the interval of an estimate whose members learned from bootstrapped episodes.

    Attributes:
        method: "members" takes their spread, see `member_intervals`; "none" gives no interval.
        levels: confidence levels.

    Raises:
        ConfigError: if the method is unknown, or a level not between 0 and 1.
    """

    method: Literal["members", "none"] = "members"
    levels: Sequence[float] = LEVELS

    def __post_init__(self) -> None:
        choice("method", self.method, ("members", "none"))
        object.__setattr__(self, "levels", check_levels(self.levels))


class Uncertainty(NamedTuple):
    """What an estimate knows of its own error."""

    standard_error: float | None
    told: Told


def member_intervals(
    value: float, members: Sequence[float], config: MemberIntervalConfig
) -> Uncertainty:
    """v̂ ± t_{M − 1, (1 + level) / 2} · s · √(1 + 1 / M), s the members' standard deviation.

    A member's fit to a bootstrap sample of the episodes lies from the fit to all of them as that
    lies from the truth, as far as episodes go (Efron 1979), and by the noise of training besides.
    So s is the standard error of one fit; the members' mean, which is the estimate, has 1 / M of
    the variance that resampling itself adds, on top. What all members get wrong together, as
    networks do off the log, is not in it.

    Args:
        value: the estimate.
        members: M values, each over the initial states of the episodes that the member drew, so
            that the noise of the starts is in their spread once.
        config: which.
    """
    count = len(members)
    if count < 2:
        reason = "A single member has no spread; use 2 members or more, or Refitted."
        return Uncertainty(None, no_interval(reason))
    error = float(np.std(members, ddof=1)) * math.sqrt(1.0 + 1.0 / count)
    if config.method == "none":
        return Uncertainty(error, NOT_WANTED)
    found = student_t(value, error, count - 1, levels=config.levels, method="members")
    return Uncertainty(error, Told(found, None))

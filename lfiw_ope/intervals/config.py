"""Which intervals estimators over logged episodes give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lfiw_ope.checks import choice, settings, whole
from lfiw_ope.errors import ConfigError
from lfiw_ope.intervals.record import LEVELS, check_levels

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
            episodes add (`lfiw_ope.intervals.episodes.degrees_of_freedom`), and covered best of the
            three on test-beds where weights differ much; "bernstein" holds for any number of
            episodes, where the likelihoods were logged and `return_range` is known
            (`lfiw_ope.intervals.bernstein`), and is wide; "none" gives no interval.
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

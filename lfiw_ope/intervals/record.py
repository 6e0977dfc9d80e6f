"""An interval of an estimate, as it is stored and told."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lfiw_ope.checks import real
from lfiw_ope.errors import ConfigError

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

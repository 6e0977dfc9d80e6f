"""Intervals of estimators whose members were fitted to bootstrap samples of the episodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from lfiw_ope.checks import choice
from lfiw_ope.intervals.episodes import NOT_WANTED, Told, no_interval
from lfiw_ope.intervals.record import LEVELS, check_levels, student_t


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

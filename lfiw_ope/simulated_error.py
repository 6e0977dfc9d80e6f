"""How far a simulated value may be off: what is known of it, told as an interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from lfiw_ope.anchors import AnchorGap
from lfiw_ope.intervals.record import Interval, student_t
from lfiw_ope.intervals.simulated import (
    Noise,
    SimulatedIntervalConfig,
    bias_aware,
    clustered,
    combined,
    spread_of,
)
from lfiw_ope.weighted import WeightedValue


@dataclass(frozen=True)
class Told:
    """What an estimate says of its own error; its fields are named as `Estimate`'s."""

    intervals: tuple[Interval, ...] = ()
    no_interval: str | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SimulatedError:
    """What is known of the error of the values that one model simulates.

    Attributes:
        config: which intervals are wanted.
        member_episodes: what each member learned from, see `DynamicsConfig`.
        gaps: the model's error on anchors.
        members: `[P, M]` float64, the plain model's value of each policy under each member; None
            where it was not simulated.
        seconds: wall-clock that simulating them took.
    """

    config: SimulatedIntervalConfig
    member_episodes: str
    gaps: tuple[AnchorGap, ...] = ()
    members: Tensor | None = None
    seconds: float = 0.0

    def told(self, weighted: WeightedValue, starts: Tensor, policy: int) -> Told:
        """Of one policy's value, by any form of weights.

        Simulation noise and that of starts are the form's own. The members' spread and the bias are
        the plain model's for all forms: weights are there to make the bias smaller, and how much
        smaller they made it nobody can see without the truth. Rollouts that were resampled while
        they ran depend on each other: the spread of their populations stands for their noise, which
        leaves out that there are N starts and not infinitely many.

        Args:
            weighted: the value.
            starts: `[n]`, where each rollout began.
            policy: its row of `members`.
        """
        missing = self._missing(weighted)
        if missing is not None:
            return Told(no_interval=missing)
        plain_error = weighted.mc_standard_error
        assert plain_error is not None  # without it something is missing
        levels = self.config.levels
        if self.config.method == "simulation":
            free = max(len(weighted.log_weights) - 1, 1)
            found = student_t(weighted.value, plain_error, free, levels=levels, method="simulation")
            return Told(intervals=found)
        assert self.members is not None
        noise = Noise(plain_error, math.inf)
        if weighted.influence is not None:
            noise = clustered(weighted.influence, starts)
        values = self.members[policy].tolist()
        if not np.isfinite(values).all():
            return Told(no_interval="Simulation in single members left the finite numbers.")
        jackknife = self.member_episodes == "jackknife"
        spread = spread_of(values, jackknife=jackknife)
        bias = bias_bound(self.gaps, spread.standard_error, jackknife=jackknife)
        whole = combined(noise, spread)
        method = "total" if self.gaps else "total without bias"
        numbers = {
            "standard_error": whole.standard_error,
            "start_noise": math.sqrt(max(noise.standard_error**2 - plain_error**2, 0.0)),
            "member_spread": spread.standard_error,
        }
        if self.gaps:
            numbers |= {"anchor_gap": root_mean_square([one.gap for one in self.gaps])}
            numbers |= {"bias_bound": bias}
        return Told(
            intervals=bias_aware(weighted.value, whole, bias, levels=levels, method=method),
            diagnostics=numbers,
        )

    def _missing(self, weighted: WeightedValue) -> str | None:
        """Why there can be no interval, in a sentence."""
        if self.config.method == "none":
            return 'None was asked for: the method of its interval settings is "none".'
        if weighted.mc_standard_error is None:
            return "The weights rest on too few rollouts to know how noisy the value is."
        if self.config.method == "simulation":
            return None
        if self.member_episodes == "all":
            return (
                "The members of the dynamics learned from the same episodes, and their spread does "
                'not say what another log would change: set member_episodes="jackknife".'
            )
        if self.members is None or self.members.shape[1] < 2:
            return (
                "The dynamics are a single network, which does not say how far another fit would "
                "be off: use members=2 or more."
            )
        if not self.gaps and self.config.anchors != "none":
            return "The log has too few episodes to clone its policy and measure the model's bias."
        return None


def root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))


def bias_bound(gaps: Sequence[AnchorGap], spread: float, *, jackknife: bool = False) -> float:
    """How large the model's bias on a target may be, from its errors on anchors.

        b = √(g² + s_a²) · max(1, s / s_a)

    g is the root mean square of the gaps, s_a that of the standard errors over members of the
    anchors' values, s the standard error over members of the target's (`spread_of`). A gap as large
    as the bias has the fit's noise on it, so that a small one shows no more than that the bias is
    not much larger than s_a. And the further a policy leads from the data the more members
    disagree: the bias that they share is taken to grow as they do. The gaps hold the noise of
    simulation and logged returns as well, which is not taken out.

    It is a bound where these assumptions hold, and no proof: what all members get wrong where no
    anchor goes, it does not see.

    Args:
        gaps: of the anchors; without any it is 0.
        spread: s.
        jackknife: whether members left out a group of episodes each.
    """
    if not gaps:
        return 0.0
    spreads = [
        one.stretch * spread_of(one.members, jackknife=jackknife).standard_error for one in gaps
    ]
    there = root_mean_square(spreads)
    growth = max(1.0, spread / there) if there > 0 else 1.0
    return math.hypot(root_mean_square([one.gap for one in gaps]), there) * growth

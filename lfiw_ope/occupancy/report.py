"""Whether the ratio solves its equation, and has settled: in numbers, and in words."""

from dataclasses import dataclass

from lfiw_ope.nn.settling import Settling

SURE = 4.5
"""Standard errors beyond which a violation is none of the log's noise: of a thousand test
functions, one gets there by chance in 150 logs."""

SMALL = 0.1
"""A violation, in standard deviations of a test function, that is none to speak of: what a log's
end leaves of a discounted occupancy, say."""

MUCH_LEFT = 0.5
FLAT = 0.95
MUCH_MOVED = 0.05


@dataclass(frozen=True)
class RatioReport:
    """How the training for one policy went.

    The flow equation (`lfiw_ope.occupancy.flow`) is tried on test functions: entries of state and
    action and their squares, standardised, and with time as input these times the step. Its
    violation is the root mean square over them, in standard deviations of a test function and
    steps of its equation.

    Attributes:
        ess: effective sample size of ω over the logged transitions.
        rows: how many these are.
        mass: of ζ before it is normalised, mean over steps; 1 where it solves the equation.
        violation: by ω.
        behaviour_violation: by the behaviour's own occupancy, which an ω that learns nothing has.
        behaviour_z: the largest of its entries, in their standard errors over episodes. Small
            where the log cannot tell the policy from the behaviour.
        left: how much of the behaviour's violation ω has too, as a share: its component along it,
            1 for the behaviour's own occupancy and 0 for a solution.
        settling: of the value at some transitions.
        scale: of values: the larger of this value and of the logged returns' standard deviation.
        seconds: of the training, which policies share.
    """

    ess: float
    rows: int
    mass: float
    violation: float
    behaviour_violation: float
    behaviour_z: float
    left: float
    settling: Settling
    scale: float
    seconds: float

    @property
    def diagnostics(self) -> dict[str, float]:
        """The numbers, by name."""
        names = ("ess", "mass", "violation", "behaviour_violation", "behaviour_z", "left")
        return {name: float(getattr(self, name)) for name in names} | self.settling.diagnostics

    @property
    def stuck(self) -> bool:
        """Whether ω is the log's own, or leaves most of what the behaviour surely violates."""
        return self._differs and (self.left > MUCH_LEFT or self.ess > FLAT * self.rows)

    @property
    def _differs(self) -> bool:
        """Whether the log tells the policy's occupancy from the behaviour's."""
        return self.behaviour_z > SURE and self.behaviour_violation > SMALL

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, and what to do."""
        said = []
        if self.stuck:
            said.append(
                f"DICE is stuck at the behaviour: its ratio leaves {self.left:.0%} of the "
                "violation of the flow equation that the behaviour's own occupancy has, at an "
                f"effective sample size of {self.ess / self.rows:.0%}; raise updates or "
                "learning_rate."
            )
        elif self._differs and self.violation > self.behaviour_violation:
            said.append(
                f"DICE's ratio violates the flow equation by {self.violation:.2g}, more than the "
                f"behaviour's own occupancy ({self.behaviour_violation:.2g}): it is mostly noise; "
                "raise updates, or use a log that covers the policy better."
            )
        said += self.settling.warnings(MUCH_MOVED * self.scale)
        if self.ess < 0.01 * self.rows:
            said.append(
                f"{self.ess:.0f} of {self.rows} logged transitions carry the weight: the log "
                "hardly goes where the policy does; use a log that covers the policy better."
            )
        return tuple(said)

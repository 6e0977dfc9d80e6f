"""What is being estimated."""

from dataclasses import dataclass
from typing import Literal

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.validation import real, whole

SMALL_TAIL = 0.01
"""γ^T below which the value over T steps is taken to be that over all of time."""


@dataclass(frozen=True)
class Estimand:
    """The expected return of a policy over the first `horizon` steps.

    v(π) = E[ Σ_{t=0}^{T-1} γ^t r_t ],  s_0 ~ the logged initial distribution, a_t ~ π(· | s_t)

    A terminated episode earns nothing more; the reward of the terminating step counts. Every
    estimator takes the same object, so that two estimates compared are estimates of one thing.

    Attributes:
        horizon: T, in environment steps.
        discount: γ, in [0, 1]; 1 is undiscounted.

    Raises:
        ConfigError: if the horizon is not a positive whole number or the discount not in [0, 1].
    """

    horizon: int
    discount: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "horizon", whole("The horizon", self.horizon, least=1))
        object.__setattr__(
            self, "discount", real("The discount", self.discount, least=0.0, most=1.0)
        )

    @property
    def tail(self) -> float:
        """γ^T: what a step after the horizon would weigh, beside 1 for the first.

        Where it is nearly 0, the value over T steps is nearly that over all of time: their
        difference is at most γ^T times the largest value from any state.
        """
        return self.discount**self.horizon


def has_time(estimand: Estimand, time: Literal["auto", "input", "none"]) -> bool:
    """Whether time is an input.

    Raises:
        ConfigError: if it is to be none, and nothing is discounted.
    """
    if estimand.discount == 1.0 and time == "none":
        raise ConfigError(
            "time is 'none', which solves the equation of an infinite horizon, and the discount is "
            "1, under which that has no value; use time='auto'."
        )
    return time == "input" or (time == "auto" and estimand.tail > SMALL_TAIL)


def beyond_horizon(estimand: Estimand, time: Literal["auto", "input", "none"]) -> tuple[str, ...]:
    """A warning where a value over all of time stands in for one over T steps, and differs."""
    if has_time(estimand, time) or estimand.tail <= SMALL_TAIL:
        return ()
    return (
        f"time is 'none': the value is over all of time and not over {estimand.horizon} steps, "
        f"after which rewards still weigh {estimand.tail:.2g} (γ^T); use time='auto', or a longer "
        "horizon.",
    )

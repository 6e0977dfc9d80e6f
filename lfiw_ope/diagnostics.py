"""When a simulated value is not to be trusted, and how that is said."""

from dataclasses import dataclass

from lfiw_ope.checks import real
from lfiw_ope.results import Estimate

MOST_BOUNDED = 0.05
"""Share of simulated steps on the model's bounds above which an estimate warns."""


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """Where weights mean nothing, and the plain model's value is given in their place.

    The defaults are of `experiments/default_weighting.py`, whose development tasks are in no
    report. There tempered weights were no worse where the bare product had collapsed, so that its
    effective sample size is no reason by default: an estimate warns of it instead.

    Attributes:
        least_ess: of the weights before H was chosen by it, tempering and smoothing, as a share of
            the rollouts. Below it a handful of rollouts would decide, whatever they happened to
            earn; for forms that do not temper, 0.01 is a sensible threshold. 0 is none.
        most_accuracy: of the classifiers on held-out episodes. Above it logged and simulated
            transitions are so separable that a ratio says little but that they are.

    Raises:
        ConfigError: if a threshold is out of its range.
    """

    least_ess: float = 0.0
    most_accuracy: float = 0.9

    def __post_init__(self) -> None:
        real("least_ess", self.least_ess, least=0.0, most=1.0)
        real("most_accuracy", self.most_accuracy, least=0.5, most=1.0)

    def reason(self, estimate: Estimate) -> str | None:
        """Why this weighted estimate's weights mean nothing; None where they may mean something."""
        accuracy = estimate.classifier_accuracy
        if accuracy is not None and accuracy > self.most_accuracy:
            return (
                f"the classifiers tell {accuracy:.0%} of held-out transitions apart, more than "
                f"{self.most_accuracy:.0%}"
            )
        if estimate.first == 0:
            return "the very first ratios leave fewer effective rollouts than were asked for"
        if estimate.raw_ess < self.least_ess * estimate.rollouts:
            return (
                f"the weights rest on {estimate.raw_ess:.1f} of {estimate.rollouts} rollouts, less "
                f"than {self.least_ess:.1%}"
            )
        return None


def bounds_warning(bounded_share: float) -> list[str]:
    """What to say of simulated steps that were put back on the model's bounds."""
    if bounded_share <= MOST_BOUNDED:
        return []
    return [
        f"{bounded_share:.0%} of simulated steps left the range of the data and were put back on "
        "its bounds: the policy goes where the model knows nothing; collect data nearer to it."
    ]


def collapse_warning(label: str, ess: float, rollouts: int) -> str:
    """What to say of a weighted value that has no standard error."""
    return (
        f"The weights of {label} rest on {ess:.1f} of {rollouts} rollouts, so its value means "
        "little: logged and simulated transitions are too far apart; use the plain model, or weigh "
        "fewer steps."
    )


LEAST_RAW_ESS = 10.0
"""Rollouts in effect below which a product of ratios is a collapsed one, also if it was tempered
afterwards."""


def tempering_warning(label: str, raw_ess: float, rollouts: int, exponent: float) -> list[str]:
    """What to say of weights that only tempering keeps from resting on a few rollouts."""
    if raw_ess >= LEAST_RAW_ESS:
        return []
    return [
        f"Before tempering the weights of {label} rest on {raw_ess:.1f} of {rollouts} rollouts; "
        f"with exponents down to {exponent:.2g} the value stays near the plain model's and "
        "corrects little of what is wrong there."
    ]


def populations_warning(label: str, populations: int) -> str:
    """What to say of sequential Monte Carlo that has no standard error."""
    return (
        f"Few of the {populations} populations of {label} carry the weights, so its value means "
        "little and has no standard error: simulate more populations, or use the plain model."
    )

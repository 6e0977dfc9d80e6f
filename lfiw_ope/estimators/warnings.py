"""When a simulated value is not to be trusted, and how that is said."""

import math
from dataclasses import dataclass

from lfiw_ope.core.validation import real
from lfiw_ope.stats.weighted_mean import LEAST_ESS_FOR_A_STANDARD_ERROR
from lfiw_ope.stats.weights import MOST_SHAPE

MOST_BOUNDED = 0.05
"""Share of simulated steps on the model's bounds above which an estimate warns."""


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """Where weights mean nothing, and the plain model's value is given in their place.

    On the development tasks of `experiments/default_weighting.py` tempered weights were no worse
    where the bare product had collapsed, so that its effective sample size is no reason by default:
    an estimate warns of it instead. The accuracy is set by hand: an eighth of the estimates fell
    back by it there, which cost nothing and gained nothing; it is for classes that are separable.

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

    def reason(
        self,
        *,
        accuracy: float | None,
        raw_ess: float | None,
        rollouts: int | None,
        no_ratio_left: bool = False,
    ) -> str | None:
        """Why an estimate's weights mean nothing; None where they may mean something.

        Args:
            accuracy: of the classifiers, held-out; None where it is not known.
            raw_ess: see `Estimate.raw_ess`.
            rollouts: n.
            no_ratio_left: the H that was chosen by effective sample size is 0.
        """
        if accuracy is not None and accuracy > self.most_accuracy:
            return (
                f"the classifiers tell {accuracy:.0%} of held-out transitions apart, more than "
                f"{self.most_accuracy:.0%}"
            )
        if no_ratio_left:
            return "the very first ratios leave fewer effective rollouts than were asked for"
        if raw_ess is not None and raw_ess < self.least_ess * (rollouts or 0):
            return (
                f"the weights rest on {raw_ess:.1f} of {rollouts} rollouts, less than "
                f"{self.least_ess:.1%}"
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


FEW_ROLLOUTS = 20
"""Below it an effective sample size of less than 10 is no sign of weights that collapsed."""


def collapse_warning(label: str, ess: float, rollouts: int) -> str:
    """What to say of a weighted value that has no standard error."""
    rest = f"The weights of {label} rest on {ess:.1f} of {rollouts} rollouts"
    if rollouts < FEW_ROLLOUTS:
        return f"{rest}, too few for a standard error: simulate more."
    return (
        f"{rest}, so its value means little: logged and simulated transitions are too far apart; "
        "use the plain model, or weigh fewer steps."
    )


def tempering_warning(label: str, raw_ess: float, rollouts: int, exponent: float) -> list[str]:
    """What to say of weights that only tempering keeps from resting on a few rollouts."""
    if rollouts < FEW_ROLLOUTS or raw_ess >= LEAST_ESS_FOR_A_STANDARD_ERROR:
        return []
    return [
        f"Before tempering the weights of {label} rest on {raw_ess:.1f} of {rollouts} rollouts; "
        f"with exponents down to {exponent:.2g} the value stays near the plain model's and "
        "corrects little of what is wrong there."
    ]


def overlap_warning(label: str, ess: float, episodes: int, *, cloned: bool) -> str:
    """What to say of weights of logged episodes that have no standard error."""
    rest = f"The weights of {label} rest on {ess:.1f} of {episodes} logged episodes"
    if episodes < FEW_ROLLOUTS:
        return f"{rest}, too few for a standard error: log more."
    clone = ", or the clones are too unlike that one" * cloned
    return (
        f"{rest}, so its value means little: the policy acts too unlike the one that was logged"
        f"{clone}; use a shorter horizon, or an estimator that needs no such overlap (FQE, LFIW, "
        "ModelBased)."
    )


def cut_short_warning(cut: int, episodes: int, *, stepwise: bool) -> list[str]:
    """What to say of logged episodes that end before the horizon without a terminal state."""
    if not cut:
        return []
    left_out = "from there on" if stepwise else "as a whole"
    return [
        f"{cut} of {episodes} logged episodes were cut short of the horizon and are left out "
        f"{left_out}, where those that went on stand for them: right if where they were cut does "
        "not depend on what happened in them."
    ]


def tail_warning(label: str, shape: float | None) -> list[str]:
    """What to say of weights by the shape of their tail, k̂, where they were smoothed."""
    if shape is None or shape <= MOST_SHAPE:
        return []
    return [
        f"The weights of {label} have a tail of k̂ = {shape:.2f}, above {MOST_SHAPE:g}: their "
        "variance may be infinite, and the standard error too small; use a shorter horizon, or an "
        "estimator without products of ratios (FQE, DICE, LFIW)."
    ]


LEAST_EXPONENT = 0.01
"""Below it weights that were e^10 apart are within 10% of each other."""


def levelled_warning(label: str, exponent: float | None) -> list[str]:
    """What to say of weights that tempering made all but equal."""
    if exponent is None or exponent >= LEAST_EXPONENT:
        return []
    return [
        f"Tempering lowered the exponent of {label} to {exponent:.2g}: weights that are not 0 are "
        "then all but equal, and their value is that of the logged episodes whatever the policy "
        "is; temper to a smaller share."
    ]


SURPRISING = 4.0
"""Standard errors from 1 at which the mean of the weights is told of."""

ROUNDING = 0.01
"""Of a mean weight: likelihoods are logged as float32, and their products are over many steps."""


def mean_weight_warning(mean: float, error: float) -> list[str]:
    """What to say of weights whose mean, which is 1 in expectation, is far from it."""
    off, known = abs(mean - 1.0), math.isfinite(mean) and math.isfinite(error)
    if known and off <= max(SURPRISING * error, ROUNDING):
        return []
    size = f"{mean:.3g} ± {error:.2g}" if known else "to more than there are numbers for"
    return [
        f"The weights of whole episodes average {size}, and 1 is expected: the "
        "log has too little of what the policy does, or the behaviour's likelihoods are wrong."
    ]

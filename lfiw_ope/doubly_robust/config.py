"""Settings of the doubly robust estimators."""

from dataclasses import dataclass, field
from typing import Literal

from lfiw_ope.checks import choice, real, whole
from lfiw_ope.classifier import ClassifierConfig
from lfiw_ope.dynamics import DynamicsConfig
from lfiw_ope.errors import ConfigError
from lfiw_ope.fitted_q.config import FQEConfig
from lfiw_ope.intervals.config import IntervalConfig, no_bernstein
from lfiw_ope.occupancy.config import DICEConfig
from lfiw_ope.policy_ratio.config import BehaviourConfig


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
        ratio: where ω comes from: "dice" solves the flow equation on the log, "classifier" tells
            the model's own rollouts from the log.
        folds: parts that the episodes are dealt to; model and ratio at an episode come from fits
            to the other parts. 1 fits them to all and judges the same.
        dynamics: the model.
        dice: the ratio, where it is DICE's. Its time is this configuration's.
        classifier: the ratio, where it is a classifier's.
        time: "input" corrects each of T steps by itself, "none" solves the discounted equation of
            an infinite horizon, with all logged steps alike; "auto" does so where γ^T is at most
            0.01.
        rollouts: simulated for the direct part, spread evenly over the logged initial states, at
            least one from each; and for the classifier's samples.
        transitions: logged steps whose residual is simulated, at most; drawn at random.
        interval: how intervals are made.
    """

    ratio: Literal["dice", "classifier"] = "dice"
    folds: int = 2
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    dice: DICEConfig = field(default_factory=DICEConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    time: Literal["auto", "input", "none"] = "auto"
    rollouts: int = 1000
    transitions: int = 10_000
    interval: IntervalConfig = field(default_factory=IntervalConfig)

    def __post_init__(self) -> None:
        choice("ratio", self.ratio, ("dice", "classifier"))
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
        if self.ratio == "classifier" and self.classifier.average == "estimates":
            raise ConfigError(
                "classifier.average is 'estimates', and a correction takes one ratio; use 'logits' "
                "or 'ratios'."
            )

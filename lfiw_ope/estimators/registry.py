"""Estimators by the names that the command line calls them by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Reward, Termination
from lfiw_ope.core.validation import choice, whole
from lfiw_ope.dynamics.ensemble import DynamicsConfig
from lfiw_ope.estimators.base import Estimator
from lfiw_ope.estimators.behaviour import BehaviourMean
from lfiw_ope.estimators.corrected_model import CorrectedModel
from lfiw_ope.estimators.dice import DICE
from lfiw_ope.estimators.dice_lagrangian import DICEConfig
from lfiw_ope.estimators.doubly_robust import DR, MAGIC, WDR
from lfiw_ope.estimators.doubly_robust_terms import (
    CorrectedModelConfig,
    DoublyRobustConfig,
    MAGICConfig,
)
from lfiw_ope.estimators.fqe import FQE
from lfiw_ope.estimators.fqe_networks import FQEConfig, following_fast_enough
from lfiw_ope.estimators.importance import IS, PDIS, WIS, WPDIS, ImportanceConfig
from lfiw_ope.estimators.lfiw import LFIW, LFIWConfig
from lfiw_ope.estimators.model_based import ModelBased, ModelBasedConfig
from lfiw_ope.nn.training import FitConfig
from lfiw_ope.ratios.behaviour_cloning import BehaviourConfig
from lfiw_ope.ratios.transition_ratio import RatioConfig

Build = Callable[[Estimand, "Options"], Estimator]

LEAST_BETWEEN_LOOKS = 20
"""Updates, of trainings that are shorter than an estimator's default."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line offers; the estimators' own defaults for everything else.

    Attributes:
        rollouts: n, of each policy; None is the estimator's default.
        updates: of training; classifiers take half as many as the dynamics. None is the
            estimator's default.
        precision: of training, and of rollouts; None is the estimator's default.
        device: where everything runs.
        reward: the reward function, where it is known exactly.
        termination: the termination rule, where it is known.

    Raises:
        ConfigError: if a number is out of its range.
    """

    rollouts: int | None = None
    updates: int | None = None
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    device: str = "cpu"
    reward: Reward | None = None
    termination: Termination | None = None

    def __post_init__(self) -> None:
        if self.rollouts is not None:
            whole("rollouts", self.rollouts, least=2)
        if self.updates is not None:
            whole("updates", self.updates, least=2)

    def changed(self) -> dict[str, Any]:
        """Settings that are not the defaults, rules aside."""
        rules = ("reward", "termination")
        every = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in rules}
        return {name: of for name, of in every.items() if of != getattr(Options, name)}

    @property
    def simulating(self) -> dict[str, Any]:
        """Settings of a configuration that simulates."""
        fit = self.training(DynamicsConfig().fit)
        dynamics = DynamicsConfig(device=self.device, fit=fit)
        rollouts = {} if self.rollouts is None else {"rollouts": self.rollouts}
        return {"dynamics": dynamics, **rollouts}

    @property
    def known(self) -> dict[str, Any]:
        """What is known of the environment, as estimators that simulate take it."""
        return {"reward": self.reward, "termination": self.termination}

    def training(self, default: FitConfig, share: int = 1) -> FitConfig:
        """A training of an estimator, `share` times shorter than asked for, looked at as often.

        One of some hundred updates is looked at less often: a look costs as much as many updates.
        """
        default = replace(default, precision=self.precision or default.precision)
        if self.updates is None:
            return default
        updates = max(1, self.updates // share)
        looks = default.updates // default.evaluate_every
        every = max(min(updates, LEAST_BETWEEN_LOOKS), updates // looks)
        return replace(default, updates=updates, epochs=None, evaluate_every=every)


def lfiw(estimand: Estimand, options: Options) -> LFIW:
    """`LFIW` with its default settings but for the options."""
    ratio = RatioConfig(fit=options.training(RatioConfig().fit, share=2))
    return LFIW(estimand, LFIWConfig(ratio=ratio, **options.simulating), **options.known)


def _model(estimand: Estimand, options: Options) -> Estimator:
    return ModelBased(estimand, ModelBasedConfig(**options.simulating), **options.known)


def _fqe(estimand: Estimand, options: Options) -> Estimator:
    return FQE(estimand, _fqe_config(estimand, options))


def _dice(estimand: Estimand, options: Options) -> Estimator:
    return DICE(estimand, _dice_config(options))


def _corrected(estimand: Estimand, options: Options) -> Estimator:
    config = CorrectedModelConfig(dice=_dice_config(options), **options.simulating)
    return CorrectedModel(estimand, config, **options.known)


def _fqe_config(estimand: Estimand, options: Options) -> FQEConfig:
    """The default's, its targets following as fast as a training of this length needs."""
    default = FQEConfig()
    fit = options.training(default.fit)
    tau = default.tau
    if options.updates is not None:
        tau = following_fast_enough(estimand, fit.updates, tau)
    return replace(default, tau=tau, fit=fit, device=options.device)


def _dice_config(options: Options) -> DICEConfig:
    default = DICEConfig()
    return replace(default, fit=options.training(default.fit), device=options.device)


def _clones(options: Options) -> BehaviourConfig:
    default = BehaviourConfig()
    return replace(default, fit=options.training(default.fit), device=options.device)


def _weighted(kind: type[IS] | type[PDIS] | type[WIS] | type[WPDIS]) -> Build:
    """Importance sampling: nothing is trained but clones, where the log has no densities."""

    def build(estimand: Estimand, options: Options) -> Estimator:
        return kind(estimand, ImportanceConfig(behaviour=_clones(options)))

    return build


def _doubly_robust(kind: type[DR] | type[WDR]) -> Build:
    def build(estimand: Estimand, options: Options) -> Estimator:
        config = DoublyRobustConfig(behaviour=_clones(options), fqe=_fqe_config(estimand, options))
        return kind(estimand, config)

    return build


def _magic(estimand: Estimand, options: Options) -> Estimator:
    config = MAGICConfig(behaviour=_clones(options), fqe=_fqe_config(estimand, options))
    return MAGIC(estimand, config)


CATALOGUE: dict[str, Build] = {
    "lfiw": lfiw,
    "model": _model,
    "is": _weighted(IS),
    "pdis": _weighted(PDIS),
    "wis": _weighted(WIS),
    "wpdis": _weighted(WPDIS),
    "fqe": _fqe,
    "dice": _dice,
    "dr": _doubly_robust(DR),
    "wdr": _doubly_robust(WDR),
    "magic": _magic,
    "corrected-model": _corrected,
    "behaviour": lambda estimand, options: BehaviourMean(estimand, device=options.device),
}
"""Every estimator of the package, with its default settings but for the options."""

SIMULATING = ("lfiw", "model", "corrected-model")
"""Those that simulate, and so take `rollouts` and known rules."""


def estimator_named(name: str, estimand: Estimand, options: Options) -> Estimator:
    """An estimator by its name.

    Raises:
        ConfigError: if there is none of the name, or an option is given that it has no use for.
    """
    choice("estimator", name, tuple(CATALOGUE))
    if options.rollouts is not None and name not in SIMULATING:
        raise ConfigError(
            f"rollouts is {options.rollouts}, and the estimator {name!r} simulates nothing; leave "
            f"it out, or use {' or '.join(SIMULATING)}."
        )
    if options.updates is not None and name == "behaviour":
        raise ConfigError(
            f"updates is {options.updates}, and the behaviour's mean return is not trained; leave "
            "it out."
        )
    return CATALOGUE[name](estimand, options)


def estimators_named(
    names: Sequence[str], estimand: Estimand, options: Options
) -> dict[str, Estimator]:
    """Several estimators by their names, each with the options that mean something to it.

    Raises:
        ConfigError: if there is none of a name, or an option is given that none has a use for.
    """
    for name in names:
        choice("estimator", name, tuple(CATALOGUE))
    simulating = [name for name in names if name in SIMULATING]
    trained = [name for name in names if name != "behaviour"]
    found = {}
    for name in names:
        # An option that has no use at all is refused by the first estimator, in its own words.
        own = replace(
            options,
            rollouts=None if simulating and name not in simulating else options.rollouts,
            updates=None if trained and name not in trained else options.updates,
        )
        found[name] = estimator_named(name, estimand, own)
    return found

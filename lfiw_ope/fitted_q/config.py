"""Settings of fitted Q evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lfiw_ope.checks import real, settings, whole
from lfiw_ope.estimand import Estimand
from lfiw_ope.intervals.members import MemberIntervalConfig
from lfiw_ope.nn.fit_config import FitConfig
from lfiw_ope.per_policy import PerPolicyConfig


@dataclass(frozen=True, kw_only=True)
class FQEConfig(PerPolicyConfig):
    """Settings of fitted Q evaluation.

    Attributes:
        hidden: widths of each network's hidden layers.
        activation: between layers, a name in `lfiw_ope.nn.ensemble.ACTIVATIONS`.
        members: M networks for each policy, each of its own bootstrap sample of the episodes; a
            single one learns from all of them.
        action_samples: K, of a stochastic policy at every state whose value is bootstrapped from.
            The target is unbiased with one; more make it less noisy.
        tau: how far the target networks go towards the trained ones at every update.
        time: "input" gives the networks the time step, for a value over T steps; "none" solves the
            discounted equation of an infinite horizon; "auto" does so where γ^T is at most 0.01.
        fit: how the networks are trained. Nothing is held out, so training never stops early. At
            a look (`evaluate_every`) the values are recorded, which tells whether they have
            settled, and the constant that the mean TD error asks for is added to every Q
            (`lfiw_ope.fitted_q.objective.BellmanError`), so that how often one looks changes
            what is learned.
        interval: how intervals are made of the members' spread. Three members know it roughly,
            and their intervals are wide (t_2); 10 make them half as wide.
        device: where the networks are.
    """

    hidden: Sequence[int] = (256, 256)
    members: int = 3
    action_samples: int = 4
    tau: float = 0.01
    interval: MemberIntervalConfig = field(default_factory=MemberIntervalConfig)
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            updates=20_000,
            learning_rate=3e-4,
            schedule="constant",
            evaluate_every=500,
            patience=None,
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        example = 'MemberIntervalConfig(method="members")'
        settings("interval", self.interval, MemberIntervalConfig, example)
        whole("members", self.members, least=1)
        whole("action_samples", self.action_samples, least=1)
        real("tau", self.tau, least=1e-6, most=1.0)


def following_fast_enough(estimand: Estimand, updates: int, least: float) -> float:
    """The least τ from `least` up at which values come from as far as they must.

    A value is bootstrapped from the step after it, by targets that follow in 1 / τ updates: so
    many it takes for every step of the horizon, or of the 1 / (1 − γ) that the discount leaves.
    """
    return max(least, min(1.0, _steps(estimand) / updates))


def slow_to_reach(estimand: Estimand, config: FQEConfig) -> tuple[str, ...]:
    """A warning where the training is too short for that."""
    steps = _steps(estimand)
    needed = round(steps / config.tau)
    if config.fit.updates >= needed:
        return ()
    return (
        f"{config.fit.updates} updates are too few: values are bootstrapped step by step, and "
        f"with tau {config.tau:g} it takes {needed} for them to come from {steps:.0f} steps away; "
        "raise updates, or tau.",
    )


def _steps(estimand: Estimand) -> float:
    """From how far away values come."""
    steps = float(estimand.horizon)
    return min(steps, 1.0 / (1.0 - estimand.discount)) if estimand.discount < 1.0 else steps

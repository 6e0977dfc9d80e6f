"""When no number is given, because the data cannot tell it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.validation import real
from lfiw_ope.diagnostics.diagnosis import Diagnosis, concerns_of
from lfiw_ope.stats.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Beyond which the data cannot tell a value. Infinity, or 0 of what is a least, is none.

    The defaults were chosen in `experiments/refusal.py`, which says the rule, and which measures
    what they do: refusal rate, and error and coverage among the answered. Where the rule gave none
    they were set by hand, and the members' disagreement is looser than the rule's 1.5, which on
    the seeds that had no part in it refused mostly right numbers.

    Which ones concern an estimate depends on what its number rests on; the estimate of another
    estimator for the same policy may be answered.

    Attributes:
        most_actions_outside: share of the policy's actions outside what the log has at like states
            (all estimators but the behaviour's mean). Nothing in the log says what follows them.
        least_ess: effective sample size, of weighted logged episodes before tempering and
            smoothing (`Estimate.raw_ess`), which lead back to the behaviour's value, or of weighted
            rollouts as they are weighed. Of fewer, one episode more or less would be another value.
        most_pareto_k: k̂ of the tail of weights of logged episodes. Above 1 their mean need not
            exist.
        most_accuracy: of a classifier of target against logged actions (weights of logged
            episodes). Over a horizon, what differs at a step multiplies.
        most_states_outside: share of simulated states outside the logged ones.
        most_disagreement: of a model's members along rollouts, over that on the log.
        least_open_loop: share of the steps over which the model's reward beats a constant as logged
            actions are replayed.
        most_return_bias: of that replay's return, in standard deviations of the logged one.
        most_bounded_states: share of simulated states put back on the model's bounds.
        most_bounded_values: share of bootstrapped values put on a bound (FQE): it diverges.
        most_drift: of a trained value over the last quarter of its training (FQE, DICE), in
            standard deviations of the logged return: it has not settled.
        most_member_spread: of the members' values (FQE), in standard deviations of the logged
            return: each says something else.

    Raises:
        ConfigError: if one is no number, 0 or more.
    """

    most_actions_outside: float = 0.2
    least_ess: float = 5.0
    most_pareto_k: float = 1.0
    most_accuracy: float = 0.7
    most_states_outside: float = 0.3
    most_disagreement: float = 3.0
    least_open_loop: float = 0.25
    most_return_bias: float = 1.0
    most_bounded_states: float = 0.2
    most_bounded_values: float = 0.1
    most_drift: float = 0.5
    most_member_spread: float = 1.0

    def __post_init__(self) -> None:
        for each in fields(self):
            real(each.name, getattr(self, each.name), least=0.0)

    def reasons(self, estimate: Estimate, diagnosis: Diagnosis | None) -> tuple[str, ...]:
        """Why the value of an estimate is refused, a sentence each; nothing where it is given.

        Args:
            estimate: the number and what is known of it.
            diagnosis: of the same policy; None judges by the estimate alone.
        """
        concerns = concerns_of(estimate)
        found: list[str] = []
        if "actions" in concerns and diagnosis is not None:
            found += self._of_actions(diagnosis)
        if "weights" in concerns:
            found += self._of_weights(estimate, diagnosis)
        elif "model" in concerns:
            found += self._of_rollouts(estimate, diagnosis)
        elif concerns:
            found += self._of_training(estimate, diagnosis)
        return tuple(found)

    def _of_actions(self, diagnosis: Diagnosis) -> Iterator[str]:
        outside = diagnosis.actions_outside
        if outside > self.most_actions_outside:
            yield (
                f"{outside:.0%} of the policy's actions lie outside what the log has at like "
                f"states, more than {self.most_actions_outside:.0%}."
            )

    def _of_weights(self, estimate: Estimate, diagnosis: Diagnosis | None) -> Iterator[str]:
        ess = min((e for e in (estimate.ess, estimate.raw_ess) if e is not None), default=math.inf)
        if ess < self.least_ess:
            yield (
                f"The weights rest on {ess:.1f} of {estimate.episodes} logged episodes, "
                f"fewer than {self.least_ess:g}."
            )
        shape = estimate.pareto_k
        if shape is None and diagnosis is not None:
            shape = diagnosis.pareto_k
        if shape is not None and shape > self.most_pareto_k:
            yield (
                f"The tail of the weights has k̂ = {shape:.2f}, above {self.most_pareto_k:g}: their "
                "mean need not exist."
            )
        if diagnosis is not None and diagnosis.action_accuracy > self.most_accuracy:
            yield (
                f"The policy's actions are told from the logged ones with "
                f"{diagnosis.action_accuracy:.0%} accuracy, more than {self.most_accuracy:.0%}."
            )

    def _of_rollouts(self, estimate: Estimate, diagnosis: Diagnosis | None) -> Iterator[str]:
        weighted = estimate.ess is not None and not estimate.fell_back
        if weighted and estimate.ess is not None and estimate.ess < self.least_ess:
            yield (
                f"The weights rest on {estimate.ess:.1f} of {estimate.rollouts} rollouts, fewer "
                f"than {self.least_ess:g}."
            )
        bounded = estimate.bounded_share
        if bounded is not None and bounded > self.most_bounded_states:
            yield (
                f"{bounded:.0%} of simulated states were put back on the model's bounds, more than "
                f"{self.most_bounded_states:.0%}."
            )
        if diagnosis is not None:
            yield from self._of_model(diagnosis)

    def _of_model(self, diagnosis: Diagnosis) -> Iterator[str]:
        outside, disagreement = diagnosis.states_outside, diagnosis.disagreement
        if outside is not None and outside > self.most_states_outside:
            yield (
                f"{outside:.0%} of simulated states lie outside the logged ones, more than "
                f"{self.most_states_outside:.0%}."
            )
        if disagreement is not None and disagreement > self.most_disagreement:
            yield (
                f"Along the rollouts the model's members are {disagreement:.1f} times as far apart "
                f"as on the log, more than {self.most_disagreement:g}."
            )
        loop = diagnosis.open_loop
        if loop is not None and loop.lasting_share < self.least_open_loop:
            yield (
                f"Replayed in the model, logged actions earn what a constant predicts as well "
                f"after {loop.lasting} of {loop.compared} steps, less than "
                f"{self.least_open_loop:.0%} of them."
            )
        if loop is not None and abs(loop.return_bias) > self.most_return_bias:
            yield (
                f"On held-out episodes the model's return is off by {loop.return_bias:+.2f} "
                f"standard deviations, more than {self.most_return_bias:g}."
            )

    def _of_training(self, estimate: Estimate, diagnosis: Diagnosis | None) -> Iterator[str]:
        told = estimate.diagnostics
        bounded = told.get("bounded_share", 0.0)
        if bounded > self.most_bounded_values:
            yield (
                f"{bounded:.0%} of the bootstrapped values were put on the bound of what rewards "
                f"allow, more than {self.most_bounded_values:.0%}: the training diverges."
            )
        if diagnosis is None or diagnosis.return_spread <= 0:
            return
        limits = {
            "drift": (self.most_drift, "moved over the last quarter of its training by"),
            "member_spread": (self.most_member_spread, "differs between the members by"),
        }
        for name, (most, what) in limits.items():
            size = abs(told.get(name, 0.0)) / diagnosis.return_spread
            if size > most:
                yield (
                    f"The value {what} {size:.2g} standard deviations of the logged return, more "
                    f"than {most:g}."
                )


def thresholds_of(refuse: "bool | Thresholds") -> Thresholds | None:
    """What `refuse=` means: the default thresholds, these, or none.

    Raises:
        ConfigError: if it is neither.
    """
    if isinstance(refuse, Thresholds):
        return refuse
    if not isinstance(refuse, bool):
        raise ConfigError(f"refuse is {refuse!r}; it must be True, False or Thresholds.")
    return Thresholds() if refuse else None

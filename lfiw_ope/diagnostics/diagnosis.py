"""The record of a diagnosis, its warnings, and the estimates that they concern.

Each threshold is where a user should look, no later than where `lfiw_ope.diagnostics.thresholds`
refuses.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from lfiw_ope.core.errors import DataError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.serialization import Stored
from lfiw_ope.diagnostics.open_loop import OpenLoop
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.weighted_mean import LEAST_ESS_FOR_A_STANDARD_ERROR
from lfiw_ope.stats.weights import MOST_SHAPE


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Stored):
    """Whether the data can tell one policy's value: in numbers, and in words.

    Attributes:
        estimand: whose value is asked for.
        seed: of everything that was random.
        return_spread: standard deviation of the logged returns over the horizon, discounted.
        transitions: of the log that were looked at.
        logged_transitions: R, that it has.
        action_accuracy: of a classifier of the policy's actions against the logged ones at the
            same states, balanced, on episodes that it did not see; 0.5 is chance.
        action_auc: probability that it ranks a target action above a logged one; 0.5 is chance.
        action_log_loss: its log-loss, in nats; 0.693 is chance.
        actions_outside: share of the policy's actions outside what the log has at like states.
        logged_actions_outside: the same of the logged actions of other episodes, about 0.01.
        ess: effective sample size of the weights of whole logged episodes, 1 to `episodes`; 0 where
            all weights are 0. None where they are not known.
        episodes: that such weights are of.
        pareto_k: k̂ of their tail.
        no_weights: why these weights are not known; None where they are.
        steps: of the simulated rollouts that were looked at.
        states_outside: share of simulated states outside the logged ones.
        states_outside_by_step: at each of these steps; None where every rollout had ended.
        disagreement: of the model's members along the rollouts, over that one step from logged
            transitions: 1 is as on the data, 10 is far off.
        disagreement_by_step: at each of these steps.
        open_loop: errors of the model as logged actions are replayed; the same for every policy.
        ratio_accuracy: of the classifiers of logged against simulated transitions, held-out.
        ratio_calibration_error: expected calibration error of their probabilities.
        no_model: why nothing is known of a model; None where one was given.
        warnings: in words, what is wrong and what to do.
    """

    estimand: Estimand
    seed: int
    return_spread: float
    transitions: int
    logged_transitions: int
    action_accuracy: float
    action_auc: float
    action_log_loss: float
    actions_outside: float
    logged_actions_outside: float
    ess: float | None = None
    episodes: int | None = None
    pareto_k: float | None = None
    no_weights: str | None = None
    steps: tuple[int, ...] = ()
    states_outside: float | None = None
    states_outside_by_step: tuple[float | None, ...] = ()
    disagreement: float | None = None
    disagreement_by_step: tuple[float | None, ...] = ()
    open_loop: OpenLoop | None = None
    ratio_accuracy: float | None = None
    ratio_calibration_error: float | None = None
    no_model: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def ess_share(self) -> float | None:
        """Of the logged episodes, those that weights of whole episodes would rest on."""
        return None if self.ess is None or not self.episodes else self.ess / self.episodes

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """In a few plain lines; warnings are apart."""
        looked = f"{self.transitions} of {self.logged_transitions} transitions"
        said = [
            f"Actions: told from the logged ones with {self.action_accuracy:.0%} accuracy (50% is "
            f"chance), {self.actions_outside:.1%} outside what the log has at like states "
            f"(of logged ones {self.logged_actions_outside:.1%}); {looked}"
        ]
        if self.no_weights is not None:
            said.append(f"Weights of logged episodes: not known, because {self.no_weights}")
        elif self.ess is not None:
            tail = "" if self.pareto_k is None else f", k̂ {self.pareto_k:.2f}"
            said.append(f"Weights of logged episodes: ESS {self.ess:.1f}/{self.episodes}{tail}")
        if self.no_model is not None:
            said.append(f"Model: not known, because {self.no_model}")
            return said
        if self.states_outside is not None:
            members = (
                ""
                if self.disagreement is None
                else (f", its members {self.disagreement:.1f} × as far apart as on the log")
            )
            said.append(
                f"Simulated rollouts: {self.states_outside:.1%} of states outside the logged ones"
                f"{members}"
            )
        if self.open_loop is not None:
            loop = self.open_loop
            said.append(
                f"Open loop: the model's reward beats a constant for {loop.lasting} of "
                f"{loop.compared} steps; its return is off by {loop.return_bias:+.2f} standard "
                f"deviations on {loop.episodes} held-out episodes"
            )
        if self.ratio_accuracy is not None:
            said.append(
                f"Ratio: logged and simulated transitions told apart with {self.ratio_accuracy:.0%}"
                f" accuracy, calibration error {self.ratio_calibration_error:.3f}"
            )
        return said

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, lists and strings."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            DataError: if fields are missing or unknown.
        """
        try:
            fields = {name: _tuple(value) for name, value in plain.items()}
            fields["estimand"] = Estimand(**plain["estimand"])
            if plain.get("open_loop") is not None:
                loop = plain["open_loop"]
                fields["open_loop"] = OpenLoop(**{n: _tuple(value) for n, value in loop.items()})
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"This is no stored diagnosis ({error}).") from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Concern = Literal["actions", "weights", "model"]

CONCERNS: tuple[Concern, ...] = ("actions", "weights", "model")
"""What the log has of the policy's actions, weights of logged episodes, a model's rollouts."""


def concerns_of(estimate: Estimate) -> frozenset[Concern]:
    """What an estimate rests on; nothing of the policy, where it is the log's own mean."""
    if estimate.rollouts is not None:
        return frozenset({"actions", "model"})
    if estimate.episodes is None:  # learned by regression, such as FQE and DICE
        return frozenset({"actions"})
    if estimate.ess is None:
        return frozenset()
    return frozenset({"actions", "weights"})


MUCH_ACCURACY = 0.7
"""Of the classifier of actions, at a single step: over a horizon, what differs multiplies."""

MUCH_OUTSIDE = 0.1
"""Share of actions, or of simulated states, outside the log: ten times the behaviour's own."""

MUCH_DISAGREEMENT = 2.0
"""Of the members along rollouts: on the development tasks 1.1 where the log covers the policy and
10 where it does not."""

SHORT_LASTING = 0.5
"""Share of the compared steps whose reward a model is of use for in open loop."""

MUCH_BIAS = 0.5
"""Of an open-loop return, in standard deviations of the logged one, if beyond its noise."""

SURE = 2.0
"""Standard errors that a bias must be beyond."""

MUCH_MISCALIBRATED = 0.1
"""Expected calibration error of the ratio's probabilities, whose range is half of [0, 1]."""


def warnings_of(found: Diagnosis, concerns: Collection[Concern] = CONCERNS) -> tuple[str, ...]:
    """Of one policy; a number that is not known says nothing.

    Args:
        found: the numbers.
        concerns: what an estimate rests on; everything where nothing is named.
    """
    said = {"actions": _of_actions, "weights": _of_weights, "model": _of_model}
    return tuple(text for name in CONCERNS if name in concerns for text in said[name](found))


def _of_actions(found: Diagnosis) -> list[str]:
    if found.actions_outside <= MUCH_OUTSIDE:
        return []
    return [
        f"{found.actions_outside:.0%} of the policy's actions lie outside what the log has at "
        "like states: what follows them nobody has seen, and every estimator guesses it; "
        "collect data with such actions."
    ]


def _of_weights(found: Diagnosis) -> list[str]:
    said = []
    if found.action_accuracy > MUCH_ACCURACY:
        said.append(
            f"The policy's actions are told from the logged ones with {found.action_accuracy:.0%} "
            "accuracy: it does too little of what the log did, so weights of logged episodes mean "
            "little; use an estimator that needs none (FQE, LFIW, ModelBased), or data nearer to "
            "it."
        )
    if found.ess is None:
        return said
    if found.ess < LEAST_ESS_FOR_A_STANDARD_ERROR <= (found.episodes or 0) / 2:
        said.append(
            f"Weights of whole logged episodes would rest on {found.ess:.1f} of {found.episodes}: "
            "importance sampling means little here; use a shorter horizon, or FQE, LFIW or "
            "ModelBased."
        )
    if found.pareto_k is not None and found.pareto_k > MOST_SHAPE:
        said.append(
            f"Weights of whole logged episodes have a tail of k̂ = {found.pareto_k:.2f}, above "
            f"{MOST_SHAPE:g}: their variance may be infinite, and standard errors of importance "
            "sampling too small."
        )
    return said


def _of_rollouts(found: Diagnosis) -> list[str]:
    said = []
    if found.states_outside is not None and found.states_outside > MUCH_OUTSIDE:
        said.append(
            f"{found.states_outside:.0%} of simulated states lie outside the logged ones: the "
            "model extrapolates there, which no weighting corrects; collect data nearer to the "
            "policy, or use a shorter horizon."
        )
    if found.disagreement is not None and found.disagreement > MUCH_DISAGREEMENT:
        said.append(
            f"Along the policy's rollouts the model's members are {found.disagreement:.1f} times "
            "as far apart as on the log: they guess; collect data nearer to the policy, or use an "
            "estimator without a model."
        )
    return said


def _of_model(found: Diagnosis) -> list[str]:
    said, loop = _of_rollouts(found), found.open_loop
    if loop is not None and loop.lasting_share < SHORT_LASTING:
        said.append(
            f"Replayed in the model, logged actions earn what a constant predicts as well after "
            f"{loop.lasting} of {loop.compared} steps: train the model longer or on more data, or "
            "use a shorter horizon."
        )
    noise = None if loop is None else loop.return_bias_error
    if loop is not None and noise is not None and abs(loop.return_bias) > MUCH_BIAS + SURE * noise:
        said.append(
            f"On {loop.episodes} held-out episodes the model's return is off by "
            f"{loop.return_bias:+.2f} ± {noise:.2f} standard deviations of the logged return, and "
            "simulated values are likely off the same way: train the model longer, or use known "
            "rewards."
        )
    error = found.ratio_calibration_error
    if error is not None and error > MUCH_MISCALIBRATED:
        said.append(
            f"The ratio of logged and simulated transitions has a calibration error of "
            f"{error:.2f}: its weights are over- or under-confident; fit it to more episodes, or "
            "use the plain model."
        )
    return said

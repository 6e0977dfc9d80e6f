"""What is known of one policy before its value is estimated."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from lfiw_ope.diagnosis.open_loop import OpenLoop
from lfiw_ope.errors import DataError
from lfiw_ope.estimand import Estimand
from lfiw_ope.stored import Stored


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

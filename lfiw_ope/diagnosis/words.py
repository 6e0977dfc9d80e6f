"""What a diagnosis says in words: what is wrong, and what to do.

Each threshold is where a user should look, no later than where `lfiw_ope.refusal` refuses.
"""

from collections.abc import Collection

from lfiw_ope.diagnosis.concerns import CONCERNS, Concern
from lfiw_ope.diagnosis.record import Diagnosis
from lfiw_ope.pareto import MOST_SHAPE
from lfiw_ope.weighted import LEAST_ESS_FOR_A_STANDARD_ERROR

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

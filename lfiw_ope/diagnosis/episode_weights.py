"""What weights of whole logged episodes would rest on, before anything is weighed with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError, MissingDependencyError, PolicyError
from lfiw_ope.estimand import Estimand
from lfiw_ope.padding import PaddedEpisodes
from lfiw_ope.pareto import LEAST_WEIGHTS, pareto_smooth
from lfiw_ope.policy_ratio.config import BehaviourConfig
from lfiw_ope.policy_ratio.fitted import FittedImportance
from lfiw_ope.policy_ratio.ratio import fit_policy_ratio
from lfiw_ope.types import Policy, Progress
from lfiw_ope.weighting import Weighting


@dataclass(frozen=True)
class EpisodeWeights:
    """Weights Π_t π(a_t | s_t) / μ(a_t | s_t) of whole logged episodes.

    Attributes:
        ess: their effective sample size, 1 to `episodes`; 0 where all weights are 0, as the policy
            never does all that was done in an episode; None where they are not known.
        episodes: logged to the horizon, or to a terminal state.
        pareto_k: k̂ of their tail; None where no tail could be fitted, or arviz-stats is not
            installed.
        unknown: why they are not known; None where they are.
    """

    ess: float | None = None
    episodes: int | None = None
    pareto_k: float | None = None
    unknown: str | None = None


def episode_weights(
    data: Trajectories,
    policies: Sequence[Policy],
    estimand: Estimand,
    behaviour: BehaviourConfig | None,
    seed: int,
    progress: Progress,
) -> list[EpisodeWeights]:
    """Of each policy; where they cannot be known, why.

    Args:
        data: the log.
        policies: any, those without a density too.
        estimand: over whose horizon weights are products.
        behaviour: where its likelihoods come from; None takes logged ones alone.
        seed: of clones.
        progress: told how far their training is.
    """
    if behaviour is None and data.log_prob is None:
        why = (
            "the log carries no likelihoods of the behaviour; DiagnosisConfig(behaviour="
            "BehaviourConfig()) would clone it"
        )
        return [EpisodeWeights(unknown=why)] * len(policies)
    try:
        padded = PaddedEpisodes.of(data, estimand.horizon)
        ratio = fit_policy_ratio(data, behaviour or BehaviourConfig(), seed, progress=progress)
    except DataError as error:
        return [EpisodeWeights(unknown=_within(error))] * len(policies)
    weighting = Weighting(form="trajectory")
    fitted = FittedImportance("weights", estimand, weighting, ratio, padded, seed, {})
    return [_of_policy(fitted, policy) for policy in policies]


def _of_policy(fitted: FittedImportance, policy: Policy) -> EpisodeWeights:
    try:
        found = fitted.estimate(policy)
    except PolicyError as error:
        return EpisodeWeights(unknown=_within(error))
    except DataError:  # there is no mean by weights that are all 0
        return EpisodeWeights(ess=0.0, episodes=len(fitted.padded.rewards))
    shape = None
    if found.log_weights is not None and len(found.log_weights) >= LEAST_WEIGHTS:
        try:
            shape = pareto_smooth(torch.from_numpy(found.log_weights)).shape
        except MissingDependencyError:
            shape = None
    return EpisodeWeights(ess=found.ess, episodes=found.episodes, pareto_k=shape)


def _within(error: Exception) -> str:
    """An error's sentence, within another sentence."""
    return str(error).rstrip(".")

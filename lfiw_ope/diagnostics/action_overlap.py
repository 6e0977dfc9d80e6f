"""Overlap of target and logged actions, and of whole episodes' weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.core.errors import DataError, MissingDependencyError, PolicyError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Policy, Progress
from lfiw_ope.core.seeding import derive, torch_generator
from lfiw_ope.data.censoring import PaddedEpisodes
from lfiw_ope.data.tensors import TransitionTensors
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnostics.config import DiagnosisConfig, Half
from lfiw_ope.estimators.importance import FittedImportance
from lfiw_ope.nn.batched_mlp import Standardiser
from lfiw_ope.policies.likelihood import TargetPolicies
from lfiw_ope.ratios.behaviour_cloning import BehaviourConfig
from lfiw_ope.ratios.calibration import log_loss
from lfiw_ope.ratios.classifier import (
    ClassifierConfig,
    ClassifierEnsemble,
    Pair,
    TwoSampleObjective,
    fit_classifiers,
)
from lfiw_ope.ratios.policy_ratio import fit_policy_ratio
from lfiw_ope.stats.intervals import IntervalConfig
from lfiw_ope.stats.weighting import Weighting
from lfiw_ope.stats.weights import LEAST_WEIGHTS, pareto_smooth

FARTHEST = 10.0
"""Standard deviations that features are clipped to: no policy's actions blow a classifier up."""


@dataclass(frozen=True)
class ActionOverlap:
    """How well a classifier tells a policy's actions from the logged ones, on unseen episodes.

    Attributes:
        accuracy: balanced; 0.5 is chance, and 1 means that the log never does what the policy does.
        auc: probability that a target action looks more like the target's than a logged one does;
            0.5 is chance.
        log_loss: in nats; log 2 = 0.693 is chance.
    """

    accuracy: float
    auc: float
    log_loss: float


class _Actions(TwoSampleObjective):
    """(s, a_π) against (s, a) at the same logged states, for P policies × the two halves.

    Every policy has the same batches and initial weights, so that it gets the same alone and beside
    others. Member 2p + h learns of policy p from half h.
    """

    batches = 2

    def __init__(
        self,
        classifiers: ClassifierEnsemble,
        inputs: Standardiser,
        halves: tuple[Half, Half],
        policies: TargetPolicies,
        seed: int,
    ) -> None:
        self.classifiers, self.inputs = classifiers, inputs
        self.learned, self.held_out = (
            self._pairs([getattr(half, part) for half in halves], policies, derive(seed, part))
            for part in ("learned", "stopping")
        )
        self.rows = self.learned[0].shape[1]
        middle = self.held_out[0].shape[1] // 2
        self.halves = middle, middle

    def _pairs(
        self, parts: Sequence[TransitionTensors], policies: TargetPolicies, seed: int
    ) -> Pair:
        """`[2 P, n, F]`, of the target's actions and of the logged ones."""
        of_target, of_log = [], []
        for half, part in enumerate(parts):
            action = policies.act(part.state, derive(seed, str(half)))
            state = part.state.expand(policies.count, -1, -1)
            of_target.append(self._features(state, action))
            of_log.append(self._features(state, part.action.expand_as(action)))
        target, logged = (torch.stack(of, 1).flatten(0, 1) for of in (of_target, of_log))
        return target, logged

    def _features(self, state: Tensor, action: Tensor) -> Tensor:
        found: Tensor = self.inputs(torch.cat((state, action), -1))
        return found.clamp(-FARTHEST, FARTHEST)

    def batch(self, rows: Tensor, generator: torch.Generator) -> Pair:  # noqa: ARG002
        chosen = rows.repeat(len(self.learned[0]) // 2, 1)[..., None]
        target, logged = (of.take_along_dim(chosen, 1) for of in self.learned)
        return target, logged

    @torch.no_grad()
    def logits_of_the_other_half(self) -> Pair:
        """`[P, 2 (n + m)]` calibrated, none by a classifier that saw the episode."""
        found = []
        for place in (0, 1):
            every = torch.cat((self.learned[place], self.held_out[place]), 1)
            shape = (-1, 2, *every.shape[1:])
            swapped = every.view(shape).flip(1).view(every.shape)
            logits = self.classifiers.calibration(self.classifiers.member_logits(swapped))
            found.append(logits.view(len(every) // 2, -1))
        return found[0], found[1]


def action_overlap(
    halves: tuple[Half, Half],
    policies: TargetPolicies,
    config: DiagnosisConfig,
    seed: int,
    progress: Progress,
) -> list[ActionOverlap]:
    """Of each policy; all are trained in one call.

    A classifier of one half of the episodes judges the other, both ways.

    Args:
        halves: of the log, on the device of the configuration.
        policies: P of them.
        config: of the classifiers.
        seed: of weights, batches and the policies' noise.
        progress: told how far training is.

    Raises:
        DivergedError: if a classifier's loss stops being finite.
    """
    seed = derive(seed, "diagnosis", "overlap")
    both = torch.cat([torch.cat((half.state, half.action), -1) for half in halves])
    settings = ClassifierConfig(
        members=2 * policies.count, hidden=config.hidden, average="estimates", fit=config.fit
    )
    classifiers = ClassifierEnsemble(settings, both.shape[1])
    start = ClassifierEnsemble(
        ClassifierConfig(members=2, hidden=config.hidden),
        both.shape[1],
        torch_generator(seed, "weights"),
    )
    with torch.no_grad():
        for many, two in zip(
            classifiers.network.parameters(), start.network.parameters(), strict=True
        ):
            many.copy_(two.repeat(policies.count, 1, 1))
    objective = _Actions(
        classifiers.to(both.device),
        Standardiser.of_chunks((both,)).to(both.device),
        halves,
        policies,
        seed,
    )
    batches = torch_generator(seed, "batches", device=both.device)
    fit_classifiers(objective, batches, progress=progress)
    target, logged = (logits.cpu().double() for logits in objective.logits_of_the_other_half())
    return [_told_apart(*pair) for pair in zip(target, logged, strict=True)]


def _told_apart(target: Tensor, logged: Tensor) -> ActionOverlap:
    """From logits `[n]` of either."""
    from scipy.stats import rankdata  # as long to import as all of this package

    right = _above(target) + 1.0 - _above(logged)
    ranks = rankdata(torch.cat((target, logged)).numpy())
    n = len(target)
    auc = (np.sum(ranks[:n]) - n * (n + 1) / 2) / (n * len(logged))
    loss = float(log_loss(target, logged))
    return ActionOverlap(accuracy=right / 2, auc=float(auc), log_loss=loss)


def _above(logits: Tensor) -> float:
    """Share above 0, and half of those that are 0."""
    return float(((logits > 0).double() + 0.5 * (logits == 0).double()).mean())


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
    fitted = FittedImportance(
        label="weights",
        estimand=estimand,
        weighting=weighting,
        interval=IntervalConfig(method="none"),
        ratio=ratio,
        padded=padded,
        seed=seed,
        seconds={},
    )
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

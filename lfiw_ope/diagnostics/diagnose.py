"""Whether data, and a model where there is one, can tell the value of policies."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import overload

import numpy as np

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.policy_batch import check_policy
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.seeding import derive
from lfiw_ope.core.validation import whole
from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnostics.action_overlap import action_overlap, episode_weights
from lfiw_ope.diagnostics.config import DiagnosisConfig, draw_halves
from lfiw_ope.diagnostics.diagnosis import Diagnosis, warnings_of
from lfiw_ope.diagnostics.open_loop import open_loop
from lfiw_ope.diagnostics.rollouts import LoggedGround
from lfiw_ope.diagnostics.support import ActionSupport
from lfiw_ope.dynamics.ensemble import EnsembleDynamics
from lfiw_ope.estimators.base import spaces_of
from lfiw_ope.policies.likelihood import TargetPolicies
from lfiw_ope.ratios.transition_ratio import TransitionRatio

AT_ONCE = 64
"""Policies whose classifiers are trained in one call."""

NO_MODEL = "no fitted model was given"


@overload
def diagnose(
    data: Trajectories,
    policies: Policy,
    estimand: Estimand,
    *,
    config: DiagnosisConfig | None = ...,
    dynamics: EnsembleDynamics | None = ...,
    ratio: TransitionRatio | None = ...,
    held_out: Sequence[int] = ...,
    seed: int,
    progress: Progress = ...,
) -> Diagnosis: ...
@overload
def diagnose(
    data: Trajectories,
    policies: Sequence[Policy],
    estimand: Estimand,
    *,
    config: DiagnosisConfig | None = ...,
    dynamics: EnsembleDynamics | None = ...,
    ratio: TransitionRatio | None = ...,
    held_out: Sequence[int] = ...,
    seed: int,
    progress: Progress = ...,
) -> list[Diagnosis]: ...
def diagnose(
    data: Trajectories,
    policies: Policy | Sequence[Policy],
    estimand: Estimand,
    *,
    config: DiagnosisConfig | None = None,
    dynamics: EnsembleDynamics | None = None,
    ratio: TransitionRatio | None = None,
    held_out: Sequence[int] = (),
    seed: int,
    progress: Progress = silent,
) -> Diagnosis | list[Diagnosis]:
    """What is known of policies before their values are estimated; no truth is needed.

    Of each policy: how well its actions are told from the logged ones, the share of them outside
    what the log has, what weights of logged episodes would rest on; with a model also where its
    rollouts go, how far its members disagree there, and how its error grows on held-out episodes.
    A policy gets the same numbers alone and beside others. At the default settings it takes seconds
    a policy, however long the log is.

    Args:
        data: the log.
        policies: one, or several.
        estimand: whose value is asked for.
        config: how closely to look; the defaults where None.
        dynamics: fitted to the same log, such as `FittedModel.dynamics`; None looks at no model.
        ratio: of logged against simulated transitions, whose report is repeated.
        held_out: episodes that the dynamics did not learn from; all are taken where there is none.
        seed: of everything that is random.
        progress: told how far the work is.

    Raises:
        PolicyError: if one is no policy for these data, or fails at their states.
        DataError: if there are fewer than 2 episodes, or one stands there twice.
        ConfigError: if the seed is none, or the dynamics are of another log.
        DivergedError: if a training or a simulation leaves the finite numbers.
    """
    every = list(policies) if isinstance(policies, Sequence) else [policies]
    progress = _named(progress)
    config = DiagnosisConfig() if config is None else config
    seed = whole("The seed", seed, least=0)
    require_episodes(data, 2, "actions are judged beside those of other episodes")
    if dynamics is not None:
        _check_model(dynamics, held_out, data)
    state_size, action_size, kind = spaces_of(data)
    for policy in every:
        check_policy(policy, state_size=state_size, action_size=action_size, action_kind=kind)
    found = list(_of_data(data, every, estimand, config, seed, progress)) if every else []
    if dynamics is not None and every:
        found = _with_model(found, data, every, config, dynamics, ratio, held_out, seed, progress)
    told = [replace(one, warnings=warnings_of(one)) for one in found]
    return told if isinstance(policies, Sequence) else told[0]


def diagnose_model(
    known: Sequence[Diagnosis],
    data: Trajectories,
    policies: Sequence[Policy],
    *,
    dynamics: EnsembleDynamics,
    ratio: TransitionRatio | None = None,
    held_out: Sequence[int] = (),
    config: DiagnosisConfig | None = None,
    seed: int,
    progress: Progress = silent,
) -> list[Diagnosis]:
    """What `diagnose` with a model says, from what it said without; data are not looked at anew.

    Args:
        known: of the policies, in their order, by the same settings and seed.
        data, policies, dynamics, ratio, held_out, config, seed, progress: see `diagnose`.

    Raises:
        ConfigError, DivergedError: as `diagnose`.
    """
    config = DiagnosisConfig() if config is None else config
    _check_model(dynamics, held_out, data)
    found = _with_model(
        known, data, policies, config, dynamics, ratio, held_out, seed, _named(progress)
    )
    return [replace(one, warnings=warnings_of(one)) for one in found]


def _named(progress: Progress) -> Progress:
    """The same, told of stages of their own: an estimator has a classifier and a rollout too."""

    def told(stage: str, done: int, total: int, note: str = "") -> None:
        progress(f"diagnosis: {stage}", done, total, note)

    return told


def _check_model(dynamics: EnsembleDynamics, held_out: Sequence[int], data: Trajectories) -> None:
    if dynamics.state_size != data.state_size:
        raise ConfigError(
            f"The dynamics are of {dynamics.state_size} state entries, and the log has "
            f"{data.state_size}; give diagnose the log that they were fitted to."
        )
    if max(held_out, default=0) >= data.num_episodes:
        raise ConfigError(
            f"held_out names episode {max(held_out)}, and the log has {data.num_episodes}; give "
            "diagnose the log that the dynamics were fitted to."
        )


def _of_data(
    data: Trajectories,
    policies: Sequence[Policy],
    estimand: Estimand,
    config: DiagnosisConfig,
    seed: int,
    progress: Progress,
) -> Iterator[Diagnosis]:
    """What data and policies say without a model."""
    log = DeviceLog.of(data, config.device)
    halves = draw_halves(log, config.transitions, seed)
    support = ActionSupport.of(halves, data.action_spec.kind, config.neighbours)
    returns = data.returns(estimand.horizon, estimand.discount)
    acting = derive(seed, "diagnosis", "actions")
    weights = episode_weights(data, policies, estimand, config.behaviour, seed, progress)
    for start in range(0, len(policies), AT_ONCE):
        some = TargetPolicies(policies[start : start + AT_ONCE], config.device)
        some.probe(support.state[:2])
        overlaps = action_overlap(halves, some, config, seed, progress)
        actions = some.act(support.state, acting)
        for place, overlap in enumerate(overlaps):
            weight = weights[start + place]
            yield Diagnosis(
                estimand=estimand,
                seed=seed,
                return_spread=float(returns.std()),
                # A half of a single episode stops by the rows that it learns from.
                transitions=min(sum(len(half.state) for half in halves), data.num_transitions),
                logged_transitions=data.num_transitions,
                action_accuracy=overlap.accuracy,
                action_auc=overlap.auc,
                action_log_loss=overlap.log_loss,
                actions_outside=support.outside(actions[place]),
                logged_actions_outside=support.logged_outside,
                ess=weight.ess,
                episodes=weight.episodes,
                pareto_k=weight.pareto_k,
                no_weights=weight.unknown,
                no_model=NO_MODEL,
            )


def _with_model(
    found: Sequence[Diagnosis],
    data: Trajectories,
    policies: Sequence[Policy],
    config: DiagnosisConfig,
    dynamics: EnsembleDynamics,
    ratio: TransitionRatio | None,
    held_out: Sequence[int],
    seed: int,
    progress: Progress,
) -> list[Diagnosis]:
    """The same, with what the model says."""
    horizon, unseen = found[0].estimand.horizon, np.array(sorted(held_out), np.int64)
    loop = open_loop(
        data,
        dynamics,
        unseen,
        horizon=horizon,
        most=config.open_loop_episodes,
        seed=seed,
    )
    log = DeviceLog.of(data, dynamics.low.device)
    ground = LoggedGround(log, unseen.tolist(), dynamics, horizon, config, seed)
    report = None if ratio is None else ratio.report
    return [
        replace(
            one,
            steps=where.steps,
            states_outside=where.states_outside,
            states_outside_by_step=where.states_outside_by_step,
            disagreement=where.disagreement,
            disagreement_by_step=where.disagreement_by_step,
            open_loop=loop,
            ratio_accuracy=None if report is None else report.accuracy,
            ratio_calibration_error=None if report is None else report.calibration_error,
            no_model=None,
        )
        for one, where in zip(found, ground.excursions(policies, progress), strict=True)
    ]

"""Anchors: policies whose value the log tells, where the model's bias can be measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.behaviour_return import mean_return
from lfiw_ope.checks import whole
from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.errors import DataError
from lfiw_ope.estimand import Estimand
from lfiw_ope.intervals.simulated import SimulatedIntervalConfig, clustered
from lfiw_ope.members import member_values
from lfiw_ope.padding import PaddedEpisodes, known_steps
from lfiw_ope.policies.stacking import check_policy, group_policies, probe
from lfiw_ope.policy_ratio.clone import ClonedBehaviour, fit_behaviour
from lfiw_ope.policy_ratio.config import BehaviourConfig
from lfiw_ope.resampling import NO_RESAMPLING, Resampling
from lfiw_ope.rollout import simulate
from lfiw_ope.seeding import derive
from lfiw_ope.types import LogRatio, Policy, Progress, silent
from lfiw_ope.weighted import weigh
from lfiw_ope.weighting import Weighting


@dataclass(frozen=True, eq=False)
class Anchor:
    """A policy, and the logged episodes that it made: their mean return is its value.

    Attributes:
        policy: such as the behaviour itself, a clone of it, or a snapshot whose episodes a replay
            holds.
        episodes: their numbers in the log; None for all.
    """

    policy: Policy
    episodes: Sequence[int] | None = None


@dataclass(frozen=True)
class AnchorGap:
    """What the model says of an anchor, and what the log says.

    Attributes:
        model: the simulated value.
        logged: the mean return of the anchor's episodes.
        standard_error: of their difference: simulation, starts and logged returns, paired by
            episode; the fit is taken as given. None where the logged value has none.
        members: `[M]`, the simulated value under each member.
        stretch: what the estimand's horizon is to the steps that the log knows, Σ_{t<T} γ^t over
            both; 1 where it knows them all.
    """

    model: float
    logged: float
    standard_error: float | None
    members: tuple[float, ...]
    stretch: float = 1.0

    @property
    def gap(self) -> float:
        """The model's error on this anchor, over the estimand's horizon."""
        return (self.model - self.logged) * self.stretch


def clones(
    data: Trajectories,
    parts: int = 1,
    config: BehaviourConfig | None = None,
    seed: int = 0,
    *,
    progress: Progress = silent,
) -> list[Anchor]:
    """Clones of consecutive parts of the log, each an anchor with the part's episodes.

    With one part, of the behaviour. With several, of what acted at each time: in the replay of a
    training, its history. A clone is not what it clones, and what its value differs by is counted
    as the model's error, too.

    Args:
        data: the log, its episodes in the order that they were made.
        parts: how many.
        config: of the clones; as small as those that an interval makes for itself where none is
            given.
        seed: of their training.
        progress: told how far it is.

    Raises:
        DataError: if a part has too few episodes for its clone.
        DivergedError: if the training of a clone diverges.
    """
    whole("parts", parts, least=1)
    config = SimulatedIntervalConfig().clone if config is None else config
    if data.num_episodes < 3 * parts:
        raise DataError(
            f"The data hold {data.num_episodes} episodes, too few for clones of {parts} parts: "
            "each needs 3 or more."
        )
    found = []
    for number, episodes in enumerate(np.array_split(np.arange(data.num_episodes), parts)):
        part = data if parts == 1 else data.select(episodes.tolist())
        clone = clone_part(part, config, seed, number, progress=progress)
        found.append(Anchor(clone.policy, episodes.tolist()))
    return found


def clone_part(
    data: Trajectories,
    config: BehaviourConfig,
    seed: int,
    number: int = 0,
    *,
    progress: Progress = silent,
) -> ClonedBehaviour:
    """The clone that `clones` makes of one part of a log; with one part, of the whole log."""
    return fit_behaviour(data, config, derive(seed, "anchor", str(number)), progress=progress)


def measure(
    anchors: Sequence[Anchor],
    data: Trajectories,
    dynamics: EnsembleDynamics,
    estimand: Estimand,
    *,
    rollouts: int,
    seed: int,
    ratio: LogRatio | None = None,
    resampling: Resampling = NO_RESAMPLING,
    progress: Progress = silent,
) -> tuple[AnchorGap, ...]:
    """The model's error on each anchor.

    Args:
        anchors: policies with their episodes.
        data: the log.
        dynamics: the model.
        estimand: T and γ; where the log is cut short of T, the errors are over what it knows.
        rollouts: n, of each anchor.
        seed: of every draw, as the simulation of the target has it.
        ratio: of logged against simulated transitions, where steps are resampled by it.
        resampling: of the simulated steps.
        progress: told how far the simulation is.

    Raises:
        PolicyError: if an anchor's policy cannot act at the log's initial states.
        DataError: if an anchor's episodes are not in the data.
    """
    return tuple(
        _measure(anchor, data, dynamics, estimand, rollouts, seed, ratio, resampling, progress)
        for anchor in anchors
    )


def _measure(
    anchor: Anchor,
    data: Trajectories,
    dynamics: EnsembleDynamics,
    estimand: Estimand,
    rollouts: int,
    seed: int,
    ratio: LogRatio | None,
    resampling: Resampling,
    progress: Progress,
) -> AnchorGap:
    part = _logged_by(anchor, data)
    steps = known_steps(part, estimand.horizon)
    known = Estimand(steps, estimand.discount)
    starts = torch.from_numpy(part.initial_states.copy()).to(dynamics.low.device)
    logged = mean_return(PaddedEpisodes.of(part, steps), estimand.discount)
    (group,) = group_policies([anchor.policy], starts.device, 1)  # on the model's device
    probe(group.policy, starts[:2][None])
    rollout = simulate(
        group.policy,
        dynamics,
        starts,
        horizon=steps,
        rollouts=rollouts,
        seed=seed,
        ratio=ratio,
        resampling=resampling,
        progress=progress,
    )
    rewards = rollout.discounted(estimand.discount)[0]
    simulated = weigh(rewards, rewards, Weighting(form="uniform"))
    error = None
    if logged.mc_standard_error is not None and logged.influence is not None:
        assert simulated.influence is not None  # of plain rollouts there always is
        error = _paired(simulated.influence.cpu(), rollout.starts.cpu(), logged.influence)
    each = member_values(
        [anchor.policy], dynamics, starts, known, rollouts=rollouts, seed=seed, progress=progress
    )
    return AnchorGap(
        model=simulated.value,
        logged=logged.value,
        standard_error=error,
        members=tuple(each[0].tolist()),
        stretch=_steps(estimand) / _steps(known),
    )


def _paired(simulated: Tensor, starts: Tensor, logged: Tensor) -> float:
    """Of the difference: a rollout and the episode whose start it has are one cluster."""
    every = torch.cat((starts, torch.arange(len(logged))))
    return clustered(torch.cat((simulated, -logged)), every).standard_error


def _steps(estimand: Estimand) -> float:
    """Σ_{t<T} γ^t"""
    return float(np.power(estimand.discount, np.arange(estimand.horizon)).sum())


def check_anchors(anchors: Sequence[Anchor], data: Trajectories) -> None:
    """That each is a policy for these data with episodes of theirs, before anything is fitted.

    Raises:
        PolicyError: if one is no policy for them.
        DataError: if an anchor's episodes are not in the data.
    """
    sizes = {"state_size": data.state_size, "action_size": data.action_size}
    for anchor in anchors:
        check_policy(anchor.policy, **sizes, action_kind=data.action_spec.kind)
        _logged_by(anchor, data)


def _logged_by(anchor: Anchor, data: Trajectories) -> Trajectories:
    """The anchor's episodes."""
    if anchor.episodes is None:
        return data
    part = data.select(list(anchor.episodes))
    require_episodes(part, 1, "their mean return is the anchor's value")
    return part

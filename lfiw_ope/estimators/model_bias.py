"""The bias of simulated values, measured on policies whose value the log tells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.core.errors import DataError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.policy_batch import check_policy, group_policies, probe
from lfiw_ope.core.protocols import LogRatio, Policy, Progress, silent
from lfiw_ope.core.seeding import derive
from lfiw_ope.core.validation import whole
from lfiw_ope.data.censoring import PaddedEpisodes, known_steps
from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics.ensemble import EnsembleDynamics
from lfiw_ope.dynamics.rollout import ROWS_AT_ONCE, simulate
from lfiw_ope.estimators.behaviour import mean_return
from lfiw_ope.estimators.simulation_intervals import (
    SimulatedIntervalConfig,
    bias_aware,
    clustered,
    combined,
    spread_of,
)
from lfiw_ope.ratios.behaviour_cloning import BehaviourConfig, ClonedBehaviour, fit_behaviour
from lfiw_ope.stats.intervals import Interval, student_t
from lfiw_ope.stats.weighted_mean import WeightedValue, weigh
from lfiw_ope.stats.weighting import Weighting

LEAST_ROLLOUTS = 50
"""Of each member, where n / M is less."""


def one_member(dynamics: EnsembleDynamics, number: int) -> EnsembleDynamics:
    """The ensemble's member of this number as a model of its own; it shares the parameters."""
    one = EnsembleDynamics(
        replace(dynamics.config, members=1),
        dynamics.inputs,
        dynamics.targets,
        (dynamics.low, dynamics.high),
        state_size=dynamics.state_size,
        learns_termination=dynamics.learns_termination,
        reward=dynamics.reward_rule,
        termination=dynamics.termination_rule,
    )
    one.network, one.noise = dynamics.network.member(number), dynamics.noise.of_member(number)
    return one.requires_grad_(False)


def member_values(
    policies: Sequence[Policy],
    dynamics: EnsembleDynamics,
    initial_states: Tensor,
    estimand: Estimand,
    *,
    rollouts: int,
    seed: int,
    progress: Progress = silent,
) -> Tensor:
    """`[P, M]` float64, on the CPU: the value of each policy where one member simulates throughout.

    All members start at the same states and draw the same numbers, so that what they differ by is
    little blurred by noise. Each has n / M rollouts (and `LEAST_ROLLOUTS` at least): together as
    much as one more simulation of the ensemble.

    Args:
        policies: P.
        dynamics: the ensemble.
        initial_states: `[N, S]`, on the model's device.
        estimand: T and γ.
        rollouts: n, of the ensemble's own simulation.
        seed: of every draw, as the ensemble's own simulation has it.
        progress: told how far the simulation is.
    """
    members = dynamics.config.members
    views = [one_member(dynamics, number) for number in range(members)]
    each = max(math.ceil(rollouts / members), min(rollouts, LEAST_ROLLOUTS))
    values = torch.zeros((len(policies), members), dtype=torch.float64)
    for group in group_policies(policies, initial_states.device, max(1, ROWS_AT_ONCE // each)):
        for number, view in enumerate(views):
            rollout = simulate(
                group.policy,
                view,
                initial_states,
                horizon=estimand.horizon,
                rollouts=each,
                seed=seed,
                policies=len(group.indices),
                progress=progress,
            )
            returns = rollout.discounted(estimand.discount).sum(-1)
            values[list(group.indices), number] = returns.mean(-1).cpu()
    return values


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
    candidates: int = 1,
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
        ratio: of logged against simulated transitions, where steps are chosen by it.
        candidates: that each simulated step is chosen from.
        progress: told how far the simulation is.

    Raises:
        PolicyError: if an anchor's policy cannot act at the log's initial states.
        DataError: if an anchor's episodes are not in the data.
    """
    return tuple(
        _measure(anchor, data, dynamics, estimand, rollouts, seed, ratio, candidates, progress)
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
    candidates: int,
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
        candidates=candidates,
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


@dataclass(frozen=True)
class Told:
    """What an estimate says of its own error; its fields are named as `Estimate`'s."""

    intervals: tuple[Interval, ...] = ()
    no_interval: str | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SimulatedError:
    """What is known of the error of the values that one model simulates.

    Attributes:
        config: which intervals are wanted.
        member_episodes: what each member learned from, see `DynamicsConfig`.
        gaps: the model's error on anchors.
        members: `[P, M]` float64, the plain model's value of each policy under each member; None
            where it was not simulated.
        seconds: wall-clock that simulating them took.
    """

    config: SimulatedIntervalConfig
    member_episodes: str
    gaps: tuple[AnchorGap, ...] = ()
    members: Tensor | None = None
    seconds: float = 0.0

    def told(self, weighted: WeightedValue, starts: Tensor, policy: int) -> Told:
        """Of one policy's value, by any form of weights.

        Simulation noise and that of starts are the form's own. The members' spread and the bias are
        the plain model's for all forms: weights are there to make the bias smaller, and how much
        smaller they made it nobody can see without the truth.

        Args:
            weighted: the value.
            starts: `[n]`, where each rollout began.
            policy: its row of `members`.
        """
        missing = self._missing(weighted)
        if missing is not None:
            return Told(no_interval=missing)
        plain_error = weighted.mc_standard_error
        assert plain_error is not None  # without it something is missing
        levels = self.config.levels
        if self.config.method == "simulation":
            free = max(len(weighted.log_weights) - 1, 1)
            found = student_t(weighted.value, plain_error, free, levels=levels, method="simulation")
            return Told(intervals=found)
        assert self.members is not None
        noise = clustered(weighted.influence, starts)
        values = self.members[policy].tolist()
        if not np.isfinite(values).all():
            return Told(no_interval="Simulation in single members left the finite numbers.")
        jackknife = self.member_episodes == "jackknife"
        spread = spread_of(values, jackknife=jackknife)
        bias = bias_bound(self.gaps, spread.standard_error, jackknife=jackknife)
        whole = combined(noise, spread)
        method = "total" if self.gaps else "total without bias"
        numbers = {
            "standard_error": whole.standard_error,
            "start_noise": math.sqrt(max(noise.standard_error**2 - plain_error**2, 0.0)),
            "member_spread": spread.standard_error,
        }
        if self.gaps:
            numbers |= {"anchor_gap": root_mean_square([one.gap for one in self.gaps])}
            numbers |= {"bias_bound": bias}
        return Told(
            intervals=bias_aware(weighted.value, whole, bias, levels=levels, method=method),
            diagnostics=numbers,
        )

    def _missing(self, weighted: WeightedValue) -> str | None:
        """Why there can be no interval, in a sentence."""
        if self.config.method == "none":
            return 'None was asked for: the method of its interval settings is "none".'
        if weighted.mc_standard_error is None:
            return "The weights rest on too few rollouts to know how noisy the value is."
        if self.config.method == "simulation":
            return None
        if self.member_episodes == "all":
            return (
                "The members of the dynamics learned from the same episodes, and their spread does "
                'not say what another log would change: set member_episodes="jackknife".'
            )
        if self.members is None or self.members.shape[1] < 2:
            return (
                "The dynamics are a single network, which does not say how far another fit would "
                "be off: use members=2 or more."
            )
        if not self.gaps and self.config.anchors != "none":
            return "The log has too few episodes to clone its policy and measure the model's bias."
        return None


def root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))


def bias_bound(gaps: Sequence[AnchorGap], spread: float, *, jackknife: bool = False) -> float:
    """How large the model's bias on a target may be, from its errors on anchors.

        b = √(g² + s_a²) · max(1, s / s_a)

    g is the root mean square of the gaps, s_a that of the standard errors over members of the
    anchors' values, s the standard error over members of the target's (`spread_of`). A gap as large
    as the bias has the fit's noise on it, so that a small one shows no more than that the bias is
    not much larger than s_a. And the further a policy leads from the data the more members
    disagree: the bias that they share is taken to grow as they do. The gaps hold the noise of
    simulation and logged returns as well, which is not taken out.

    It is a bound where these assumptions hold, and no proof: what all members get wrong where no
    anchor goes, it does not see.

    Args:
        gaps: of the anchors; without any it is 0.
        spread: s.
        jackknife: whether members left out a group of episodes each.
    """
    if not gaps:
        return 0.0
    spreads = [
        one.stretch * spread_of(one.members, jackknife=jackknife).standard_error for one in gaps
    ]
    there = root_mean_square(spreads)
    growth = max(1.0, spread / there) if there > 0 else 1.0
    return math.hypot(root_mean_square([one.gap for one in gaps]), there) * growth

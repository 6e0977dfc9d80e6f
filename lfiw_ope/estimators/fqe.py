"""Fitted Q evaluation: the value of a learned Q at the logged initial states."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.core.errors import DataError, DivergedError
from lfiw_ope.core.estimand import Estimand, has_time
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.seeding import derive, torch_generator
from lfiw_ope.data.tensors import DeviceLog, MemberRows, bootstrapped, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimators.fqe_networks import (
    BellmanError,
    FQEConfig,
    ValueNetworks,
    ValueScale,
    slow_to_reach,
)
from lfiw_ope.estimators.per_policy import PerPolicyEstimator
from lfiw_ope.nn.batched_mlp import Standardiser
from lfiw_ope.nn.training import Settling, autocast, fit
from lfiw_ope.policies.likelihood import LARGEST_GROUP, TargetPolicies
from lfiw_ope.stats.intervals import Uncertainty, member_intervals

MUCH_MOVED = 0.02
MUCH_BOUNDED = 0.1


@dataclass(frozen=True)
class QReport:
    """How the training for one policy went.

    Attributes:
        member_values: `[M]`, each member's value at the logged initial states.
        bootstrap_values: `[M]`, each at those of the episodes that it drew.
        td_error: root mean squared TD error, in units of value, since the last look.
        bounded_share: of the bootstrapped values since the last look, those that rewards do not
            allow, by far, and that were put on the bounds of what they do.
        settling: of the mean over members at some initial states.
        scale: of values: the larger of this value and of the logged returns' standard deviation.
        seconds: of the training, which policies share.
    """

    member_values: tuple[float, ...]
    bootstrap_values: tuple[float, ...]
    td_error: float
    bounded_share: float
    settling: Settling
    scale: float
    seconds: float

    @property
    def member_spread(self) -> float:
        """Standard deviation over members; 0 of a single one, which does not know it."""
        values = self.member_values
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    @property
    def diagnostics(self) -> dict[str, float]:
        """The numbers, by name."""
        return {
            "member_spread": self.member_spread,
            "td_error": self.td_error,
            "bounded_share": self.bounded_share,
            **self.settling.diagnostics,
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, and what to do."""
        said = self.settling.warnings(MUCH_MOVED * self.scale)
        if self.bounded_share > MUCH_BOUNDED:
            said.append(
                f"{self.bounded_share:.0%} of the bootstrapped values lay far beyond what the "
                "logged rewards allow and were put on the bound: the training diverges, and its "
                "value means nothing. Use a log that covers the policy better, or an estimator "
                "that does not bootstrap (IS, LFIW, ModelBased)."
            )
        return tuple(said)


def reports(
    record: Tensor,
    values: Tensor,
    drawn_values: Tensor,
    *,
    spread: float,
    updates: int,
    every: int,
    seconds: float,
) -> list[QReport]:
    """Of P policies.

    Args:
        record: `[looks, 3, P, M]`, see `lfiw_ope.estimators.fqe_networks.Course`.
        values: `[M, P]` at the end, over all initial states.
        drawn_values: `[M, P]`, over those of the episodes that the member drew.
        spread: standard deviation of the logged returns.
        updates: how many were run.
        every: updates between two looks.
        seconds: they took.
    """
    settled = Settling.of(record[:, 0].mean(-1), updates=updates, every=every)
    error, beyond = record[-1, 1].mean(-1).sqrt(), record[-1, 2].mean(-1)
    return [
        QReport(
            member_values=tuple(values[:, place].tolist()),
            bootstrap_values=tuple(drawn_values[:, place].tolist()),
            td_error=float(error[place]),
            bounded_share=float(beyond[place]),
            settling=settled[place],
            scale=max(spread, abs(float(values[:, place].mean()))),
            seconds=seconds,
        )
        for place in range(values.shape[1])
    ]


ROWS_AT_ONCE = 1 << 10
"""States evaluated together. A number of its own, and not made from P: the noise of actions is
drawn for so many at a time, and is the same for a policy alone and among others."""

VALUES_AT_ONCE = 1 << 26
"""Outputs of a hidden layer that are held together, by all networks: 256 MB."""


@dataclass(frozen=True)
class StateValue:
    """V of P policies by M members each.

    Attributes:
        networks: Q.
        policies: the P policies.
        samples: K, actions drawn at a state; 1 where no policy acts with noise.
        seed: of their noise: a state's value is the same whenever it is asked for.
    """

    networks: ValueNetworks
    policies: TargetPolicies
    samples: int
    seed: int

    @torch.no_grad()
    def __call__(self, state: Tensor, step: Tensor) -> Tensor:
        """V_t `[P, M, n]` at states `[n, S]` and steps `[n]`; 0 at t = T."""
        horizon = self.networks.scale.estimand.horizon
        found = []
        for part, rows in enumerate(_parts(len(state))):
            here, seed = state[rows], derive(self.seed, "state value", str(part))
            actions = self.policies.samples(here, self.samples, seed)
            values = action_values(self.networks, here, actions, step[rows].clamp_max(horizon - 1))
            found.append(values.masked_fill(step[rows] >= horizon, 0.0))
        return torch.cat(found, -1)


@dataclass(frozen=True)
class FittedQ:
    """Q of P policies over what remains of the horizon; an `lfiw_ope.core.ActionValue`.

    The networks are those that followed the trained ones: a running mean of their weights, which
    jitters less.

    Attributes:
        members: V of each policy and member.
        member_values: `[M, P]` float64, mean V_0 over the logged initial states, by member.
        reports: how the training went, by policy.
    """

    members: StateValue
    member_values: Tensor
    reports: tuple[QReport, ...]

    @property
    def values(self) -> Tensor:
        """`[P]` float64, mean V_0 over the logged initial states and the members."""
        return self.member_values.mean(0)

    @torch.no_grad()
    def action_value(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """Q_t `[P, n]` at states `[n, S]`, actions `[n, A]` and steps t `[n]`, below T."""
        found = [
            action_values(self.members.networks, state[rows], action[None, None, rows], step[rows])
            for rows in _parts(len(state))
        ]
        return torch.cat(found, -1).mean(1)

    def state_value(self, state: Tensor, step: Tensor) -> Tensor:
        """V_t `[P, n]` at states `[n, S]` and steps t `[n]`, a mean over K draws; 0 at t = T."""
        return self.members(state, step).mean(1)


def action_values(networks: ValueNetworks, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
    """Q_t `[P, M, n]`, mean over K: states `[n, S]`, actions `[P or 1, K, n, A]`, steps `[n]`."""
    scale, config = networks.scale, networks.config
    features = networks.features(state, action, step).flatten(1, 2)[:, None]
    each = networks.policies * config.members * max(config.hidden, default=1)
    parts = torch.split(features, max(1, VALUES_AT_ONCE // each), 2)
    with autocast(features.device, config.fit.precision):
        output = torch.cat([networks.outputs(networks.following, part) for part in parts], -1)
    mean = output.view(*output.shape[:2], *action.shape[1:3]).mean(2)
    return scale.value(mean, scale.left(step))


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE))


HIDDEN_AT_ONCE = 1 << 26
"""Outputs of a hidden layer that networks trained in one call may have together: 256 networks at
the default settings, which with gradients and AdamW's moments take about 1 GB. More policies are
trained in several calls, with the same numbers."""

STATES_AT_A_LOOK = 1 << 9


def fit_q(
    data: Trajectories,
    policies: Sequence[Policy],
    estimand: Estimand,
    config: FQEConfig,
    seed: int,
    *,
    episodes: Sequence[int] | None = None,
    progress: Progress = silent,
) -> FittedQ:
    """Fitted Q evaluation (Le, Voloshin, Yue 2019) of P policies at once.

        Q_t(s, a) = E[ r + γ (1 − terminated) V_{t+1}(s') | s, a ],   V_t(s) = E_{a ~ π}[Q_t(s, a)]

    Batches, initial weights and the noise of actions are shared by the policies: each gets the
    value that it would get alone.

    Args:
        data: the log.
        policies: P, one or more.
        estimand: T and γ.
        config: networks and training.
        seed: of everything that is random.
        episodes: those to learn from; all where none are named. The value is over the initial
            states of all in any case.
        progress: told how far training is.

    Raises:
        ConfigError: if time is "none" and nothing is discounted.
        DataError: if there is no episode to learn from.
        PolicyError: if a policy cannot act at logged states.
        DivergedError: if a network stops being finite.
    """
    return _Fit(data, policies, estimand, config, seed, episodes).run(progress)


class _Fit:
    """What the policies' trainings share."""

    def __init__(
        self,
        data: Trajectories,
        policies: Sequence[Policy],
        estimand: Estimand,
        config: FQEConfig,
        seed: int,
        episodes: Sequence[int] | None,
    ) -> None:
        self.policies, self.config, self.seed = list(policies), config, seed
        chosen = np.arange(data.num_episodes) if episodes is None else np.asarray(episodes)
        if not chosen.size:
            raise DataError("There is no episode to learn from; at least one is needed.")
        self.device = torch.device(config.device)
        self.log = DeviceLog.of(data, self.device)
        rows = self.log.rows_of(chosen.tolist())
        self.scale = ValueScale.of(
            self.log.rewards[rows],
            estimand,
            has_time=has_time(estimand, config.time),
            terminates=bool(data.terminated[chosen].any()),
        )
        self.spread = float(data.returns(estimand.horizon, estimand.discount).std())
        self.inputs = Standardiser.of_chunks(self.log.inputs(rows)).to(self.device)
        self.drawn = bootstrapped(chosen, config.members, seed, "fitted q")
        self.rows = MemberRows.of(self.log, self.drawn)
        self.initial_states = torch.from_numpy(data.initial_states).to(self.device)
        drawing = torch_generator(seed, "fitted q", "looks", device=self.device)
        places = torch.arange(len(self.initial_states), device=self.device)
        self.watched = self.initial_states[thin(places, STATES_AT_A_LOOK, drawing)]

    def run(self, progress: Progress) -> FittedQ:
        started = time.perf_counter()
        parts, records, order = [], [], []
        everyone = TargetPolicies(self.policies, self.device)
        everyone.probe(self.initial_states[:2])
        groups = everyone.trained_together(self.log, self._largest)
        for chosen, settled in groups:
            networks, record = self._train([self.policies[i] for i in chosen], settled, progress)
            parts.append(networks)
            records.append(record)
            order += chosen
        back = torch.tensor(order).argsort()
        networks = self._networks(len(order))
        networks.take(parts, back)
        samples = max(self._samples(settled) for _, settled in groups)
        state_value = StateValue(networks, everyone, samples, self.seed)
        at_start = torch.zeros(len(self.initial_states), dtype=torch.int64, device=self.device)
        by_start = state_value(self.initial_states, at_start).double().cpu()
        values = by_start.mean(-1).T
        drawn = [by_start[:, m, episodes].mean(-1) for m, episodes in enumerate(self.drawn)]
        told = reports(
            torch.cat(records, 2)[:, :, back],
            values,
            torch.stack(drawn),
            spread=self.spread,
            updates=self.config.fit.updates,
            every=self.config.fit.evaluate_every,
            seconds=time.perf_counter() - started,
        )
        return FittedQ(state_value, values, tuple(told))

    def _samples(self, settled: bool) -> int:
        """K of policies; one draw says all of those that act without noise."""
        return 1 if settled else self.config.action_samples

    def _largest(self, settled: bool) -> int:
        """Policies that may be trained together, by whether they act without noise."""
        config, samples = self.config, self._samples(settled)
        each = config.members * config.fit.batch_size * samples * max(config.hidden, default=1)
        return max(1, min(HIDDEN_AT_ONCE // each, LARGEST_GROUP))

    def _networks(self, policies: int) -> ValueNetworks:
        generator = torch_generator(self.seed, "fitted q", "weights")
        made = ValueNetworks(self.config, policies, self.inputs, self.scale, generator)
        return made.to(self.device)

    def _train(
        self, policies: list[Policy], settled: bool, progress: Progress
    ) -> tuple[ValueNetworks, Tensor]:
        config, acting = self.config, TargetPolicies(policies, self.device)
        samples = self._samples(settled)
        networks = self._networks(len(policies))
        noise = derive(self.seed, "fitted q", "initial actions")
        actions = acting.samples(self.watched, samples, noise)
        at_start = torch.zeros(len(self.watched), dtype=torch.int64, device=self.device)
        objective = BellmanError(
            networks,
            self.log,
            self.rows,
            acting,
            samples=samples,
            next_actions=acting.next_actions(self.log) if settled else None,
            initial=networks.features(self.watched, actions, at_start),
            seed=derive(self.seed, "fitted q", "actions"),
        )
        generator = torch_generator(self.seed, "fitted q", "batches", device=self.device)
        fit(networks.trained, objective, config.fit, generator, stage="fitted Q", progress=progress)
        if not networks.finite():
            raise DivergedError(
                "Training of the fitted Q diverged: a network's weights are not finite; lower "
                f"learning_rate (now {config.fit.learning_rate:g})."
            )
        networks.requires_grad_(False)
        return networks, objective.course.record


class FQE(PerPolicyEstimator[FQEConfig]):
    """v̂(π) = mean over logged initial states of V̂_0(s), with Q̂ of `lfiw_ope.estimators.fit_q`.

    `Estimate.diagnostics` has: `member_spread`, the standard deviation over members; `td_error`,
    the root mean squared TD error at the end, in units of value; `bounded_share`, of the
    bootstrapped values at the end those that rewards do not allow; `drift`, how far the value
    moved from the third to the last quarter of the training, and `wobble`, its standard deviation
    there; `updates`. The standard error and the intervals are of the members' spread
    (`lfiw_ope.stats.member_intervals`).

    The arguments are `lfiw_ope.estimators.per_policy.PerPolicyEstimator`'s.
    """

    label = "FQE"
    default_config = FQEConfig

    def train(
        self, data: Trajectories, policies: Sequence[Policy], seed: int, progress: Progress
    ) -> FittedQ:
        return fit_q(data, policies, self.estimand, self.config, seed, progress=progress)

    def uncertainty(self, value: float, report: QReport) -> Uncertainty:
        return member_intervals(value, report.bootstrap_values, self.config.interval)

    def warnings(self) -> tuple[str, ...]:
        return (*super().warnings(), *slow_to_reach(self.estimand, self.config))

"""Fitting Q of many policies to one log."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.data.member_rows import MemberRows, bootstrapped
from lfiw_ope.data.tensors import DeviceLog, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError, DivergedError
from lfiw_ope.estimand import Estimand, has_time
from lfiw_ope.fitted_q.config import FQEConfig
from lfiw_ope.fitted_q.networks import ValueNetworks
from lfiw_ope.fitted_q.objective import BellmanError
from lfiw_ope.fitted_q.report import reports
from lfiw_ope.fitted_q.scale import ValueScale
from lfiw_ope.fitted_q.value import FittedQ, StateValue
from lfiw_ope.nn.ensemble import Standardiser
from lfiw_ope.nn.fit import fit
from lfiw_ope.policies.together import LARGEST_GROUP, TargetPolicies
from lfiw_ope.seeding import derive, torch_generator
from lfiw_ope.types import Policy, Progress, silent

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

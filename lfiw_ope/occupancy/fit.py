"""Fitting the occupancy ratios of many policies to one log."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.data.tensors import DeviceLog, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError, DivergedError
from lfiw_ope.estimand import Estimand, has_time
from lfiw_ope.nn.ensemble import Standardiser
from lfiw_ope.nn.fit import fit
from lfiw_ope.nn.settling import Settling
from lfiw_ope.occupancy.config import DICEConfig
from lfiw_ope.occupancy.flow import LoggedFlow
from lfiw_ope.occupancy.networks import SaddleNetworks
from lfiw_ope.occupancy.objective import Lagrangian, ratios
from lfiw_ope.occupancy.ratio import OccupancyRatio
from lfiw_ope.occupancy.report import RatioReport
from lfiw_ope.occupancy.violation import violation
from lfiw_ope.policies.together import TargetPolicies
from lfiw_ope.seeding import derive, torch_generator
from lfiw_ope.types import Policy, Progress, silent

NETWORKS_AT_ONCE = 256
"""Policies trained in one call: with gradients and AdamW's moments, below 1 GB at the default
widths. More are trained in several calls, with the same numbers."""

RATIOS_AT_ONCE = 1 << 25
"""Ratios of all logged transitions that policies trained in one call may have: 256 MB an array."""

ROWS_AT_A_LOOK = 1 << 12


def fit_dice(
    data: Trajectories,
    policies: Sequence[Policy],
    estimand: Estimand,
    config: DICEConfig,
    seed: int,
    *,
    episodes: Sequence[int] | None = None,
    progress: Progress = silent,
) -> OccupancyRatio:
    """The occupancy ratios of P policies at once, by the regularised Lagrangian.

    Yang, Nachum, Dai, Li, Schuurmans (2020), "Off-policy evaluation via the regularized
    Lagrangian"; the equation is in `lfiw_ope.occupancy.flow`, the saddle point in
    `lfiw_ope.occupancy.objective`. Batches, initial weights and the noise of actions are shared by
    the policies: each gets the ratio that it would get alone.

    Args:
        data: the log.
        policies: P, one or more.
        estimand: T and γ.
        config: networks and training.
        seed: of everything that is random.
        episodes: those to learn from, and to normalise over; all where none are named.
        progress: told how far training is.

    Raises:
        ConfigError: if time is "none" and nothing is discounted.
        DataError: if there is no episode to learn from, or over T steps the longest of them were
            cut short of the horizon.
        PolicyError: if a policy cannot act at logged states.
        DivergedError: if a network stops being finite.
    """
    return _Fit(data, policies, estimand, config, seed, episodes).run(progress)


class _Solved(NamedTuple):
    """What policies that were trained together came to."""

    factors: Tensor
    values: Tensor
    reports: list[RatioReport]


class _Fit:
    """What the policies' trainings share."""

    def __init__(
        self,
        data: Trajectories,
        policies: Sequence[Policy],
        estimand: Estimand,
        config: DICEConfig,
        seed: int,
        episodes: Sequence[int] | None,
    ) -> None:
        self.policies, self.config, self.seed = list(policies), config, seed
        chosen = np.arange(data.num_episodes) if episodes is None else np.asarray(episodes)
        if not chosen.size:
            raise DataError("There is no episode to learn from; at least one is needed.")
        device = torch.device(config.device)
        with_time = has_time(estimand, config.time)
        self.device, self.horizon = device, estimand.horizon if with_time else None
        self.log = DeviceLog.of(data, device)
        self.flow = LoggedFlow.of(data, self.log, chosen.tolist(), estimand, has_time=with_time)
        self.spread = float(data.returns(estimand.horizon, estimand.discount).std())
        self.inputs = Standardiser.of_chunks(self.log.inputs(self.flow.rows)).to(device)
        self.initial_states = torch.from_numpy(data.initial_states[chosen]).to(device)
        drawing = torch_generator(seed, "dice", "looks", device=device)
        places = torch.arange(len(self.flow.rows), device=device)
        self.watched = thin(places, ROWS_AT_A_LOOK, drawing)

    def run(self, progress: Progress) -> OccupancyRatio:
        started = time.perf_counter()
        parts: list[SaddleNetworks] = []
        solved: list[_Solved] = []
        order: list[int] = []
        everyone = TargetPolicies(self.policies, self.device)
        everyone.probe(self.initial_states[:2])
        largest = max(1, min(NETWORKS_AT_ONCE, RATIOS_AT_ONCE // len(self.flow.rows)))
        for chosen, settled in everyone.trained_together(self.log, lambda _: largest):
            policies = [self.policies[i] for i in chosen]
            networks, looks = self._train(policies, settled, progress)
            parts.append(networks)
            solved.append(self._solved(networks, policies, looks))
            order += chosen
        back = torch.tensor(order).argsort()
        networks = self._networks(len(order))
        networks.take(parts, back)
        networks.requires_grad_(False)
        reports = [report for part in solved for report in part.reports]
        seconds = time.perf_counter() - started
        return OccupancyRatio(
            networks,
            torch.cat([part.factors for part in solved])[back.to(self.device)],
            torch.cat([part.values for part in solved])[back],
            tuple(replace(reports[place], seconds=seconds) for place in back.tolist()),
        )

    def _solved(self, networks: SaddleNetworks, policies: list[Policy], looks: Tensor) -> "_Solved":
        flow, places = self.flow, torch.arange(len(self.flow.rows), device=self.device)
        zeta = ratios(networks, self.log, flow, places)
        factors = flow.normalisers(zeta)
        ratio = zeta * factors[:, flow.step]
        if not ratio.isfinite().all():
            raise DivergedError(
                "The ratio that DICE came to has no mass, or is not finite; lower learning_rate "
                f"(now {self.config.fit.learning_rate:g}) or use positivity='softplus'."
            )
        earned = flow.weight * flow.reward_weight * self.log.rewards[flow.rows].double()
        values = (ratio * earned).mean(-1).cpu()
        weighted = ratio * flow.weight
        ess = weighted.sum(-1).square() / weighted.square().sum(-1)
        violated = violation(
            networks, self.log, flow, self.initial_states, policies, ratio, self.seed
        )
        training = self.config.fit
        settled = Settling.of(looks, updates=training.updates, every=training.evaluate_every)
        reports = [
            RatioReport(
                ess=float(ess[place]),
                rows=len(places),
                mass=float((1.0 / factors[place]).mean()),
                violation=float(violated.ratio[place]),
                behaviour_violation=float(violated.behaviour[place]),
                behaviour_z=float(violated.behaviour_z[place]),
                left=float(violated.left[place]),
                settling=settled[place],
                scale=max(self.spread, abs(float(values[place]))),
                seconds=0.0,
            )
            for place in range(len(values))
        ]
        return _Solved(factors, values, reports)

    def _networks(self, policies: int) -> SaddleNetworks:
        generator = torch_generator(self.seed, "dice", "weights")
        made = SaddleNetworks(self.config, policies, self.inputs, self.horizon, generator)
        return made.to(self.device)

    def _train(
        self, policies: list[Policy], settled: bool, progress: Progress
    ) -> tuple[SaddleNetworks, Tensor]:
        config, acting = self.config, TargetPolicies(policies, self.device)
        networks = self._networks(len(policies))
        objective = Lagrangian(
            networks,
            self.log,
            self.flow,
            self.initial_states,
            acting,
            next_actions=acting.next_actions(self.log, self.flow.rows) if settled else None,
            watched=self.watched,
            seed=derive(self.seed, "dice", "actions"),
        )
        generator = torch_generator(self.seed, "dice", "batches", device=self.device)
        fit(networks, objective, config.fit, generator, stage="DICE", progress=progress)
        if not all(bool(values.isfinite().all()) for values in objective.averaged.parameters()):
            raise DivergedError(
                "Training of DICE diverged: a network's weights are not finite; lower "
                f"learning_rate (now {config.fit.learning_rate:g})."
            )
        return objective.averaged, torch.stack(objective.looks)

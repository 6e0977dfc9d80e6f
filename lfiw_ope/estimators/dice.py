"""DICE: logged rewards weighted by the ratio of occupancies."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.core.errors import DataError, DivergedError
from lfiw_ope.core.estimand import Estimand, has_time
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.seeding import derive, torch_generator
from lfiw_ope.data.tensors import ROWS_AT_ONCE, DeviceLog, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimators.dice_lagrangian import (
    DICEConfig,
    Lagrangian,
    LoggedFlow,
    SaddleNetworks,
    ratios,
    violation,
)
from lfiw_ope.estimators.per_policy import PerPolicyEstimator
from lfiw_ope.nn.batched_mlp import Standardiser
from lfiw_ope.nn.training import Settling, fit
from lfiw_ope.policies.likelihood import TargetPolicies
from lfiw_ope.stats.intervals import Uncertainty, no_interval

SURE = 4.5
"""Standard errors beyond which a violation is none of the log's noise: of a thousand test
functions, one gets there by chance in 150 logs."""

SMALL = 0.1
"""A violation, in standard deviations of a test function, that is none to speak of: what a log's
end leaves of a discounted occupancy, say."""

MUCH_LEFT = 0.5
FLAT = 0.95
MUCH_MOVED = 0.05


@dataclass(frozen=True)
class RatioReport:
    """How the training for one policy went.

    The flow equation (`lfiw_ope.estimators.dice_lagrangian`) is tried on test functions: entries of
    state and action and their squares, standardised, and with time as input these times the step.
    Its violation is the root mean square over them, in standard deviations of a test function and
    steps of its equation.

    Attributes:
        ess: effective sample size of ω over the logged transitions.
        rows: how many these are.
        mass: of ζ before it is normalised, mean over steps; 1 where it solves the equation.
        violation: by ω.
        behaviour_violation: by the behaviour's own occupancy, which an ω that learns nothing has.
        behaviour_z: the largest of its entries, in their standard errors over episodes. Small
            where the log cannot tell the policy from the behaviour.
        left: how much of the behaviour's violation ω has too, as a share: its component along it,
            1 for the behaviour's own occupancy and 0 for a solution.
        settling: of the value at some transitions.
        scale: of values: the larger of this value and of the logged returns' standard deviation.
        seconds: of the training, which policies share.
    """

    ess: float
    rows: int
    mass: float
    violation: float
    behaviour_violation: float
    behaviour_z: float
    left: float
    settling: Settling
    scale: float
    seconds: float

    @property
    def diagnostics(self) -> dict[str, float]:
        """The numbers, by name."""
        names = ("ess", "mass", "violation", "behaviour_violation", "behaviour_z", "left")
        return {name: float(getattr(self, name)) for name in names} | self.settling.diagnostics

    @property
    def stuck(self) -> bool:
        """Whether ω is the log's own, or leaves most of what the behaviour surely violates."""
        return self._differs and (self.left > MUCH_LEFT or self.ess > FLAT * self.rows)

    @property
    def _differs(self) -> bool:
        """Whether the log tells the policy's occupancy from the behaviour's."""
        return self.behaviour_z > SURE and self.behaviour_violation > SMALL

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, and what to do."""
        said = []
        if self.stuck:
            said.append(
                f"DICE is stuck at the behaviour: its ratio leaves {self.left:.0%} of the "
                "violation of the flow equation that the behaviour's own occupancy has, at an "
                f"effective sample size of {self.ess / self.rows:.0%}; raise updates or "
                "learning_rate."
            )
        elif self._differs and self.violation > self.behaviour_violation:
            said.append(
                f"DICE's ratio violates the flow equation by {self.violation:.2g}, more than the "
                f"behaviour's own occupancy ({self.behaviour_violation:.2g}): it is mostly noise; "
                "raise updates, or use a log that covers the policy better."
            )
        said += self.settling.warnings(MUCH_MOVED * self.scale)
        if self.ess < 0.01 * self.rows:
            said.append(
                f"{self.ess:.0f} of {self.rows} logged transitions carry the weight: the log "
                "hardly goes where the policy does; use a log that covers the policy better."
            )
        return tuple(said)


@dataclass(frozen=True)
class OccupancyRatio:
    """ω = d^π / d^D of P policies, self-normalised over the episodes that it was fitted to.

    Without time, d^π is the discounted, normalised occupancy and d^D the logged transitions, all
    alike. With time, ω_t is of step t of π over step t of the log. Where episodes terminate, ω has
    mass below 1, by what the absorbing state holds; see `lfiw_ope.estimators.dice_lagrangian`.

    Attributes:
        networks: ζ is the ratio before it is normalised.
        factors: `[P, T]` float64, what ζ_t is multiplied by; `[P, 1]` without time.
        values: `[P]` float64, of the policies: mean rewards weighted by ω.
        reports: how the training went, by policy.
    """

    networks: SaddleNetworks
    factors: Tensor
    values: Tensor
    reports: tuple[RatioReport, ...]

    @property
    def has_time(self) -> bool:
        """Whether ω depends on the step."""
        return self.networks.horizon is not None

    @torch.no_grad()
    def ratio(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """ω `[P, n]` float64 at states `[n, S]`, actions `[n, A]` and steps t `[n]`, below T.

        Without time as input, the steps are not looked at.
        """
        factors = self.factors.to(state.device)
        found = []
        for start in range(0, len(state), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            features = self.networks.features(state[rows], action[rows], step[rows])
            place = step[rows] if self.has_time else torch.zeros_like(step[rows])
            found.append(self.networks.zeta(features).double() * factors[:, place])
        return torch.cat(found, -1)


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
    Lagrangian"; the equation is in `lfiw_ope.estimators.dice_lagrangian`, the saddle point in
    `lfiw_ope.estimators.dice_lagrangian`. Batches, initial weights and the noise of actions are
    shared by the policies: each gets the ratio that it would get alone.

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


class DICE(PerPolicyEstimator[DICEConfig]):
    """v̂(π) = E_D[ω r] / (1 − γ), or Σ_t γ^t E_{D_t}[ω_t r_t]: rewards by π's occupancy.

    ω is learned by `lfiw_ope.estimators.fit_dice` (Yang et al. 2020) and self-normalised. It
    needs neither densities nor a model, and no ratio is a product over steps.

    There is no standard error: ω solves an equation on the very log whose rewards it weighs, and a
    spread of ω r over episodes would take it as given; `Refitted` fits it again.
    `Estimate.diagnostics` has those of `lfiw_ope.estimators.dice.RatioReport`.

    The arguments are `lfiw_ope.estimators.per_policy.PerPolicyEstimator`'s.
    """

    label = "DICE"
    default_config = DICEConfig

    def train(
        self, data: Trajectories, policies: Sequence[Policy], seed: int, progress: Progress
    ) -> OccupancyRatio:
        return fit_dice(data, policies, self.estimand, self.config, seed, progress=progress)

    def uncertainty(self, value: float, report: RatioReport) -> Uncertainty:  # noqa: ARG002
        return Uncertainty(
            None,
            no_interval(
                "The ratio is learned on the very log that it weighs, so that the log's spread "
                "under it is not the estimate's; wrap it in Refitted, which fits it again."
            ),
        )

"""A fitted dynamics model with what a simulated value needs besides it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.errors import ConfigError
from lfiw_ope.estimand import Estimand
from lfiw_ope.policies.stacking import check_policy, group_policies, probe
from lfiw_ope.ratio import TransitionRatio
from lfiw_ope.results import Estimate
from lfiw_ope.rollout import Rollout, simulate
from lfiw_ope.types import Policy, Progress, silent
from lfiw_ope.weights import Weighting, weigh

ROWS_AT_ONCE = 100_000
"""Rollouts times draws that are simulated in one call: about 1 GB at the default widths. More
policies are simulated in several calls, with the same numbers."""

MOST_BOUNDED = 0.05
"""Share of simulated steps on the model's bounds above which an estimate warns."""


@dataclass(frozen=True)
class FittedModel:
    """A dynamics model with what a simulated value needs besides it. Serves any policy.

    Attributes:
        estimand: what is estimated.
        dynamics: the fitted ensemble.
        ratio: the fitted density ratio, or None for the plain model.
        initial_states: `[N, S]`, on the model's device.
        action_size: A.
        action_kind: of the data's actions.
        weighting: the form of the weights, where `estimate` is not told another.
        rollouts: n, of each policy.
        draws: K, for conditional normalisation.
        seed: of the fit and of every rollout.
        seconds: wall-clock of each stage of the fit.
    """

    estimand: Estimand
    dynamics: EnsembleDynamics
    ratio: TransitionRatio | None
    initial_states: Tensor
    action_size: int
    action_kind: Literal["continuous", "discrete"]
    weighting: Weighting
    rollouts: int
    draws: int
    seed: int
    seconds: dict[str, float] = field(default_factory=dict)

    @overload
    def estimate(self, policies: Policy, *, progress: Progress = ...) -> Estimate: ...
    @overload
    def estimate(
        self, policies: Sequence[Policy], *, progress: Progress = ...
    ) -> list[Estimate]: ...
    def estimate(
        self, policies: Policy | Sequence[Policy], *, progress: Progress = silent
    ) -> Estimate | list[Estimate]:
        """The value of a policy, or of several in one batched simulation.

        Raises:
            PolicyError: if one is no policy for these data; none is simulated then.
            DivergedError: if the simulation leaves the finite numbers.
        """
        every = policies if isinstance(policies, Sequence) else [policies]
        forms = self.estimate_forms(every, [self.weighting], progress=progress)
        estimates = [of_policy[0] for of_policy in forms]
        return estimates if isinstance(policies, Sequence) else estimates[0]

    def plain_model(self) -> "FittedModel":
        """The same model without weights: its estimates are those of the same rollouts."""
        return replace(self, weighting=Weighting(form="uniform"))

    def estimate_forms(
        self,
        policies: Sequence[Policy],
        weightings: Sequence[Weighting],
        *,
        progress: Progress = silent,
    ) -> list[list[Estimate]]:
        """Several forms of weights from the same rollouts: for each policy, one estimate a form.

        Raises:
            PolicyError: if one is no policy for these data; none is simulated then.
            ConfigError: if a form needs a ratio or draws that this fit does not have.
            DivergedError: if the simulation leaves the finite numbers.
        """
        for weighting in weightings:
            self._check_weighting(weighting)
        for policy in policies:
            check_policy(
                policy,
                state_size=self.initial_states.shape[1],
                action_size=self.action_size,
                action_kind=self.action_kind,
            )
        found: dict[int, list[Estimate]] = {}
        weighted = any(w.form != "uniform" for w in weightings)
        draws = self.draws if any(w.conditional for w in weightings) else 1
        at_once = max(1, ROWS_AT_ONCE // (self.rollouts * draws))
        groups = group_policies(policies, self.initial_states.device, at_once)
        for group in groups:
            probe(group.policy, self.initial_states[:2].expand(len(group.indices), -1, -1))
        for group in groups:
            started = time.perf_counter()
            together = simulate(
                group.policy,
                self.dynamics,
                self.initial_states,
                horizon=self.estimand.horizon,
                rollouts=self.rollouts,
                seed=self.seed,
                policies=len(group.indices),
                ratio=self.ratio if weighted else None,
                draws=draws,
                progress=progress,
            )
            seconds = time.perf_counter() - started
            rewards = together.discounted(self.estimand.discount)
            for place, index in enumerate(group.indices):
                found[index] = [
                    self._weigh(together, rewards[place], place, w, seconds) for w in weightings
                ]
        return [found[index] for index in range(len(policies))]

    def _check_weighting(self, weighting: Weighting) -> None:
        if weighting.form != "uniform" and self.ratio is None:
            raise ConfigError(
                f"The weighting {weighting.label!r} needs a density ratio, and a plain model was "
                "fitted; fit LFIW instead of ModelBased."
            )
        if weighting.conditional and self.draws < 2:
            raise ConfigError(
                f"Conditional normalisation needs 2 or more draws, and draws is {self.draws}; "
                "raise draws in the configuration."
            )

    def _weigh(
        self, rollout: Rollout, rewards: Tensor, place: int, weighting: Weighting, seconds: float
    ) -> Estimate:
        """One policy's estimate, from its discounted rewards `[n, T]` in rollouts of several."""
        log_ratio = rollout.conditional_log_ratio if weighting.conditional else rollout.log_ratio
        ratios = torch.zeros_like(rewards) if log_ratio is None else log_ratio[place]
        weighted = weigh(rewards, ratios, weighting)
        report = None if self.ratio is None or weighting.form == "uniform" else self.ratio.report
        used = {k: v for k, v in self.seconds.items() if k != "classifier" or report is not None}
        ess = float(weighted.ess_by_step.min())
        warnings = []
        bounded_share = float(rollout.bounded_share[place])
        if bounded_share > MOST_BOUNDED:
            warnings.append(
                f"{bounded_share:.0%} of simulated steps left the range of the data and were put "
                "back on its bounds: the policy goes where the model knows nothing; collect data "
                "nearer to it."
            )
        if weighted.mc_standard_error is None:
            warnings.append(
                f"The weights of {weighting.label} rest on {ess:.1f} of {self.rollouts} rollouts, "
                "so its value means little: logged and simulated transitions are too far apart; "
                "use the plain model, or weigh fewer steps."
            )
        return Estimate(
            estimator=weighting.label,
            estimand=self.estimand,
            value=weighted.value,
            mc_standard_error=weighted.mc_standard_error,
            seed=self.seed,
            rollouts=self.rollouts,
            ess=ess,
            bounded_share=bounded_share,
            classifier_log_loss=None if report is None else report.log_loss,
            classifier_accuracy=None if report is None else report.accuracy,
            classifier_temperature=None if report is None else report.temperature,
            seconds={**used, "rollout": seconds},
            warnings=tuple(warnings),
            returns=rewards.sum(-1).cpu().numpy().astype(np.float64),
            log_weights=weighted.log_weights.cpu().numpy(),
            ess_by_step=weighted.ess_by_step.cpu().numpy(),
        )

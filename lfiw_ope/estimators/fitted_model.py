"""A fitted dynamics model, and estimates from its rollouts."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from torch import Tensor

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.policy_batch import group_policies, probe
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.dynamics.ensemble import EnsembleDynamics
from lfiw_ope.dynamics.rollout import ROWS_AT_ONCE, Rollout, simulate
from lfiw_ope.estimators.base import Answering, Spaces
from lfiw_ope.estimators.model_bias import AnchorGap, SimulatedError, member_values
from lfiw_ope.estimators.selection import Candidate, NoiseSelection
from lfiw_ope.estimators.simulation_intervals import SimulatedIntervalConfig
from lfiw_ope.estimators.warnings import (
    Fallback,
    bounds_warning,
    collapse_warning,
    tempering_warning,
)
from lfiw_ope.ratios.transition_ratio import TransitionRatio
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.weighted_mean import WeightedValue, average, weigh
from lfiw_ope.stats.weighting import Weighting
from lfiw_ope.stats.weights import require_finite


@dataclass(frozen=True, kw_only=True)
class Appraisal:
    """What every estimate of one simulation has in common.

    Attributes:
        estimand: what is estimated.
        rollout: of P policies.
        ratio: that the weights come from, or None for the plain model alone.
        error: what is known of the model's error.
        policies: `[P]`, the row of each in `error`.
        seed: of the fit.
        seconds: wall-clock by stage; "classifier" is left out of what does not use it.
        noise: of the simulated step.
        selection: how noise and weights were chosen, if they were.
        notes: warnings of the fit.
    """

    estimand: Estimand
    rollout: Rollout
    ratio: TransitionRatio | None
    error: SimulatedError
    policies: Sequence[int]
    seed: int
    seconds: dict[str, float]
    noise: str
    selection: NoiseSelection | None = None
    notes: tuple[str, ...] = ()

    def estimate(self, place: int, weighting: Weighting) -> Estimate:
        """Of the policy at this place, by this form of weights."""
        rollout = self.rollout
        rewards = rollout.discounted(self.estimand.discount)[place]
        n = len(rewards)
        weighted = self._weigh(rewards, place, weighting)
        used = self.ratio if weighting.needs_ratio else None
        report = None if used is None else used.report
        bounded_share = float(rollout.bounded_share[place])
        ess = float(weighted.ess_by_step.min())
        warnings = [*self.notes, *bounds_warning(bounded_share)]
        if weighted.exponent is not None:
            shaped = (weighting.label, weighted.raw_ess, n, weighted.exponent)
            warnings += tempering_warning(*shaped)
        if weighted.mc_standard_error is None:
            warnings.append(collapse_warning(weighting.label, ess, n))
        told = self.error.told(weighted, rollout.starts, self.policies[place])
        return Estimate(
            estimator=weighting.label,
            estimand=self.estimand,
            value=weighted.value,
            intervals=told.intervals,
            no_interval=told.no_interval,
            diagnostics={**told.diagnostics, **self._losses(), **self._moments(weighting)},
            noise_kind=self.noise,
            mc_standard_error=weighted.mc_standard_error,
            seed=self.seed,
            rollouts=n,
            ess=ess,
            raw_ess=weighted.raw_ess,
            bounded_share=bounded_share,
            first=weighted.first,
            exponent=weighted.exponent,
            pareto_k=weighted.pareto_k,
            clipped_share=weighted.clipped_share,
            classifier_log_loss=None if report is None else report.log_loss,
            classifier_accuracy=None if report is None else report.accuracy,
            classifier_temperature=None if report is None else report.temperature,
            seconds={k: v for k, v in self.seconds.items() if k != "classifier" or used},
            warnings=tuple(warnings),
            returns=rewards.sum(-1).cpu().numpy().astype(np.float64),
            log_weights=weighted.log_weights.cpu().numpy(),
            ess_by_step=weighted.ess_by_step.cpu().numpy(),
        )

    def _losses(self) -> dict[str, float]:
        """The held-out loss and bias of each candidate, with their standard errors."""
        if self.selection is None:
            return {}
        losses = {f"loss[{name}]": of for name, of in self.selection.scores.items()}
        errors = self.selection.standard_errors.items()
        losses |= {f"loss_error[{name}]": of for name, of in errors}
        losses |= {f"bias[{name}]": of for name, of in self.selection.biases.items()}
        errors = self.selection.bias_errors.items()
        return losses | {f"bias_error[{name}]": of for name, of in errors}

    def _moments(self, weighting: Weighting) -> dict[str, float]:
        """What calibration made of the moments, where candidates were chosen by it."""
        if not weighting.calibrated or self.ratio is None or self.ratio.moments is None:
            return {}
        found = self.ratio.moments._asdict()
        return {f"moments.{name}": value for name, value in found.items()}

    def _weigh(self, rewards: Tensor, place: int, weighting: Weighting) -> WeightedValue:
        rollout = self.rollout
        ratios = rollout.conditional_log_ratio if weighting.conditional else rollout.log_ratio
        if weighting.form == "uniform" or ratios is None:
            if ratios is not None and weighting.candidates > 1:  # they chose where it went
                require_finite(ratios[place], "log-ratios")
            return weigh(rewards, rewards, weighting)
        # With separate classifiers there is one set of ratios for each.
        each = ratios[..., place, :, :].reshape(-1, *rewards.shape)
        return average([weigh(rewards, one, weighting) for one in each])


def fall_back(
    weighted: Estimate, plain: Estimate, fallback: Fallback, *, by_ess: bool = False
) -> Estimate:
    """The weighted estimate, or the plain model's value in it where its weights mean nothing.

    Args:
        weighted: of a form of weights.
        plain: of the same policy by the plain model.
        fallback: the thresholds.
        by_ess: whether H was chosen by effective sample size.
    """
    reason = fallback.reason(
        accuracy=weighted.classifier_accuracy,
        raw_ess=weighted.raw_ess,
        rollouts=weighted.rollouts,
        no_ratio_left=by_ess and weighted.first == 0,
    )
    if reason is None:
        return weighted
    said = (
        f"The weights of {weighted.estimator} mean nothing here: {reason}. The value is the plain "
        "model's, which nothing corrects."
    )
    return replace(
        plain,
        estimator=weighted.estimator,
        fell_back=True,
        raw_ess=weighted.raw_ess,
        classifier_log_loss=weighted.classifier_log_loss,
        classifier_accuracy=weighted.classifier_accuracy,
        classifier_temperature=weighted.classifier_temperature,
        seconds=weighted.seconds,
        warnings=(said, *plain.warnings),
    )


@dataclass(frozen=True)
class FittedModel(Answering):
    """A dynamics model with what a simulated value needs besides it. Serves any policy.

    With total intervals `Estimate.diagnostics` has `standard_error`, of simulation, starts and fit
    together; of that `start_noise`, what there being N logged starts adds to the simulation noise,
    and `member_spread`, the standard error over members of the plain model's value;
    `anchor_gap`, the root mean square of the model's errors on anchors, and `bias_bound`, what the
    intervals take the bias on this policy to be at most (`lfiw_ope.estimators.model_bias`).
    Where SIR goes by calibrated moments it has `moments.gap`, `moments.tilted_gap`,
    `moments.candidates` and `moments.tilted_candidates`
    (`lfiw_ope.ratios.transition_ratio.Moments`).

    Attributes:
        estimand: what is estimated.
        dynamics: the fitted ensemble.
        ratio: the fitted density ratio, or None for the plain model. Weighted forms are simulated
            with the noise that it was fitted against, `ratio.dynamics`, whatever noise was chosen.
        calibrated_ratios: by k, the ratio whose moments were calibrated for SIR of k candidates.
        initial_states: `[N, S]`, on the model's device.
        action_size: A.
        action_kind: of the data's actions.
        weighting: the form of the weights, where `estimate` is not told another.
        rollouts: n, of each policy.
        draws: K, for conditional normalisation.
        seed: of the fit and of every rollout.
        fallback: where weights mean nothing and `estimate` gives the plain model's value; None
            gives the weighted value all the same.
        interval: which intervals estimates have.
        gaps: the model's error on anchors, policies whose value the log tells.
        seconds: wall-clock of each stage of the fit.
        held_out: episodes that the dynamics were not trained on, by their number in the log.
        selection: how noise and weights were chosen; None where they were named, or the log has too
            few episodes to choose.
        notes: warnings that every estimate carries.
        label: what estimates are called in place of their form of weights.
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
    fallback: Fallback | None = None
    interval: SimulatedIntervalConfig = field(default_factory=SimulatedIntervalConfig)
    gaps: tuple[AnchorGap, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    held_out: tuple[int, ...] = ()
    selection: NoiseSelection | None = None
    notes: tuple[str, ...] = ()
    label: str | None = None
    calibrated_ratios: dict[int, TransitionRatio] = field(default_factory=dict)

    @property
    def spaces(self) -> Spaces:
        return self.initial_states.shape[1], self.action_size, self.action_kind

    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:
        falls = self.fallback is not None and self.weighting.needs_ratio
        forms = [self.weighting, Weighting(form="uniform")][: 1 + falls]
        found = self.estimate_forms(policies, forms, progress=progress)
        return [self.answer(of_policy[0], of_policy[-1]) for of_policy in found]

    def answer(self, weighted: Estimate, plain: Estimate) -> Estimate:
        """What `estimate` says, from its form's estimate and the plain model's."""
        if self.label is not None:
            return replace(weighted, estimator=self.label)
        if self.fallback is None or not self.weighting.needs_ratio:
            return weighted
        by_ess = self.weighting.first_ess is not None
        return fall_back(weighted, plain, self.fallback, by_ess=by_ess)

    def with_candidate(self, candidate: Candidate) -> "FittedModel":
        """The same fit with this noise of the simulated step, and this many candidates of SIR.

        Args:
            candidate: such as one of those that `LFIW.candidates()` lists.

        Raises:
            ConfigError: if the networks were not trained for that noise, or the ratio was not
                calibrated for so many candidates.
        """
        self._check_weighting(candidate.weighting)
        return replace(
            self,
            dynamics=self.dynamics.with_noise(candidate.noise),
            weighting=candidate.weighting,
            label=None,
        )

    def ratio_for(self, weighting: Weighting) -> TransitionRatio | None:
        """The ratio that a form of weights rests on, if it rests on one."""
        if not weighting.needs_ratio:
            return None
        return self.calibrated_ratios[weighting.candidates] if weighting.calibrated else self.ratio

    def plain_model(self) -> "FittedModel":
        """The same model without weights and without resampling, with the same noise."""
        return replace(self, weighting=Weighting(form="uniform"), label=None)

    def estimate_forms(
        self,
        policies: Sequence[Policy],
        weightings: Sequence[Weighting],
        *,
        progress: Progress = silent,
    ) -> list[list[Estimate]]:
        """Several forms of weights of several policies: for each policy, one estimate a form.

        Forms with different candidates are simulated one after the other, all others are weighed
        from the same rollouts. None falls back to the plain model.

        Raises:
            PolicyError: if one is no policy for these data; none is simulated then.
            ConfigError: if a form needs a ratio or draws that this fit does not have.
            DivergedError: if the simulation leaves the finite numbers.
        """
        if not isinstance(policies, Sequence) or not isinstance(weightings, Sequence):
            raise ConfigError(
                "estimate_forms takes a list of policies and a list of weightings, and one of them "
                "is no list; put a single one into brackets."
            )
        simulations: dict[tuple[int, bool, bool], list[int]] = {}
        for index, weighting in enumerate(weightings):
            self._check_weighting(weighting)
            by_ratio = weighting.needs_ratio and self._noise_was_chosen_without_ratio
            way = weighting.candidates, by_ratio, weighting.calibrated
            simulations.setdefault(way, []).append(index)
        self.check(policies)
        error = self._error(policies, progress)
        found: dict[tuple[int, int], Estimate] = {}
        for (candidates, by_ratio, _), places in simulations.items():
            chosen = [weightings[index] for index in places]
            dynamics = self.ratio.dynamics if by_ratio and self.ratio else self.dynamics
            told = self._simulate(policies, dynamics, candidates, chosen, error, progress)
            for policy_index, of_policy in told:
                for index, estimate in zip(places, of_policy, strict=True):
                    found[policy_index, index] = estimate
        return [[found[p, w] for w in range(len(weightings))] for p in range(len(policies))]

    def _simulate(
        self,
        policies: Sequence[Policy],
        dynamics: EnsembleDynamics,
        candidates: int,
        weightings: Sequence[Weighting],
        error: SimulatedError,
        progress: Progress,
    ) -> Iterator[tuple[int, list[Estimate]]]:
        """Each policy's index, with its estimates by forms with the same candidates."""
        ratio = next(filter(None, map(self.ratio_for, weightings)), None)
        draws = self.draws if any(weighting.conditional for weighting in weightings) else 1
        at_once = max(1, ROWS_AT_ONCE // (self.rollouts * max(draws, candidates)))
        groups = group_policies(policies, self.initial_states.device, at_once)
        for group in groups:
            started = time.perf_counter()
            rollout = simulate(
                group.policy,
                dynamics,
                self.initial_states,
                horizon=self.estimand.horizon,
                rollouts=self.rollouts,
                seed=self.seed,
                policies=len(group.indices),
                ratio=ratio,
                draws=draws,
                candidates=candidates,
                progress=progress,
            )
            before = {**self.seconds, "members": error.seconds}
            seconds = {**before, "rollout": time.perf_counter() - started}
            appraisal = Appraisal(
                estimand=self.estimand,
                rollout=rollout,
                ratio=ratio,
                error=error,
                policies=group.indices,
                seed=self.seed,
                seconds=seconds,
                noise=dynamics.noise.kind,
                selection=self.selection,
                notes=self.notes,
            )
            for place, index in enumerate(group.indices):
                yield index, [appraisal.estimate(place, weighting) for weighting in weightings]

    @property
    def _noise_was_chosen_without_ratio(self) -> bool:
        """Whether the noise is another than the one that the ratio was fitted against."""
        return self.ratio is not None and self.ratio.dynamics.noise.kind != self.dynamics.noise.kind

    def _error(self, policies: Sequence[Policy], progress: Progress) -> SimulatedError:
        """What is known of the model's error on these policies, once for all forms of weights."""
        groups = group_policies(policies, self.initial_states.device, max(1, len(policies)))
        for group in groups:
            probe(group.policy, self.initial_states[:2].expand(len(group.indices), -1, -1))
        config, started = self.dynamics.config, time.perf_counter()
        members = None
        if (
            self.interval.method == "total"
            and config.members > 1
            and config.member_episodes != "all"
        ):
            members = member_values(
                policies,
                self.dynamics,
                self.initial_states,
                self.estimand,
                rollouts=self.rollouts,
                seed=self.seed,
                progress=progress,
            )
        took = time.perf_counter() - started
        return SimulatedError(self.interval, config.member_episodes, self.gaps, members, took)

    def _check_weighting(self, weighting: Weighting) -> None:
        if weighting.needs_ratio and self.ratio is None:
            raise ConfigError(
                f"The weighting {weighting.label!r} needs a density ratio, and a plain model was "
                "fitted; fit LFIW instead of ModelBased."
            )
        if weighting.calibrated and weighting.candidates not in self.calibrated_ratios:
            there = ", ".join(map(str, self.calibrated_ratios)) or "none"
            raise ConfigError(
                f"The ratio was not calibrated for {weighting.candidates} candidates (it was for: "
                f"{there}); leave calibrated=True out, or name that form in LFIWConfig."
            )
        if weighting.conditional and self.draws < 2:
            raise ConfigError(
                f"Conditional normalisation needs 2 or more draws, and draws is {self.draws}; "
                "raise draws in the configuration."
            )

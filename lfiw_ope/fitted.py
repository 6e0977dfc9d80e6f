"""A fitted dynamics model with what a simulated value needs besides it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from lfiw_ope.anchors import AnchorGap
from lfiw_ope.answering import Answering, Spaces
from lfiw_ope.appraisal import Appraisal, fall_back
from lfiw_ope.diagnostics import Fallback
from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.errors import ConfigError
from lfiw_ope.estimand import Estimand
from lfiw_ope.estimators.selection import Candidate, NoiseSelection
from lfiw_ope.intervals.simulated import SimulatedIntervalConfig
from lfiw_ope.members import member_values
from lfiw_ope.policies.stacking import group_policies, probe
from lfiw_ope.ratio import TransitionRatio
from lfiw_ope.resampling import Resampling
from lfiw_ope.results import Estimate
from lfiw_ope.rollout import ROWS_AT_ONCE, simulate
from lfiw_ope.simulated_error import SimulatedError
from lfiw_ope.types import Policy, Progress, silent
from lfiw_ope.weighting import Weighting


@dataclass(frozen=True)
class FittedModel(Answering):
    """A dynamics model with what a simulated value needs besides it. Serves any policy.

    With total intervals `Estimate.diagnostics` has `standard_error`, of simulation, starts and fit
    together; of that `start_noise`, what there being N logged starts adds to the simulation noise,
    and `member_spread`, the standard error over members of the plain model's value;
    `anchor_gap`, the root mean square of the model's errors on anchors, and `bias_bound`, what the
    intervals take the bias on this policy to be at most (`lfiw_ope.simulated_error`).
    Where SIR goes by calibrated moments it has `moments.gap`, `moments.tilted_gap`,
    `moments.candidates` and `moments.tilted_candidates` (`lfiw_ope.ratio.Moments`).

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

        Forms that resample differently while they run are simulated one after the other, all
        others are weighed from the same rollouts. None falls back to the plain model.

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
        simulations: dict[tuple[Resampling, bool, bool], list[int]] = {}
        for index, weighting in enumerate(weightings):
            self._check_weighting(weighting)
            by_ratio = weighting.needs_ratio and self._noise_was_chosen_without_ratio
            way = weighting.resampling, by_ratio, weighting.calibrated
            simulations.setdefault(way, []).append(index)
        self.check(policies)
        error = self._error(policies, progress)
        found: dict[tuple[int, int], Estimate] = {}
        for (resampling, by_ratio, _), places in simulations.items():
            chosen = [weightings[index] for index in places]
            dynamics = self.ratio.dynamics if by_ratio and self.ratio else self.dynamics
            told = self._simulate(policies, dynamics, resampling, chosen, error, progress)
            for policy_index, of_policy in told:
                for index, estimate in zip(places, of_policy, strict=True):
                    found[policy_index, index] = estimate
        return [[found[p, w] for w in range(len(weightings))] for p in range(len(policies))]

    def _simulate(
        self,
        policies: Sequence[Policy],
        dynamics: EnsembleDynamics,
        resampling: Resampling,
        weightings: Sequence[Weighting],
        error: SimulatedError,
        progress: Progress,
    ) -> Iterator[tuple[int, list[Estimate]]]:
        """Each policy's index, with its estimates by forms that share one way of resampling."""
        ratio = next(filter(None, map(self.ratio_for, weightings)), None)
        draws = self.draws if any(weighting.conditional for weighting in weightings) else 1
        at_once = max(1, ROWS_AT_ONCE // (self.rollouts * max(draws, resampling.candidates)))
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
                resampling=resampling,
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

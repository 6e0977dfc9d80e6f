"""Importance sampling: logged returns, weighted by the ratio of policies."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.seeding import derive
from lfiw_ope.data.censoring import PaddedEpisodes
from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimators.base import Answering, Spaces, settings_but
from lfiw_ope.estimators.warnings import (
    cut_short_warning,
    levelled_warning,
    mean_weight_warning,
    overlap_warning,
    tail_warning,
)
from lfiw_ope.ratios.behaviour_cloning import BehaviourConfig
from lfiw_ope.ratios.policy_ratio import PolicyRatio, fit_policy_ratio
from lfiw_ope.stats.bernstein import NO_GUARANTEE, check_returns, weighted_bernstein
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.intervals import (
    IntervalConfig,
    Told,
    check_interval,
    episode_intervals,
    no_interval,
)
from lfiw_ope.stats.weighted_mean import LEAST_ESS_FOR_A_STANDARD_ERROR, WeightedValue, weigh
from lfiw_ope.stats.weighting import Weighting

MOST_NUMBERS = 1 << 24
"""Log-ratios of policies times transitions that are held at once."""

LEAST_MEAN_WEIGHT = 0.9
"""Of whole episodes, for an interval. The mean is 1 in expectation, and below it where heavy
weights happen to be missing, as they mostly are where the policies differ much. Coverage with and
without the rule: `experiments/mean_weight_rule.py`."""

SHAPED = (
    "The weights were clipped or flattened, and the bias of that shows in no spread of them; use "
    "the plain weights for an interval."
)


class MeanWeight(NamedTuple):
    """What the weights of whole episodes come to, by standing."""

    mean: float  # 1 in expectation
    error: float  # standard error of the mean
    zeros: float  # the share of weights that are 0


@dataclass(frozen=True, eq=False)
class FittedImportance(Answering):
    """The behaviour's likelihoods of a log, and how to weigh with them.

    Attributes:
        label: of the estimator.
        estimand: what is estimated.
        weighting: the form of the weights.
        ratio: target over behaviour, of each logged transition.
        padded: the logged episodes side by side.
        interval: how intervals are made.
        seed: of the fit.
        seconds: wall-clock by stage.
    """

    label: str
    estimand: Estimand
    weighting: Weighting
    ratio: PolicyRatio = field(repr=False)
    padded: PaddedEpisodes = field(repr=False)
    interval: IntervalConfig
    seed: int
    seconds: dict[str, float]

    @property
    def spaces(self) -> Spaces:
        return self.ratio.spaces

    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:
        self.ratio.require(policies)
        at_once = max(1, MOST_NUMBERS // len(self.ratio.actions))
        estimates: list[Estimate] = []
        for start in range(0, len(policies), at_once):
            started = time.perf_counter()
            log_ratios = self.ratio.log_ratios(policies[start : start + at_once])
            seconds = {**self.seconds, "ratio": time.perf_counter() - started}
            for log_ratio in log_ratios:
                estimates.append(self._estimate(self.padded.spread(log_ratio), seconds))
                progress(self.label, len(estimates), len(policies))
        return estimates

    def _estimate(self, log_ratio: Tensor, seconds: dict[str, float]) -> Estimate:
        """From log-ratios `[N, T]`, 0 after the end."""
        padded, weighting = self.padded, self.weighting
        rewards = padded.discounted(self.estimand.discount)
        found = weigh(
            rewards, log_ratio, weighting, standing=padded.standing, zeros=True, keep_sums=True
        )
        whole = padded.observed[:, -1]
        stepwise = weighting.form == "stepwise"
        episodes = len(whole) if stepwise else int(whole.sum())
        log_weights = found.log_weights[whole]
        has_returns = bool((log_weights > -torch.inf).any())
        mean_weight = _mean_weight(log_ratio[whole].sum(1), padded.standing[whole, -1])
        told = self._intervals(found, mean_weight, log_ratio.sum(1), rewards.sum(1))
        return Estimate(
            estimator=self.label,
            estimand=self.estimand,
            value=found.value,
            standard_error=found.mc_standard_error,
            intervals=told.intervals,
            no_interval=told.no_interval,
            seed=self.seed,
            episodes=episodes,
            ess=float(found.ess_by_step.min()),
            raw_ess=found.raw_ess,
            exponent=found.exponent,
            pareto_k=found.pareto_k,
            clipped_share=found.clipped_share,
            diagnostics=self._diagnostics(mean_weight),
            seconds=seconds,
            warnings=self._warnings(found, mean_weight, episodes),
            returns=rewards.sum(1)[whole].numpy() if has_returns else None,
            log_weights=log_weights.numpy() if has_returns else None,
            ess_by_step=found.ess_by_step.numpy(),
        )

    def _intervals(
        self, found: WeightedValue, weight: MeanWeight, log_weights: Tensor, returns: Tensor
    ) -> Told:
        """From unshaped log-weights `[N]` of whole episodes and their returns `[N]`."""
        if self.interval.method == "bernstein":
            if self.padded.cut_short or self.ratio.report is not None:
                return no_interval(NO_GUARANTEE)
            weights = log_weights.exp().numpy()
            return weighted_bernstein(weights, returns.numpy(), self.interval, self.seed)
        if self.interval.method != "none":
            tempered = found.exponent is not None and found.exponent < 1.0
            if tempered or self.weighting.exponent != 1.0 or found.clipped_share:
                return no_interval(SHAPED)
            if weight.mean < LEAST_MEAN_WEIGHT:
                return no_interval(
                    f"The mean weight is {weight.mean:.2f} and should be 1: the episodes that "
                    "would count most are missing in this log, and its spread does not show it."
                )
        assert found.sums is not None
        return episode_intervals(
            found.sums,
            standard_error=found.mc_standard_error,
            config=self.interval,
            seed=self.seed,
        )

    def _diagnostics(self, weight: MeanWeight) -> dict[str, float]:
        told = {
            "zero_weights": weight.zeros,
            "cut_short": float(self.padded.cut_short),
            "actions_on_bounds": self.ratio.on_bounds,
        }
        if math.isfinite(weight.mean):
            told["mean_weight"] = weight.mean
        if self.ratio.report is not None:
            told["behaviour_log_likelihood"] = self.ratio.report.log_likelihood
            plain = self.ratio.report.state_independent_log_likelihood
            told["state_independent_log_likelihood"] = plain
        return told

    def _warnings(self, found: WeightedValue, weight: MeanWeight, episodes: int) -> tuple[str, ...]:
        stepwise, cloned = self.weighting.form == "stepwise", self.ratio.report is not None
        cut, logged = self.padded.cut_short, len(self.padded.observed)
        warnings = [
            *self.ratio.warnings,
            *cut_short_warning(cut, logged, stepwise=stepwise),
            *tail_warning(self.label, found.pareto_k),
            *levelled_warning(self.label, found.exponent),
        ]
        if found.mc_standard_error is None:
            ess = float(found.ess_by_step.min())
            warnings.append(overlap_warning(self.label, ess, episodes, cloned=cloned))
            return tuple(warnings)
        if found.exponent is not None and found.raw_ess < LEAST_ESS_FOR_A_STANDARD_ERROR:
            untempered = f"{self.label} before tempering"
            warnings.append(overlap_warning(untempered, found.raw_ess, episodes, cloned=cloned))
        else:
            warnings += mean_weight_warning(weight.mean, weight.error)
        return tuple(warnings)


def _mean_weight(log_weights: Tensor, standing: Tensor) -> MeanWeight:
    """Of unshaped log-weights and standings `[·]` of whole episodes."""
    n, share, weights = len(log_weights), standing / standing.sum(), log_weights.exp()
    mean = (share * weights).sum()
    deviation = share * (weights - mean) * math.sqrt(n / max(n - 1, 1))
    error = float(deviation.square().sum().sqrt())
    # A weight may be too small for a number, too: that is not one of 0.
    return MeanWeight(float(mean), error, float(share[log_weights == -torch.inf].sum()))


@dataclass(frozen=True, kw_only=True)
class ImportanceConfig:
    """Settings of importance sampling. As they stand, its estimates are the textbook's.

    Each of the others trades bias for variance; `lfiw_ope.Weighting` says how.

    Attributes:
        behaviour: where the behaviour's likelihoods come from.
        clip: lowest and highest ratio of a step, such as (0, 10); 0 and infinity leave a side open.
        exponent: α, weights are w^α.
        temper: lower the exponent until the effective sample size is this share of the episodes,
            before those that went on count for those that were cut short.
        pareto: smooth the largest weights (PSIS), and report k̂.
        interval: how intervals are made.
    """

    behaviour: BehaviourConfig = field(default_factory=BehaviourConfig)
    clip: tuple[float, float] | None = None
    exponent: float = 1.0
    temper: float | None = None
    pareto: bool = False
    interval: IntervalConfig = field(default_factory=IntervalConfig)

    def __post_init__(self) -> None:
        check_interval(self.interval)
        self.weighting("trajectory", self_normalised=True)  # checks them

    def weighting(
        self, form: Literal["trajectory", "stepwise"], *, self_normalised: bool
    ) -> Weighting:
        """These settings with a form of weights."""
        return Weighting(
            form=form,
            self_normalised=self_normalised,
            clip=self.clip,
            exponent=self.exponent,
            temper=self.temper,
            pareto=self.pareto,
        )


class ImportanceSampling:
    """What IS, PDIS, WIS and WPDIS share: all but the form of the weights.

    A logged step's ratio is ρ_t = π(a_t | s_t) / μ(a_t | s_t), with μ the behaviour that was logged
    or its clone. Episodes that end early are taken as `lfiw_ope.data.censoring` says: where the
    episode had terminated the weight stays and nothing more is earned; where the log was cut short,
    whole episodes are left out by the trajectory forms, and later steps by the stepwise ones, and
    the episodes that went on count for them too.

    Estimates carry, in `diagnostics`: "mean_weight", of whole episodes by their standing, before
    clipping and the like, 1 in expectation; "zero_weights", the share of them in which the policy
    never does what was logged; "cut_short", episodes; "actions_on_bounds", the share of logged
    actions; and, where the behaviour was cloned, "behaviour_log_likelihood" and
    "state_independent_log_likelihood", of a transition, held-out.

    Args:
        estimand: what is estimated.
        config: settings; the defaults where none are given.
        device: where likelihoods are computed and clones are trained; in place of the
            configuration's.

    Raises:
        ConfigError: if the device is not there.
    """

    label: ClassVar[str]
    form: ClassVar[Literal["trajectory", "stepwise"]]
    self_normalised: ClassVar[bool]

    def __init__(
        self,
        estimand: Estimand,
        config: ImportanceConfig | None = None,
        *,
        device: str | None = None,
    ) -> None:
        self.estimand = estimand
        config = ImportanceConfig() if config is None else config
        if device is not None:
            config = replace(config, behaviour=replace(config.behaviour, device=device))
        self.config = config

    def fit(
        self, data: Trajectories, seed: int, *, progress: Progress = silent
    ) -> FittedImportance:
        """Find the behaviour's likelihoods; the result serves any number of policies.

        Args:
            data: the log.
            seed: of the clones, where the behaviour is cloned; nothing else is random.
            progress: told how far the work is.

        Raises:
            DataError: if there are too few episodes, or one stands there twice, or the longest were
                cut short of the horizon, or likelihoods are wanted that were not logged, or a
                return lies outside the interval's return_range.
            DivergedError: if a clone's training diverges.
        """
        derive(seed, "behaviour")
        require_episodes(data, 2, "a single one has no standard error")
        started = time.perf_counter()
        padded = PaddedEpisodes.of(data, self.estimand.horizon)
        check_returns(padded.discounted(self.estimand.discount).sum(1), self.config.interval)
        return FittedImportance(
            label=self.label,
            estimand=self.estimand,
            weighting=self.config.weighting(self.form, self_normalised=self.self_normalised),
            ratio=fit_policy_ratio(data, self.config.behaviour, seed, progress=progress),
            padded=padded,
            interval=self.config.interval,
            seed=int(seed),
            seconds={"behaviour": time.perf_counter() - started},
        )

    @property
    def sharing_key(self) -> object:
        """All settings but those of the weights' form and of intervals, which train nothing."""
        own = ("clip", "exponent", "temper", "pareto", "interval")
        checked = self.config.interval.return_range  # that no return is beyond it, in the fit
        return ImportanceSampling, checked, settings_but(self, *own)

    def adopt(self, fitted: FittedImportance) -> FittedImportance:
        """Weigh with another's likelihoods; see `lfiw_ope.estimators.SharingEstimator`."""
        weighting = self.config.weighting(self.form, self_normalised=self.self_normalised)
        return replace(fitted, label=self.label, weighting=weighting, interval=self.config.interval)


class IS(ImportanceSampling):
    """v̂ = 1/N Σ_i (Π_t ρ_it) G_i: each episode's return, weighted by its likelihood ratio.

    Unbiased where the behaviour's likelihoods are exact and it takes every action that the target
    does; the variance grows exponentially with the horizon. Kahn and Marshall (1953); Precup,
    Sutton and Singh (2000), "Eligibility traces for off-policy policy evaluation".
    """

    label, form, self_normalised = "IS", "trajectory", False


class PDIS(ImportanceSampling):
    """v̂ = 1/N Σ_i Σ_t γ^t (Π_{u ≤ t} ρ_iu) r_it: each reward, weighted by what led to it.

    Per-decision importance sampling: unbiased as IS, and mostly of less variance, since a reward
    does not depend on later actions. Precup, Sutton and Singh (2000).
    """

    label, form, self_normalised = "PDIS", "stepwise", False


class WIS(ImportanceSampling):
    """v̂ = Σ_i (Π_t ρ_it) G_i / Σ_i Π_t ρ_it: IS by the sum of the weights and not their number.

    Weighted importance sampling: consistent, biased towards the behaviour's value where few
    episodes carry the weights, and never beyond the logged returns. Precup, Sutton and Singh
    (2000).
    """

    label, form, self_normalised = "WIS", "trajectory", True


class WPDIS(ImportanceSampling):
    """v̂ = Σ_t γ^t Σ_i (Π_{u ≤ t} ρ_iu) r_it / Σ_i Π_{u ≤ t} ρ_iu: PDIS normalised at each step.

    Weighted per-decision importance sampling, consistent; Thomas (2015), "Safe reinforcement
    learning", calls it CWPDIS, and has the proof. Precup, Sutton and Singh (2000) divide by
    another sum, which is not consistent.
    """

    label, form, self_normalised = "WPDIS", "stepwise", True

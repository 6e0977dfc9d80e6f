"""Logged episodes weighted by a ratio of policies: what importance sampling answers from."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from lfiw_ope.answering import Answering, Spaces
from lfiw_ope.diagnostics import (
    cut_short_warning,
    levelled_warning,
    mean_weight_warning,
    overlap_warning,
    tail_warning,
)
from lfiw_ope.estimand import Estimand
from lfiw_ope.intervals.bernstein import NO_GUARANTEE, weighted_bernstein
from lfiw_ope.intervals.config import IntervalConfig
from lfiw_ope.intervals.episodes import Told, episode_intervals, no_interval
from lfiw_ope.padding import PaddedEpisodes
from lfiw_ope.policy_ratio.ratio import PolicyRatio
from lfiw_ope.results import Estimate
from lfiw_ope.types import Policy, Progress
from lfiw_ope.weighted import LEAST_ESS_FOR_A_STANDARD_ERROR, WeightedValue, weigh
from lfiw_ope.weighting import Weighting

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

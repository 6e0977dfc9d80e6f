"""A log with policy ratios and a value function: what answers with DR, WDR or MAGIC."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import is_

import torch
from torch import Tensor

from lfiw_ope.answering import Answering, Spaces, spaces_of
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.doubly_robust.config import DoublyRobustConfig
from lfiw_ope.doubly_robust.folds import Fold, Judged, judge
from lfiw_ope.doubly_robust.magic import Blend
from lfiw_ope.doubly_robust.model_value import ModelValue
from lfiw_ope.doubly_robust.saying import BY_PRODUCTS, said_of, value_warnings
from lfiw_ope.doubly_robust.terms import CorrectedValue, Terms
from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.estimand import Estimand
from lfiw_ope.fitted_q.fit import fit_q
from lfiw_ope.padding import PaddedEpisodes
from lfiw_ope.policy_ratio.ratio import PolicyRatio
from lfiw_ope.results import Estimate
from lfiw_ope.seeding import derive
from lfiw_ope.types import ActionValue, Policy, Progress
from lfiw_ope.weights import cumulate

Combine = Callable[[Terms], CorrectedValue]
"""How terms become a value."""


@dataclass(eq=False)
class Kept:
    """What Q̂ said of the log for the last policies, where several estimators want it.

    Attributes:
        shared: whether there are several: one alone has no use for it, and needs the memory.
        policies: that it is of.
        judged: what Q̂ said.
        warnings: what is to be said of Q̂, by policy.
    """

    shared: bool = False
    policies: tuple[Policy, ...] = ()
    judged: Judged | None = None
    warnings: tuple[tuple[str, ...], ...] = ()

    def is_of(self, policies: Sequence[Policy]) -> bool:
        """Whether it is of these very policies, in this order."""
        return len(policies) == len(self.policies) and all(map(is_, policies, self.policies))


@dataclass(frozen=True, eq=False)
class FittedDoublyRobust(Answering):
    """A log with the behaviour's side of the ratios, and what Q̂ is to be had from.

    Attributes:
        label: of the estimator.
        estimand: what is estimated.
        config: settings.
        data: the log.
        padded: its steps within the horizon.
        folds: which episodes Q̂ is fitted to, and which it judges.
        ratio: of any policy to the behaviour.
        models: a dynamics ensemble of each fold; none where Q̂ is fitted.
        combine: how terms become a value.
        seed: of everything that is random.
        seconds: wall-clock of each stage of the fit.
        kept: what estimators that share this fit share besides.
    """

    label: str
    estimand: Estimand
    config: DoublyRobustConfig
    data: Trajectories
    padded: PaddedEpisodes = field(repr=False)
    folds: tuple[Fold, ...] = field(repr=False)
    ratio: PolicyRatio = field(repr=False)
    models: tuple[EnsembleDynamics, ...] = field(repr=False)
    combine: Combine = field(repr=False)
    seed: int
    seconds: dict[str, float]
    kept: Kept = field(default_factory=Kept, repr=False)

    @property
    def spaces(self) -> Spaces:
        return spaces_of(self.data)

    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:
        started = time.perf_counter()
        ratios = self.ratio.log_ratios(policies)  # first: it refuses what has no density
        seconds = {**self.seconds, "ratio": time.perf_counter() - started}
        started = time.perf_counter()
        judged, warnings = self._judge(policies, progress)
        seconds["value"] = time.perf_counter() - started
        return [
            self._estimate(judged, place, ratios[place], warnings[place], seconds)
            for place in range(len(policies))
        ]

    def _judge(
        self, policies: Sequence[Policy], progress: Progress
    ) -> tuple[Judged, Sequence[tuple[str, ...]]]:
        """What Q̂ says of the log, and what is to be said of Q̂, by policy."""
        kept = self.kept
        if kept.judged is not None and kept.is_of(policies):
            return kept.judged, kept.warnings
        judged, warnings = self._judge_anew(policies, progress)
        if kept.shared:
            kept.policies, kept.judged, kept.warnings = tuple(policies), judged, tuple(warnings)
        return judged, warnings

    def _judge_anew(
        self, policies: Sequence[Policy], progress: Progress
    ) -> tuple[Judged, list[tuple[str, ...]]]:
        told: list[list[tuple[str, ...]]] = [[] for _ in policies]

        def value_of(fold: int) -> ActionValue:
            seed = derive(self.seed, "fold", str(fold))
            if self.models:
                return ModelValue.of(
                    policies,
                    self.models[fold],
                    self.estimand,
                    rollouts=self.config.rollouts,
                    seed=seed,
                    device=self.config.dynamics.device,
                )
            episodes = self.folds[fold].train.tolist()
            fitted = fit_q(
                *(self.data, policies, self.estimand, self.config.fqe, seed),
                episodes=episodes,
                progress=progress,
            )
            for of_policy, report in zip(told, fitted.reports, strict=True):
                of_policy.append(report.warnings)
            return fitted

        judged = judge(
            self.data,
            self.padded,
            self.folds,
            value_of,
            policies=len(policies),
            discount=self.estimand.discount,
            device=(self.config.dynamics if self.models else self.config.fqe).device,
        )
        return judged, [value_warnings(of_policy) for of_policy in told]

    def _estimate(
        self,
        judged: Judged,
        place: int,
        log_ratio: Tensor,
        warnings: tuple[str, ...],
        seconds: dict[str, float],
    ) -> Estimate:
        step = torch.arange(self.estimand.horizon, dtype=torch.float64)
        residual = self.padded.spread(judged.residual[place])
        terms = Terms(
            judged.initial[place],
            residual * torch.tensor(self.estimand.discount, dtype=torch.float64) ** step,
            cumulate(self.padded.spread(log_ratio)),
            self.padded.standing,
        )
        found = self.combine(terms)
        diagnostics = {"cut_short": float(self.padded.cut_short)}
        if self.ratio.report is not None:
            diagnostics["behaviour_log_likelihood"] = self.ratio.report.log_likelihood
        if isinstance(found, Blend):
            diagnostics["corrected_steps"] = float(found.weights @ found.lengths.double())
            diagnostics["weight_direct"] = float(found.weights[0])
            diagnostics["weight_wdr"] = float(found.weights[-1])
        return said_of(
            self.label,
            self.estimand,
            self.seed,
            found,
            advice=BY_PRODUCTS,
            diagnostics=diagnostics,
            seconds=seconds,
            warnings=(*self.ratio.warnings, *warnings),
        )

"""Doubly robust estimates by policy ratios: DR, its weighted form, and MAGIC."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import is_
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.estimand import Estimand, has_time
from lfiw_ope.core.protocols import ActionValue, Policy, Progress, Reward, Termination, silent
from lfiw_ope.core.seeding import derive, torch_generator
from lfiw_ope.data.censoring import PaddedEpisodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics.ensemble import EnsembleDynamics
from lfiw_ope.estimators.base import Answering, Spaces, settings_but, spaces_of
from lfiw_ope.estimators.cross_fitting import (
    Fold,
    Judged,
    ModelValue,
    draw_folds,
    fit_fold_dynamics,
    judge,
)
from lfiw_ope.estimators.doubly_robust_terms import (
    BY_PRODUCTS,
    Blend,
    CorrectedValue,
    DoublyRobustConfig,
    MAGICConfig,
    Terms,
    doubly_robust,
    lengths_of,
    magic,
    resample_counts,
    said_of,
    value_warnings,
    weighted_doubly_robust,
)
from lfiw_ope.estimators.fqe import fit_q
from lfiw_ope.ratios.policy_ratio import PolicyRatio, fit_policy_ratio
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.weights import cumulate

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
            interval=self.config.interval,
            advice=BY_PRODUCTS,
            diagnostics=diagnostics,
            seconds=seconds,
            warnings=(*self.ratio.warnings, *warnings),
        )


Config = TypeVar("Config", bound=DoublyRobustConfig)


class DoublyRobustEstimator(ABC, Generic[Config]):
    """What the three share: ratios of the policies, and a value function that they correct.

    Args:
        estimand: what is estimated.
        config: settings; the defaults where none are given.
        device: where everything is fitted, such as "cpu" or "cuda"; in place of the
            configuration's.
        reward: the reward function of a model, where it is known exactly; else it is learned.
        termination: its termination rule, where it is known; else it is learned.

    Raises:
        ConfigError: if the device is not there, or a rule is given and there is no model.
    """

    label: ClassVar[str]
    default_config: type[Config]

    def __init__(
        self,
        estimand: Estimand,
        config: Config | None = None,
        *,
        device: str | None = None,
        reward: Reward | None = None,
        termination: Termination | None = None,
    ) -> None:
        config = self.default_config() if config is None else config
        if device is not None:
            config = replace(
                config,
                behaviour=replace(config.behaviour, device=device),
                fqe=replace(config.fqe, device=device),
                dynamics=replace(config.dynamics, device=device),
            )
        if config.value == "fqe":
            has_time(estimand, config.fqe.time)
            if reward is not None or termination is not None:
                raise ConfigError(
                    "A reward or a termination rule is for a dynamics model, and value is 'fqe'; "
                    "use value='model', or leave the rule out."
                )
        self.estimand, self.config = estimand, config
        self.reward, self.termination = reward, termination

    @abstractmethod
    def _combine(self, episodes: int, seed: int) -> Combine:
        """How terms become a value."""

    def fit(
        self, data: Trajectories, seed: int, *, progress: Progress = silent
    ) -> "FittedDoublyRobust":
        """Fit what needs no policy: the behaviour where it is cloned, and the model.

        Args:
            data: the log.
            seed: of everything that is random, now and in `estimate`.
            progress: told how far the work is.

        Raises:
            DataError: if there are too few episodes, or one stands in the data more than once; if
                its longest episodes were cut short before the horizon.
            DivergedError: if a training diverges.
        """
        started = time.perf_counter()
        folds = draw_folds(data, self.config.folds, seed)
        padded = PaddedEpisodes.of(data, self.estimand.horizon)
        ratio = fit_policy_ratio(data, self.config.behaviour, seed, progress=progress)
        seconds = {"behaviour": time.perf_counter() - started}
        models: tuple[EnsembleDynamics, ...] = ()
        if self.config.value == "model":
            started = time.perf_counter()
            models = fit_fold_dynamics(
                data,
                folds,
                self.config.dynamics,
                seed,
                reward=self.reward,
                termination=self.termination,
                progress=progress,
            )
            seconds["dynamics"] = time.perf_counter() - started
        return FittedDoublyRobust(
            label=self.label,
            estimand=self.estimand,
            config=self.config,
            data=data,
            padded=padded,
            folds=folds,
            ratio=ratio,
            models=models,
            combine=self._combine(data.num_episodes, seed),
            seed=int(seed),
            seconds=seconds,
        )

    @property
    def sharing_key(self) -> object:
        """All settings but those of how terms become a value and its interval."""
        own = ("lengths", "resamples", "confidence", "interval")
        return DoublyRobustEstimator, settings_but(self, *own)

    def adopt(self, fitted: "FittedDoublyRobust") -> "FittedDoublyRobust":
        """Combine another's terms; see `lfiw_ope.estimators.SharingEstimator`.

        The two then share what Q̂ says of the log too, for the policies that were asked for last.
        """
        fitted.kept.shared = True
        return replace(
            fitted,
            label=self.label,
            config=self.config,
            combine=self._combine(fitted.data.num_episodes, fitted.seed),
        )


class DR(DoublyRobustEstimator[DoublyRobustConfig]):
    """v̂ = mean_i V̂_0(s_i0) + Σ_t γ^t mean_i ρ_it (r_it + γ V̂_{t+1}(s_it+1) − Q̂_t(s_it, a_it)).

    Jiang and Li (2016), with ρ_it the product of the policy ratios up to and including step t.
    Unbiased where the ratios are known, whatever Q̂ is, and of little variance where Q̂ is near
    right; right as well where Q̂ is and the ratios are not. A terminated state's value is 0.

    `Estimate.diagnostics` has `direct`, the mean of V̂_0(s_0), and `correction`, the rest;
    `cut_short`, episodes that the log leaves before the horizon; `unweighted_steps`, at which no
    episode has a weight; and the held-out log-likelihood of a cloned behaviour.

    The arguments are `DoublyRobustEstimator`'s.
    """

    label = "DR"
    default_config = DoublyRobustConfig

    def _combine(self, episodes: int, seed: int) -> Combine:  # noqa: ARG002
        return doubly_robust


class WDR(DoublyRobustEstimator[DoublyRobustConfig]):
    """DR with each step's weights divided by their sum (Thomas and Brunskill 2016).

    Biased, consistent, and of far less variance than DR where weights differ much. Diagnostics are
    `DR`'s, and so are the arguments.
    """

    label = "WDR"
    default_config = DoublyRobustConfig

    def _combine(self, episodes: int, seed: int) -> Combine:  # noqa: ARG002
        return weighted_doubly_robust


class MAGIC(DoublyRobustEstimator[MAGICConfig]):
    """WDR's correction for as many steps as pay: a blend of values corrected for j = 0 … T steps.

    Thomas and Brunskill (2016): see `lfiw_ope.estimators.magic`. It leans to the value
    function alone where that is right and data are few, and to WDR where it is wrong and data are
    many. Beside `DR`'s diagnostics: `corrected_steps`, the mean j; `weight_direct` and
    `weight_wdr`, of its two ends. The arguments are `DR`'s.
    """

    label = "MAGIC"
    default_config = MAGICConfig

    def _combine(self, episodes: int, seed: int) -> Combine:
        config, generator = self.config, torch_generator(seed, "magic", "bootstrap")
        counts = resample_counts(episodes, config.resamples, generator)
        lengths = lengths_of(self.estimand.horizon, config.lengths)

        def combine(terms: Terms) -> Blend:
            return magic(terms, lengths, counts, config.confidence)

        return combine

"""Doubly robust estimates by policy ratios: DR, its weighted form, and MAGIC."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from lfiw_ope.answering import Answering
from lfiw_ope.checks import choice, real, whole
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.doubly_robust.folds import Fold, Judged, draw_folds, fit_fold_dynamics, judge
from lfiw_ope.doubly_robust.magic import Blend, lengths_of, magic, resample_counts
from lfiw_ope.doubly_robust.model_value import ModelValue
from lfiw_ope.doubly_robust.saying import said_of, value_warnings
from lfiw_ope.doubly_robust.terms import (
    CorrectedValue,
    Terms,
    doubly_robust,
    weighted_doubly_robust,
)
from lfiw_ope.dynamics import DynamicsConfig, EnsembleDynamics
from lfiw_ope.errors import ConfigError
from lfiw_ope.estimand import Estimand
from lfiw_ope.fitted_q.config import FQEConfig, has_time
from lfiw_ope.fitted_q.fit import fit_q
from lfiw_ope.padding import PaddedEpisodes
from lfiw_ope.policy_ratio.config import BehaviourConfig
from lfiw_ope.policy_ratio.ratio import PolicyRatio, fit_policy_ratio
from lfiw_ope.results import Estimate
from lfiw_ope.seeding import derive, torch_generator
from lfiw_ope.types import ActionValue, Policy, Progress, Reward, Termination, silent
from lfiw_ope.weights import cumulate


@dataclass(frozen=True, kw_only=True)
class DoublyRobustConfig:
    """Settings of `DR` and `WDR`.

    Attributes:
        value: where Q̂ and V̂ come from: "fqe" trains them for every policy, "model" simulates any
            policy in a dynamics model that is fitted once.
        folds: parts that the episodes are dealt to; Q̂ at an episode comes from a fit to the other
            parts, which unbiasedness asks for. 1 fits it to all of them and judges the same.
        behaviour: where the behaviour's likelihoods come from.
        fqe: the fitted Q, where it is that.
        dynamics: the model, where it is that.
        rollouts: simulated from each logged state, where it is a model.
    """

    value: Literal["fqe", "model"] = "fqe"
    folds: int = 2
    behaviour: BehaviourConfig = field(default_factory=BehaviourConfig)
    fqe: FQEConfig = field(default_factory=FQEConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    rollouts: int = 1

    def __post_init__(self) -> None:
        choice("value", self.value, ("fqe", "model"))
        whole("folds", self.folds, least=1)
        whole("rollouts", self.rollouts, least=1)


@dataclass(frozen=True, kw_only=True)
class MAGICConfig(DoublyRobustConfig):
    """Settings of `MAGIC`: those of `DR`, and how returns are blended.

    Attributes:
        lengths: at most so many lengths of partially corrected returns are blended, evenly spread
            from 0 to T.
        resamples: bootstrap samples of the episodes, for the interval that biases are taken from.
        confidence: of that interval.
    """

    lengths: int = 50
    resamples: int = 200
    confidence: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("lengths", self.lengths, least=2)
        whole("resamples", self.resamples, least=2)
        real("confidence", self.confidence, least=0.0, most=1.0)


Config = TypeVar("Config", bound=DoublyRobustConfig)
Combine = Callable[[Terms], CorrectedValue]


class _DoublyRobust(ABC, Generic[Config]):
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
                every episode was cut short before the horizon.
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


class DR(_DoublyRobust[DoublyRobustConfig]):
    """v̂ = mean_i V̂_0(s_i0) + Σ_t γ^t mean_i ρ_it (r_it + γ V̂_{t+1}(s_it+1) − Q̂_t(s_it, a_it)).

    Jiang and Li (2016), with ρ_it the product of the policy ratios up to and including step t.
    Unbiased where the ratios are known, whatever Q̂ is, and of little variance where Q̂ is near
    right; right as well where Q̂ is and the ratios are not. A terminated state's value is 0.

    `Estimate.diagnostics` has `direct`, the mean of V̂_0(s_0), and `correction`, the rest;
    `cut_short`, episodes that the log leaves before the horizon; `unweighted_steps`, at which no
    episode has a weight; and the held-out log-likelihood of a cloned behaviour.

    The arguments are `_DoublyRobust`'s.
    """

    label = "DR"
    default_config = DoublyRobustConfig

    def _combine(self, episodes: int, seed: int) -> Combine:  # noqa: ARG002
        return doubly_robust


class WDR(_DoublyRobust[DoublyRobustConfig]):
    """DR with each step's weights divided by their sum (Thomas and Brunskill 2016).

    Biased, consistent, and of far less variance than DR where weights differ much. Diagnostics are
    `DR`'s, and so are the arguments.
    """

    label = "WDR"
    default_config = DoublyRobustConfig

    def _combine(self, episodes: int, seed: int) -> Combine:  # noqa: ARG002
        return weighted_doubly_robust


class MAGIC(_DoublyRobust[MAGICConfig]):
    """WDR's correction for as many steps as pay: a blend of values corrected for j = 0 … T steps.

    Thomas and Brunskill (2016): see `lfiw_ope.doubly_robust.magic.magic`. It leans to the value
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
    """

    label: str
    estimand: Estimand
    config: DoublyRobustConfig
    data: Trajectories
    padded: PaddedEpisodes
    folds: tuple[Fold, ...]
    ratio: PolicyRatio
    models: tuple[EnsembleDynamics, ...]
    combine: Combine
    seed: int
    seconds: dict[str, float]

    @property
    def spaces(self) -> tuple[int, int, Literal["continuous", "discrete"]]:
        return self.data.state_size, self.data.action_size, self.data.action_spec.kind

    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:
        if not policies:
            return []
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
    ) -> tuple[Judged, list[tuple[str, ...]]]:
        """What Q̂ says of the log, and what is to be said of Q̂, by policy."""
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
                of_policy.append(report.warnings(self.config.fqe))
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
            self.padded.observed,
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
            terms,
            found,
            diagnostics=diagnostics,
            seconds=seconds,
            warnings=(*self.ratio.warnings, *warnings),
        )

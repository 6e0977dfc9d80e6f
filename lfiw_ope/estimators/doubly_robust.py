"""Doubly robust estimates by policy ratios: DR, its weighted form, and MAGIC."""

import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, Generic, TypeVar

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.doubly_robust.config import DoublyRobustConfig, MAGICConfig
from lfiw_ope.doubly_robust.fitted import Combine, FittedDoublyRobust
from lfiw_ope.doubly_robust.folds import draw_folds, fit_fold_dynamics
from lfiw_ope.doubly_robust.magic import Blend, lengths_of, magic, resample_counts
from lfiw_ope.doubly_robust.terms import Terms, doubly_robust, weighted_doubly_robust
from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.errors import ConfigError
from lfiw_ope.estimand import Estimand, has_time
from lfiw_ope.padding import PaddedEpisodes
from lfiw_ope.policy_ratio.ratio import fit_policy_ratio
from lfiw_ope.seeding import torch_generator
from lfiw_ope.sharing import settings_but
from lfiw_ope.types import Progress, Reward, Termination, silent

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
        """Combine another's terms; see `lfiw_ope.sharing.SharingEstimator`.

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

"""Importance sampling: logged returns, weighted by how much likelier the target makes them."""

import time
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimand import Estimand
from lfiw_ope.intervals.bernstein import check_returns
from lfiw_ope.intervals.config import IntervalConfig, check_interval
from lfiw_ope.padding import PaddedEpisodes
from lfiw_ope.policy_ratio.config import BehaviourConfig
from lfiw_ope.policy_ratio.fitted import FittedImportance
from lfiw_ope.policy_ratio.ratio import fit_policy_ratio
from lfiw_ope.seeding import derive
from lfiw_ope.sharing import settings_but
from lfiw_ope.types import Progress, silent
from lfiw_ope.weighting import Weighting


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
    or its clone. Episodes that end early are taken as `lfiw_ope.padding` says: where the episode
    had terminated the weight stays and nothing more is earned; where the log was cut short, whole
    episodes are left out by the trajectory forms, and later steps by the stepwise ones, and the
    episodes that went on count for them too.

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
        """Weigh with another's likelihoods; see `lfiw_ope.sharing.SharingEstimator`."""
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

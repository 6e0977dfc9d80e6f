"""Off-policy evaluation by likelihood-free importance weighting of simulated trajectories."""

import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Progress, silent
from lfiw_ope.core.validation import real, whole
from lfiw_ope.data.split import DIFFERENT, require_episodes
from lfiw_ope.data.tensors import DeviceLog, left_out_groups
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics.ensemble import DynamicsConfig
from lfiw_ope.estimators.base import settings_but
from lfiw_ope.estimators.fitted_model import FittedModel
from lfiw_ope.estimators.model_based import ModelEstimator, SimulationConfig
from lfiw_ope.estimators.selection import CHOICES, Candidate
from lfiw_ope.estimators.warnings import Fallback
from lfiw_ope.nn.training import FitConfig
from lfiw_ope.ratios.moments import calibrate_moments
from lfiw_ope.ratios.transition_ratio import RatioConfig, fit_transition_ratio
from lfiw_ope.stats.weighting import Weighting
from lfiw_ope.stats.weights import check_smoothing

RATIO_SHARE = 0.2
"""Of the episodes, for the classifiers, where they cannot learn from the dynamics' own."""

SIR_CANDIDATES = (4, 16)
"""k of sampling-importance-resampling, that the default chooses among."""


@dataclass(frozen=True, kw_only=True)
class LFIWConfig(SimulationConfig):
    """Settings of `LFIW`.

    Attributes:
        dynamics: the ensemble.
        ratio: the classifiers.
        weighting: the form of the weights. "auto" chooses between none and
            sampling-importance-resampling by step, on held-out episodes, and with it the noise
            where `dynamics.noise` is "auto"; products of ratios are never chosen.
        rollouts: n, of each policy.
        interval: which intervals estimates have.
        draws: K, draws of the model at each step for conditional normalisation.
        fallback: where the weights of a named form mean nothing and the plain model's value is
            given instead; None never does.
        ratio_share: of the episodes, those kept from the dynamics for the classifiers. None keeps
            none where each member of the dynamics leaves out a group of episodes (2 or more members
            and `member_episodes="jackknife"`): the classifiers then learn from each episode as the
            member sees it that did not (cross-fitting). Otherwise it keeps a fifth.
    """

    ratio: RatioConfig = field(default_factory=RatioConfig)
    weighting: Weighting | Literal["auto"] = "auto"
    draws: int = 16
    fallback: Fallback | None = field(default_factory=Fallback)
    ratio_share: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("draws", self.draws, least=1)
        if self.ratio_share is not None:
            real("ratio_share", self.ratio_share, least=0.01, most=0.99)
        if not isinstance(self.fallback, Fallback | None):
            raise ConfigError(
                f"`fallback` must be a Fallback, or None for none, got {self.fallback!r}."
            )
        if isinstance(self.weighting, Weighting):
            _check_form(self, self.weighting)
        elif self.weighting != "auto":
            raise ConfigError(
                '`weighting` must be "auto" or a Weighting, such as Weighting(form="stepwise"), '
                f"got {self.weighting!r}."
            )
        elif self.ratio.average == "estimates":
            raise ConfigError(
                "`weighting` must be a named form where average='estimates' keeps the classifiers "
                "apart, got 'auto'; choose average='logits' or 'ratios'."
            )


def _check_form(config: LFIWConfig, weighting: Weighting) -> None:
    """That a named form goes with the other settings.

    Raises:
        ConfigError: if it does not.
    """
    if weighting.pareto:
        check_smoothing(config.rollouts)
    if weighting.conditional and config.draws < 2:
        raise ConfigError(
            f"draws is {config.draws!r}, and conditional normalisation needs 2 or more."
        )
    if config.ratio.average == "estimates" and weighting.candidates > 1:
        raise ConfigError(
            "Candidates are chosen by one ratio, and average='estimates' keeps the "
            "classifiers apart; choose average='logits' or 'ratios'."
        )


class LFIW(ModelEstimator[LFIWConfig]):
    """Likelihood-free importance weighting (Grover et al., NeurIPS 2019, arXiv 1906.09531).

    v̂(π) = Σ_i W_i R(τ_i) / Σ_i W_i,   W_i = Π_t w(s_it, a_it, s_i,t+1, r_it),   τ_i ~ p_θ, π

    A dynamics ensemble p_θ is fitted to some of the logged episodes and a classifier of logged
    against simulated transitions to others; its odds w estimate p / p_θ. Initial distribution and
    policy cancel in the ratio of trajectories, so one fit serves any number of policies.

    The equation is the published product. A product of many learned ratios rests on few rollouts,
    so by default the ratio is used step by step: each simulated step goes on from one of k
    candidates, drawn in proportion to w (sampling-importance-resampling, section 5 there). The
    noise of the simulated step, whether to use the ratio at all, and k are chosen on held-out
    episodes (`lfiw_ope.estimators.selection`), where the policy that logged them acts in the model.
    `LFIW.paper()` is the published method, and `LFIWConfig(weighting=Weighting(...))` any form.

    `Estimate.diagnostics` has `loss[...]`, the held-out loss of each candidate, `loss_error[...]`,
    the standard error of its paired difference from the best, `bias[...]`, its mean error of
    partial returns, and `bias_error[...]`, the standard error of that.

    The arguments are `lfiw_ope.estimators.model_based.ModelEstimator`'s.
    """

    default_config = LFIWConfig

    @classmethod
    def paper(cls, estimand: Estimand, weighting: Weighting | None = None, **known: Any) -> "LFIW":
        """The published method: networks, lengths, and weights of Grover et al. (2019).

        Dynamics of 3 × 500 swish units, 100 000 updates of 128, members that say their own noise;
        10 classifiers of 3 × 500 swish units, 10 000 updates of 250, on raw (s, a, s'), not
        calibrated, each weighing 100 rollouts on its own, whose estimates are averaged; product of
        all ratios, self-normalised; no fallback.

        What the paper leaves open is ours: an ensemble of 5, classifiers that see the reward too
        (it is simulated here), early stopping and a cosine schedule. On a CPU the fit takes hours.

        Args:
            estimand: what is estimated.
            weighting: another of the published forms, such as
                `Weighting(form="stepwise", first=80)`; the trajectory product where none is given.
            known: device, reward and termination, as `LFIW` takes them.
        """
        hidden = (500, 500, 500)
        dynamics = DynamicsConfig(
            hidden=hidden,
            activation="silu",
            layer_norm=False,
            noise="heteroscedastic",
            member_episodes="all",
            fit=FitConfig(updates=100_000, batch_size=128, evaluate_every=1000, patience=None),
        )
        ratio = RatioConfig(
            members=10,
            hidden=hidden,
            features="raw",
            smoothing=0.0,
            average="estimates",
            calibration="none",
            fit=FitConfig(updates=10_000, batch_size=250, evaluate_every=250, patience=None),
        )
        config = LFIWConfig(
            dynamics=dynamics,
            ratio=ratio,
            weighting=Weighting() if weighting is None else weighting,
            rollouts=100,
            fallback=None,
        )
        return cls(estimand, config, **known)

    def fit(
        self,
        data: Trajectories,
        seed: int,
        *,
        progress: Progress = silent,
    ) -> FittedModel:
        config = self.config
        dynamics = config.dynamics
        crosses = (
            config.ratio_share is None
            and dynamics.members > 1
            and dynamics.member_episodes == "jackknife"
        )
        if crosses:
            require_episodes(data, 4, DIFFERENT)
        share = RATIO_SHARE if config.ratio_share is None else config.ratio_share
        split = self._split(data, seed, 0.0 if crosses else share)
        left_out = None
        if crosses:
            left_out = left_out_groups(split.dynamics, dynamics.members, seed, "dynamics")
            split = split.with_ratio_from_dynamics()
        model = self._fit_plain_model(data, split, seed, progress)
        started = time.perf_counter()
        ratio = fit_transition_ratio(
            data,
            model.dynamics,
            config.ratio,
            seed,
            train=split.ratio.tolist(),
            held_out=split.ratio_held_out.tolist(),
            left_out=left_out,
            progress=progress,
        )
        log = DeviceLog.of(data, config.dynamics.device)
        episodes = [*split.ratio_held_out.tolist(), *split.ratio.tolist()]
        calibrated = {
            k: calibrate_moments(ratio, log, episodes, k, seed, left_out=left_out)
            for k in self.calibrates
        }
        seconds = {**model.seconds, "classifier": time.perf_counter() - started}
        model = replace(
            model,
            ratio=ratio,
            calibrated_ratios=calibrated,
            draws=config.draws,
            seconds=seconds,
        )
        model = self._completed(model, data, split, seed, progress, self.candidates())
        return replace(model, label="LFIW") if self.chooses else self.adopt(model)

    @property
    def chooses(self) -> bool:
        """Whether weights, and noise with them, are chosen on held-out episodes."""
        return self.config.weighting == "auto"

    @property
    def calibrates(self) -> tuple[int, ...]:
        """The numbers of candidates of SIR that moments are calibrated for."""
        weighting = self.config.weighting
        if isinstance(weighting, Weighting):
            return (weighting.candidates,) if weighting.calibrated else ()
        return SIR_CANDIDATES

    def candidates(self) -> list[Candidate]:
        """What is chosen among, from the simplest; nothing where the form is named."""
        if not self.chooses:
            return []
        noise = self.config.dynamics.noise
        plain = [Candidate(kind) for kind in (CHOICES if noise == "auto" else (noise,))]
        base = self.config.dynamics.noise_kind
        return plain + [Candidate(base, k) for k in SIR_CANDIDATES]

    @property
    def sharing_key(self) -> object:
        """All settings but those that come after the fits of dynamics and ratio."""
        return LFIW, self.calibrates, settings_but(self, "weighting", "draws", "fallback")

    def adopt(self, fitted: FittedModel) -> FittedModel:
        """Weigh by another's ratio; see `lfiw_ope.estimators.SharingEstimator`."""
        config = self.config
        if config.weighting == "auto":
            return replace(fitted, draws=config.draws)
        return replace(
            fitted,
            weighting=config.weighting,
            draws=config.draws,
            fallback=config.fallback,
        )

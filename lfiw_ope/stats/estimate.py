"""What an estimator gives back."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.errors import ConfigError, DataError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.serialization import Stored
from lfiw_ope.stats.intervals import Interval, percent
from lfiw_ope.stats.return_distribution import ReturnDistribution


@dataclass(frozen=True, kw_only=True)
class Estimate(Stored):
    """The estimated value of one policy, with what is needed to judge it.

    Attributes:
        estimator: which, in a few letters ("LFIW", "model", ...).
        estimand: what is estimated.
        value: the estimate, in units of return.
        seed: of the fit.
        standard_error: from the sampling of the logged episodes: of estimators that are a mean
            over episodes, with what else was fitted to them taken as given; of others from the
            spread of members or refits, with their training's noise. None where the estimator
            does not know it, or too few episodes carry the weights.
        intervals: of the value, one a confidence level; none where none is known to cover what it
            says, see `no_interval`.
        no_interval: why there is no interval; None where there are.
        mc_standard_error: the standard error from simulation noise *only*: what another seed of
            the rollouts would change. It says nothing of the model's error. None where nothing is
            simulated, or too few rollouts carry the weights to know it.
        rollouts: n, simulated; None where nothing is.
        episodes: N, logged, that the estimate is a mean over; None where it is none.
        ess: effective sample size of the weights, 1 to their number; where weights differ by
            step, the smallest. None where nothing is weighed.
        raw_ess: the same before H was chosen by it, tempering and smoothing, all of which hide how
            far apart weights were.
        noise_kind: of the simulated step, see `lfiw_ope.dynamics.Noise`; None where nothing is
            simulated.
        bounded_share: of the simulated steps, those whose state was put back on the model's
            bounds; None where nothing is simulated.
        fell_back: whether the value is the plain model's, because weights mean nothing here; the
            warnings say why, and raw_ess is that of the weights that were not used.
        first: H, where weights are products of the first H ratios; None for all steps.
        exponent: α that tempering came to, the smallest over steps; None without tempering.
        pareto_k: k̂ of the weights' tail, the largest over steps; None where not smoothed,
            or where no tail could be fitted.
        clipped_share: of the ratios, those put on a bound; None where not clipped.
        classifier_log_loss: held-out, in nats; 0.693 is chance. None without a classifier.
        classifier_accuracy: held-out; 0.5 is chance, near 1 means weights mean nothing.
        classifier_temperature: what logits were divided by, to calibrate them; above 1 the
            classifiers were over-confident. None without one, or with another calibration.
        diagnostics: further numbers that the estimator's own documentation names.
        seconds: wall-clock by stage. Fitting is shared by every policy of one fit, and a rollout
            by the policies of one call.
        warnings: in words, what is wrong and what to do.
        returns: `[n]` or `[N]`, discounted returns, simulated or logged, that the weights are of;
            None where the estimator has none.
        log_weights: of the returns, log of the weights that sum to 1 (at the last step, where they
            differ); None where there are no returns.
        ess_by_step: `[T]`; None where nothing is weighed.
    """

    estimator: str
    estimand: Estimand
    value: float
    seed: int
    standard_error: float | None = None
    intervals: tuple[Interval, ...] = ()
    no_interval: str | None = None
    mc_standard_error: float | None = None
    rollouts: int | None = None
    episodes: int | None = None
    ess: float | None = None
    raw_ess: float | None = None
    noise_kind: str | None = None
    bounded_share: float | None = None
    fell_back: bool = False
    first: int | None = None
    exponent: float | None = None
    pareto_k: float | None = None
    clipped_share: float | None = None
    classifier_log_loss: float | None = None
    classifier_accuracy: float | None = None
    classifier_temperature: float | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    returns: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    log_weights: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    ess_by_step: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """The estimator, and whether its value is the plain model's: for tables and figures."""
        return self.estimator + " → model" * self.fell_back

    @property
    def noise(self) -> float | None:
        """The standard error that is known: of the sampled episodes, else of the simulation."""
        return self.mc_standard_error if self.standard_error is None else self.standard_error

    def interval(self, level: float = 0.95) -> Interval | None:
        """The confidence interval at this level; None where the estimate has none.

        Raises:
            ConfigError: if it has intervals, and none at this level.
        """
        if not self.intervals:
            return None
        for one in self.intervals:
            if math.isclose(one.level, level):
                return one
        levels = ", ".join(f"{one.level:g}" for one in self.intervals)
        raise ConfigError(
            f"{self.estimator} has no interval at level {level!r}, but at {levels}; ask for others "
            "by `levels` in the estimator's interval settings."
        )

    @property
    def ess_of(self) -> str:
        """Effective sample size and what it is of, such as "412/1000"; "–" without weights."""
        if self.ess is None:
            return "–"
        return f"{self.ess:.{0 if self.ess >= 10 else 1}f}/{self.rollouts or self.episodes}"

    @property
    def distribution(self) -> ReturnDistribution:
        """Of the return under the policy: its cdf, quantiles and CVaR.

        Raises:
            ConfigError: if the estimator gives a mean alone.
        """
        if self.returns is None or self.log_weights is None:
            raise ConfigError(
                f"{self.estimator} estimates a mean and no distribution of returns; use an "
                "estimator that weighs returns: LFIW, ModelBased, IS, WIS, PDIS or WPDIS."
            )
        return ReturnDistribution(self.returns, self.log_weights)

    def __str__(self) -> str:
        digits = _digits(self.noise, self.value)
        whose = " (the plain model's: weights mean nothing here)" if self.fell_back else ""
        parts = [f"{self.estimator}{whose} {self.value:.{digits}f}"]
        if self.intervals:
            widest = self.intervals[-1]
            parts.append(
                f"{percent(widest.level)} [{widest.low:.{digits}f}, {widest.high:.{digits}f}]"
            )
        if self.rollouts is not None:
            simulated = self.mc_standard_error
            noise = "unknown" if simulated is None else f"± {simulated:.{digits}f}"
            parts.append(f"simulation noise {noise}")
        if self.episodes is not None:
            error = self.standard_error
            noise = "unknown" if error is None else f"± {error:.{digits}f}"
            parts.append(f"standard error {noise}")
        if self.ess is not None:
            parts.append(f"ESS {self.ess_of}")
        if self.pareto_k is not None:
            parts.append(f"k̂ {self.pareto_k:.2f}")
        parts.append(f"T = {self.estimand.horizon}, γ = {self.estimand.discount:g}")
        if self.classifier_accuracy is not None:
            parts.append(f"classifier {self.classifier_accuracy:.0%} accurate")
        if self.bounded_share:
            parts.append(f"{self.bounded_share:.2%} of states bounded")
        if self.warnings:
            count = len(self.warnings)
            parts.append(f"{count} warning{'s' if count > 1 else ''}")
        return "\n".join(["  ".join(parts), *self._choice_line()])

    def _choice_line(self) -> list[str]:
        """How noise and weights were chosen, where they were."""
        losses = {
            name.removeprefix("loss[").removesuffix("]"): loss
            for name, loss in self.diagnostics.items()
            if name.startswith("loss[")
        }
        if not losses:
            return []
        listed = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
        return [f"  noise {self.noise_kind}, by the loss on held-out continuations: {listed}"]

    def to_dict(self, *, arrays: bool = True) -> dict[str, Any]:
        """As plain Python numbers, lists and strings; without the arrays, a table's row.

        A weight of 0, whose logarithm JSON has no number for, is a None among the log-weights.
        """
        plain = asdict(self)
        for name in ("returns", "log_weights", "ess_by_step"):
            values = plain.pop(name)
            if arrays:
                listed = None if values is None else values.tolist()
                if name == "log_weights" and listed is not None:
                    listed = [None if weight == -math.inf else weight for weight in listed]
                plain[name] = listed
        plain["warnings"] = list(self.warnings)
        plain["intervals"] = list(plain["intervals"])
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            DataError: if fields are missing or unknown.
        """
        try:
            fields = dict(plain)
            fields["estimand"] = Estimand(**fields["estimand"])
            fields["warnings"] = tuple(fields["warnings"])
            fields["intervals"] = tuple(Interval(**one) for one in fields["intervals"])
            for name in ("returns", "log_weights", "ess_by_step"):
                if fields[name] is not None:
                    missing = -math.inf if name == "log_weights" else math.nan
                    listed = [missing if value is None else value for value in fields[name]]
                    fields[name] = np.asarray(listed, np.float64)
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"This is no stored estimate ({error}).") from error


def _digits(error: float | None, value: float) -> int:
    """Decimals that show two digits of the error, or four of the value."""
    scale = error or abs(value) / 100
    if scale <= 0 or not math.isfinite(scale):
        return 2
    return max(0, min(8, 1 - math.floor(math.log10(scale))))

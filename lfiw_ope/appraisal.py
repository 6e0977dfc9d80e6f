"""From simulated rollouts to an estimate, for one policy and one form of weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from lfiw_ope.diagnostics import (
    Fallback,
    bounds_warning,
    collapse_warning,
    populations_warning,
    tempering_warning,
)
from lfiw_ope.estimand import Estimand
from lfiw_ope.estimators.selection import NoiseSelection
from lfiw_ope.populations import trace, weigh_populations
from lfiw_ope.ratio import TransitionRatio
from lfiw_ope.results import Estimate
from lfiw_ope.rollout import Rollout
from lfiw_ope.simulated_error import SimulatedError
from lfiw_ope.weighted import WeightedValue, average, weigh
from lfiw_ope.weighting import Weighting
from lfiw_ope.weights import require_finite


@dataclass(frozen=True, kw_only=True)
class Appraisal:
    """What every estimate of one simulation has in common.

    Attributes:
        estimand: what is estimated.
        rollout: of P policies.
        ratio: that the weights come from, or None for the plain model alone.
        error: what is known of the model's error.
        policies: `[P]`, the row of each in `error`.
        seed: of the fit.
        seconds: wall-clock by stage; "classifier" is left out of what does not use it.
        noise: of the simulated step.
        selection: how noise and weights were chosen, if they were.
        notes: warnings of the fit.
    """

    estimand: Estimand
    rollout: Rollout
    ratio: TransitionRatio | None
    error: SimulatedError
    policies: Sequence[int]
    seed: int
    seconds: dict[str, float]
    noise: str
    selection: NoiseSelection | None = None
    notes: tuple[str, ...] = ()

    def estimate(self, place: int, weighting: Weighting) -> Estimate:
        """Of the policy at this place, by this form of weights."""
        rollout = self.rollout
        rewards = rollout.discounted(self.estimand.discount)[place]
        n = len(rewards)
        weighted = self._weigh(rewards, place, weighting)
        used = self.ratio if weighting.needs_ratio else None
        report = None if used is None else used.report
        bounded_share = float(rollout.bounded_share[place])
        ess = float(weighted.ess_by_step.min())
        warnings = [*self.notes, *bounds_warning(bounded_share)]
        if weighted.exponent is not None:
            shaped = (weighting.label, weighted.raw_ess, n, weighted.exponent)
            warnings += tempering_warning(*shaped)
        if weighted.mc_standard_error is None:
            if weighting.resample_below is None:
                warnings.append(collapse_warning(weighting.label, ess, n))
            else:
                warnings.append(populations_warning(weighting.label, weighting.populations))
        told = self.error.told(weighted, rollout.starts, self.policies[place])
        return Estimate(
            estimator=weighting.label,
            estimand=self.estimand,
            value=weighted.value,
            intervals=told.intervals,
            no_interval=told.no_interval,
            diagnostics={**told.diagnostics, **self._losses(), **self._moments(weighting)},
            noise_kind=self.noise,
            mc_standard_error=weighted.mc_standard_error,
            seed=self.seed,
            rollouts=n,
            ess=ess,
            raw_ess=weighted.raw_ess,
            bounded_share=bounded_share,
            first=weighted.first,
            exponent=weighted.exponent,
            pareto_k=weighted.pareto_k,
            clipped_share=weighted.clipped_share,
            resampled=weighted.resampled,
            classifier_log_loss=None if report is None else report.log_loss,
            classifier_accuracy=None if report is None else report.accuracy,
            classifier_temperature=None if report is None else report.temperature,
            seconds={k: v for k, v in self.seconds.items() if k != "classifier" or used},
            warnings=tuple(warnings),
            returns=self._along_rollouts(rewards, place).sum(-1).cpu().numpy().astype(np.float64),
            log_weights=weighted.log_weights.cpu().numpy(),
            ess_by_step=weighted.ess_by_step.cpu().numpy(),
        )

    def _losses(self) -> dict[str, float]:
        """The held-out loss and bias of each candidate, with their standard errors."""
        if self.selection is None:
            return {}
        losses = {f"loss[{name}]": of for name, of in self.selection.scores.items()}
        errors = self.selection.standard_errors.items()
        losses |= {f"loss_error[{name}]": of for name, of in errors}
        losses |= {f"bias[{name}]": of for name, of in self.selection.biases.items()}
        errors = self.selection.bias_errors.items()
        return losses | {f"bias_error[{name}]": of for name, of in errors}

    def _moments(self, weighting: Weighting) -> dict[str, float]:
        """What calibration made of the moments, where candidates were chosen by it."""
        if not weighting.calibrated or self.ratio is None or self.ratio.moments is None:
            return {}
        found = self.ratio.moments._asdict()
        return {f"moments.{name}": value for name, value in found.items()}

    def _along_rollouts(self, rewards: Tensor, place: int) -> Tensor:
        """Rewards of each slot's rollout, which may have run through other slots before."""
        ancestors = self.rollout.ancestors
        return rewards if ancestors is None else trace(rewards, ancestors[place])

    def _weigh(self, rewards: Tensor, place: int, weighting: Weighting) -> WeightedValue:
        rollout = self.rollout
        if rollout.log_weight is not None and rollout.ancestors is not None:
            return _of_populations(
                rewards, rollout.log_weight[place], rollout.ancestors[place], weighting
            )
        ratios = rollout.conditional_log_ratio if weighting.conditional else rollout.log_ratio
        if weighting.form == "uniform" or ratios is None:
            if ratios is not None and weighting.candidates > 1:  # they chose where it went
                require_finite(ratios[place], "log-ratios")
            return weigh(rewards, rewards, weighting)
        # With separate classifiers there is one set of ratios for each.
        each = ratios[..., place, :, :].reshape(-1, *rewards.shape)
        return average([weigh(rewards, one, weighting) for one in each])


def _of_populations(
    rewards: Tensor, log_weight: Tensor, ancestors: Tensor, weighting: Weighting
) -> WeightedValue:
    assert weighting.form != "uniform"  # a weighting refuses to resample and then to weigh alike
    found = weigh_populations(
        rewards,
        log_weight,
        ancestors,
        populations=weighting.populations,
        form=weighting.form,
        self_normalised=weighting.self_normalised,
    )
    return WeightedValue(
        value=found.value,
        mc_standard_error=found.standard_error,
        log_weights=found.log_weights,
        ess_by_step=found.ess_by_step,
        raw_ess=float(found.ess_by_step.min()),
        resampled=found.resampled,
    )


def fall_back(
    weighted: Estimate, plain: Estimate, fallback: Fallback, *, by_ess: bool = False
) -> Estimate:
    """The weighted estimate, or the plain model's value in it where its weights mean nothing.

    Args:
        weighted: of a form of weights.
        plain: of the same policy by the plain model.
        fallback: the thresholds.
        by_ess: whether H was chosen by effective sample size.
    """
    reason = fallback.reason(
        accuracy=weighted.classifier_accuracy,
        raw_ess=weighted.raw_ess,
        rollouts=weighted.rollouts,
        no_ratio_left=by_ess and weighted.first == 0,
    )
    if reason is None:
        return weighted
    said = (
        f"The weights of {weighted.estimator} mean nothing here: {reason}. The value is the plain "
        "model's, which nothing corrects."
    )
    return replace(
        plain,
        estimator=weighted.estimator,
        fell_back=True,
        raw_ess=weighted.raw_ess,
        classifier_log_loss=weighted.classifier_log_loss,
        classifier_accuracy=weighted.classifier_accuracy,
        classifier_temperature=weighted.classifier_temperature,
        seconds=weighted.seconds,
        warnings=(said, *plain.warnings),
    )

"""One policy's value from one log: the main job, as a pipeline does it."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lfiw_ope.core.errors import RefusedError
from lfiw_ope.core.policy_batch import check_policy, probe
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.serialization import plain_settings, provenance, write_text
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnostics.config import DiagnosisConfig
from lfiw_ope.diagnostics.diagnose import diagnose
from lfiw_ope.diagnostics.diagnosis import Diagnosis, concerns_of, warnings_of
from lfiw_ope.diagnostics.thresholds import Thresholds, thresholds_of
from lfiw_ope.estimators.base import Estimator, Fitted
from lfiw_ope.estimators.behaviour import BehaviourReturn
from lfiw_ope.estimators.fitted_model import FittedModel
from lfiw_ope.estimators.half_sampling import model_of
from lfiw_ope.evaluation.plots import (
    new_figure,
    plot_estimates,
    plot_returns,
    plot_weights,
    save_figure,
)
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.weighting import Weighting

LOOK = DiagnosisConfig()
"""How closely data, policy and model are looked at, where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is said of one policy.

    Attributes:
        estimates: the answer first; then, beside LFIW, the plain model from the same rollouts. What
            the diagnosis warns of, where it concerns an estimate, is among the estimate's warnings.
        behaviour: what the log itself says.
        data: the log, in words.
        config: of the estimator; None where it has none.
        diagnosis: whether the data can tell the value; None where it was not asked for, or the
            estimate is the log's own mean, which rests on nothing of the policy.
        logged_returns: `[N]`, over the horizon and discounted, as far as they were logged.
    """

    estimates: tuple[Estimate, ...]
    behaviour: BehaviourReturn
    data: str
    config: Any
    diagnosis: Diagnosis | None
    logged_returns: NDArray[np.float64] = field(repr=False, compare=False)

    @property
    def estimate(self) -> Estimate:
        """The answer."""
        return self.estimates[0]

    def to_dict(self, *, arrays: bool = False) -> dict[str, Any]:
        """As plain numbers, lists and strings, for JSON."""
        return {
            "estimates": [estimate.to_dict(arrays=arrays) for estimate in self.estimates],
            "behaviour": asdict(self.behaviour),
            "data": self.data,
            "diagnosis": None if self.diagnosis is None else self.diagnosis.to_dict(),
            "config": None if self.config is None else plain_settings(self.config),
            **provenance(),
        }


def evaluate(
    data: Trajectories,
    policy: Policy,
    estimator: Estimator,
    *,
    seed: int,
    diagnosis: DiagnosisConfig | None = LOOK,
    refuse: bool | Thresholds = False,
    progress: Progress = silent,
) -> Evaluation:
    """Fit to the log and estimate; what cannot work is refused before the fit.

    Whether the data can tell the value is looked at too: the estimates' warnings say what is wrong.

    Args:
        data: the log.
        policy: the target policy.
        estimator: any; beside LFIW, the plain model of the same fit is told too.
        seed: of everything that is random.
        diagnosis: how closely data, policy and model are looked at; None does not look.
        refuse: give no number where the data cannot tell it, by the default thresholds or by these.
        progress: told how far the work is.

    Raises:
        RefusedError: if the answer is refused; it says why.
        PolicyError: if the policy is for other spaces, or fails at the data's states.
        ConfigError: if a setting is out of its range.
        DataError: if there are too few episodes, or the log cannot tell the value.
        DivergedError: if a training or the simulation diverges.
    """
    thresholds = thresholds_of(refuse)
    sizes = {"state_size": data.state_size, "action_size": data.action_size}
    check_policy(policy, **sizes, action_kind=data.action_spec.kind)
    probe(policy, torch.from_numpy(data.initial_states[:2]))
    fitted = estimator.fit(data, seed, progress=progress)
    estimates = _estimates(fitted, policy, progress)
    found = None
    if diagnosis is not None and concerns_of(estimates[0]):
        model = model_of(fitted)
        found = diagnose(
            *(data, policy, estimator.estimand),
            config=diagnosis,
            dynamics=None if model is None else model.dynamics,
            ratio=None if model is None else model.ratio,
            held_out=() if model is None else model.held_out,
            seed=seed,
            progress=progress,
        )
    reasons = () if thresholds is None else thresholds.reasons(estimates[0], found)
    if reasons:
        raise RefusedError(reasons)
    return Evaluation(
        estimates=tuple(_told(estimate, found) for estimate in estimates),
        behaviour=BehaviourReturn.of(data, estimator.estimand),
        data=repr(data),
        config=getattr(estimator, "config", None),
        diagnosis=found,
        logged_returns=data.returns(estimator.estimand.horizon, estimator.estimand.discount),
    )


def _told(estimate: Estimate, diagnosis: Diagnosis | None) -> Estimate:
    """The estimate with what the diagnosis warns of, as far as it concerns it."""
    if diagnosis is None:
        return estimate
    more = warnings_of(diagnosis, concerns_of(estimate))
    return replace(estimate, warnings=(*estimate.warnings, *more))


def _estimates(fitted: Fitted, policy: Policy, progress: Progress) -> tuple[Estimate, ...]:
    if not isinstance(fitted, FittedModel) or not fitted.weighting.needs_ratio:
        return (fitted.estimate(policy, progress=progress),)
    forms = [fitted.weighting, Weighting(form="uniform")]
    weighted, plain = fitted.estimate_forms([policy], forms, progress=progress)[0]
    return fitted.answer(weighted, plain), plain


def save_evaluation(
    result: Evaluation, folder: Path, name: str, about: dict[str, Any]
) -> tuple[Path, Path]:
    """Write JSON, with every rollout's return and weight, and a figure; each whole or not at all.

    Args:
        result: what is written.
        folder: where to.
        name: the files' stem.
        about: put before the result, such as the command that made it.
    """
    stored = {**about, **result.to_dict(arrays=True)}
    saved = write_text(
        folder / f"{name}.json", json.dumps(stored, indent=1, allow_nan=False) + "\n"
    )
    first = result.estimate
    # Of rollouts that all count the same there is nothing to draw.
    weighted = first.ess is not None and first.ess < 0.999 * (first.rollouts or 0)
    distributed = result.estimates[-1].returns is not None
    figure = new_figure(5 + 4 * (distributed + weighted), 4)
    axes = figure.subplots(1, 1 + distributed + weighted, squeeze=False)[0]
    plot_estimates(axes[0], result.estimates, behaviour=result.behaviour.mean)
    if distributed:
        plot_returns(axes[1], result.estimates[-1], result.logged_returns)
    if weighted:
        plot_weights(axes[2], first)
    figure.suptitle(f"{name}: value over {first.estimand.horizon} steps")
    return saved, save_figure(figure, folder / f"{name}.png")

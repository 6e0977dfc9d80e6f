"""One policy's value from one log: the main job, as a pipeline does it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lfiw_ope.answering import Estimator, Fitted
from lfiw_ope.behaviour_return import BehaviourReturn
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.fitted import FittedModel
from lfiw_ope.plots import new_figure, plot_estimates, plot_returns, plot_weights, save_figure
from lfiw_ope.policies.stacking import check_policy, probe
from lfiw_ope.results import Estimate
from lfiw_ope.stored import plain_settings, provenance, write_text
from lfiw_ope.types import Policy, Progress, silent
from lfiw_ope.weighting import Weighting


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is said of one policy.

    Attributes:
        estimates: the answer first; then, beside LFIW, the plain model from the same rollouts.
        behaviour: what the log itself says.
        data: the log, in words.
        config: of the estimator; None where it has none.
        logged_returns: `[N]`, over the horizon and discounted, as far as they were logged.
    """

    estimates: tuple[Estimate, ...]
    behaviour: BehaviourReturn
    data: str
    config: Any
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
            "config": None if self.config is None else plain_settings(self.config),
            **provenance(),
        }


def evaluate(
    data: Trajectories,
    policy: Policy,
    estimator: Estimator,
    *,
    seed: int,
    progress: Progress = silent,
) -> Evaluation:
    """Fit to the log and estimate; what cannot work is refused before the fit.

    Args:
        data: the log.
        policy: the target policy.
        estimator: any; beside LFIW, the plain model of the same fit is told too.
        seed: of everything that is random.
        progress: told how far the work is.

    Raises:
        PolicyError: if the policy is for other spaces, or fails at the data's states.
        ConfigError: if a setting is out of its range.
        DataError: if there are too few episodes, or the log cannot tell the value.
        DivergedError: if a training or the simulation diverges.
    """
    sizes = {"state_size": data.state_size, "action_size": data.action_size}
    check_policy(policy, **sizes, action_kind=data.action_spec.kind)
    probe(policy, torch.from_numpy(data.initial_states[:2]))
    fitted = estimator.fit(data, seed, progress=progress)
    return Evaluation(
        estimates=_estimates(fitted, policy, progress),
        behaviour=BehaviourReturn.of(data, estimator.estimand),
        data=repr(data),
        config=getattr(estimator, "config", None),
        logged_returns=data.returns(estimator.estimand.horizon, estimator.estimand.discount),
    )


def _estimates(fitted: Fitted, policy: Policy, progress: Progress) -> tuple[Estimate, ...]:
    if not isinstance(fitted, FittedModel) or fitted.weighting.form == "uniform":
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
    weighted = len(result.estimates) > 1
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

"""One policy's value from one log: the main job, as a pipeline does it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lfiw_ope.behaviour_return import BehaviourReturn
from lfiw_ope.checks import choice, whole
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import DynamicsConfig
from lfiw_ope.estimand import Estimand
from lfiw_ope.estimators.base import SimulationConfig
from lfiw_ope.estimators.lfiw import LFIW, LFIWConfig
from lfiw_ope.estimators.model_based import ModelBased, ModelBasedConfig
from lfiw_ope.nn.fit_config import FitConfig
from lfiw_ope.plots import new_figure, plot_estimates, plot_returns, plot_weights, save_figure
from lfiw_ope.policies.stacking import check_policy, probe
from lfiw_ope.ratio import RatioConfig
from lfiw_ope.results import Estimate, plain_settings, provenance, write_text
from lfiw_ope.types import Policy, Progress, Reward, Termination, silent
from lfiw_ope.weighting import Weighting

ESTIMATORS = ("lfiw", "model")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is said of one policy.

    Attributes:
        estimates: the answer first; then, beside LFIW, the plain model from the same rollouts.
        behaviour: what the log itself says.
        data: the log, in words.
        config: of the estimator.
        logged_returns: `[N]`, over the horizon and discounted, as far as they were logged.
    """

    estimates: tuple[Estimate, ...]
    behaviour: BehaviourReturn
    data: str
    config: SimulationConfig
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
            "config": plain_settings(self.config),
            **provenance(),
        }


def evaluate(
    data: Trajectories,
    policy: Policy,
    estimand: Estimand,
    *,
    seed: int,
    config: SimulationConfig,
    reward: Reward | None = None,
    termination: Termination | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Fit to the log and simulate the policy; what cannot work is refused before the fit.

    Args:
        data: the log.
        policy: the target policy.
        estimand: what is estimated.
        seed: of everything that is random.
        config: an `LFIWConfig`, or a `ModelBasedConfig` for the plain model.
        reward: the reward function, where it is known exactly; else it is learned.
        termination: the termination rule, where it is known; else it is learned.
        progress: told how far the work is.

    Raises:
        PolicyError: if the policy is for other spaces, or fails at the data's states.
        ConfigError: if a setting is out of its range.
        DataError: if there are too few episodes.
        DivergedError: if a training or the simulation diverges.
    """
    sizes = {"state_size": data.state_size, "action_size": data.action_size}
    check_policy(policy, **sizes, action_kind=data.action_spec.kind)
    probe(policy, torch.from_numpy(data.initial_states[:2]))
    known: dict[str, Any] = {"reward": reward, "termination": termination}
    weightings = [Weighting(form="uniform")]
    if isinstance(config, LFIWConfig):
        fitted = LFIW(estimand, config, **known).fit(data, seed, progress=progress)
        if config.weighting != weightings[0]:
            weightings.insert(0, config.weighting)
    else:
        plain = ModelBasedConfig(dynamics=config.dynamics, rollouts=config.rollouts)
        fitted = ModelBased(estimand, plain, **known).fit(data, seed, progress=progress)
    estimates = fitted.estimate_forms([policy], weightings, progress=progress)[0]
    estimates[0] = fitted.answer(estimates[0], estimates[-1])
    return Evaluation(
        estimates=tuple(estimates),
        behaviour=BehaviourReturn.of(data, estimand),
        data=repr(data),
        config=config,
        logged_returns=data.returns(estimand.horizon, estimand.discount),
    )


def configuration(
    estimator: str,
    *,
    rollouts: int,
    updates: int,
    precision: Literal["float32", "bfloat16"] = "float32",
    device: str = "cpu",
) -> SimulationConfig:
    """The settings that the command line offers, the defaults for everything else.

    Args:
        estimator: "lfiw" or "model".
        rollouts: n.
        updates: of the dynamics; the classifiers take half as many.
        precision: of training and rollouts.
        device: where everything runs.

    Raises:
        ConfigError: if there is no estimator of the name, or a setting is out of its range.
    """
    choice("estimator", estimator, ESTIMATORS)
    whole("updates", updates, least=2)
    fit, other = (
        FitConfig(updates=count, evaluate_every=min(every, count), precision=precision)
        for count, every in ((updates, 200), (updates // 2, 100))
    )
    dynamics = DynamicsConfig(device=device, fit=fit)
    if estimator == "model":
        return ModelBasedConfig(dynamics=dynamics, rollouts=rollouts)
    return LFIWConfig(dynamics=dynamics, rollouts=rollouts, ratio=RatioConfig(fit=other))


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
    figure = new_figure(13 if weighted else 9, 4)
    axes = figure.subplots(1, 2 + weighted)
    plot_estimates(axes[0], result.estimates, behaviour=result.behaviour.mean)
    plot_returns(axes[1], result.estimates[-1], result.logged_returns)
    if weighted:
        plot_weights(axes[2], first)
    figure.suptitle(f"{name}: value over {first.estimand.horizon} steps")
    return saved, save_figure(figure, folder / f"{name}.png")

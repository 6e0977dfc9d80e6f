"""The main job on a shipped task: behaviour data in, the target policy's value out."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lfiw_envs import MeasuredValue, Task

from lfiw_ope.catalogue import Options, lfiw
from lfiw_ope.data.collect import collect
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimand import Estimand
from lfiw_ope.estimators.lfiw import LFIWConfig
from lfiw_ope.plots import new_figure, plot_ess, plot_estimates, plot_weights, save_figure
from lfiw_ope.policies.actor_file import load_actor
from lfiw_ope.results import Estimate
from lfiw_ope.stored import plain_settings, provenance, write_text
from lfiw_ope.types import Progress, silent
from lfiw_ope.weighting import Weighting

ENVIRONMENTS = 50
"""Played side by side when collecting: enough to make the policy's batches worth while."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        task: name.
        command: that gives this result.
        truth: the target's measured value.
        behaviour: the log's mean return.
        data: the log, in words.
        answer: what `LFIW` says, which may be the plain model's value.
        estimates: the plain model, then each form of weights, as they are.
        config: of the estimator.
    """

    task: str
    command: str
    truth: MeasuredValue
    behaviour: float
    data: str
    answer: Estimate
    estimates: tuple[Estimate, ...]
    config: LFIWConfig

    def error(self, estimate: Estimate) -> float:
        """Estimate minus truth."""
        return estimate.value - self.truth.mean


def forms(horizon: int) -> list[Weighting]:
    """The plain model, the published forms, and ours."""
    first = round(0.8 * horizon)
    return [
        Weighting(form="uniform"),
        Weighting(),
        Weighting(first=first),
        Weighting(form="stepwise"),
        Weighting(form="stepwise", first=first),
        Weighting(conditional=True),
        Weighting(form="stepwise", conditional=True),
        Weighting(conditional=True, temper=0.5),
        Weighting(conditional=True, first_ess=0.5),
        Weighting(form="uniform", candidates=4),
    ]


def run_demo(
    task: Task,
    *,
    seed: int,
    episodes: int = 500,
    options: Options | None = None,
    progress: Progress = silent,
) -> DemoResult:
    """Collect behaviour data in the real simulator, fit, and evaluate the target policy.

    Args:
        task: one with a behaviour and a target policy.
        seed: of data, training and rollouts.
        episodes: to collect.
        options: rollouts, updates and device; None is the estimator's defaults.
        progress: told how far each stage is.

    Raises:
        ConfigError: if a setting is out of its range.
        DataError: if there are too few episodes.
        DivergedError: if a training or the simulation diverges.
    """
    options = options or Options()
    estimator = lfiw(Estimand(task.horizon, task.discount), options)
    data = _collect(task, episodes, seed, progress)
    fitted = estimator.fit(data, seed, progress=progress)
    target = load_actor(task.policy_path("target"))
    every = [*forms(task.horizon), fitted.weighting]
    estimates = fitted.estimate_forms([target], every, progress=progress)[0]
    answer = fitted.answer(estimates.pop(), estimates[0])
    return DemoResult(
        task=task.name,
        command=_command(task, seed, episodes, options),
        truth=task.value("target"),
        behaviour=float(data.returns(task.horizon, task.discount).mean()),
        data=repr(data),
        answer=answer,
        estimates=tuple(estimates),
        config=estimator.config,
    )


def _command(task: Task, seed: int, episodes: int, options: Options) -> str:
    given = {"seed": seed, "episodes": episodes, **options.changed()}
    return " ".join([f"lfiw-ope demo {task.name}", *(f"--{k} {v}" for k, v in given.items())])


def _collect(task: Task, episodes: int, seed: int, progress: Progress) -> Trajectories:
    env = task.make_vector(min(ENVIRONMENTS, max(episodes, 1)))
    try:
        behaviour = load_actor(task.policy_path("behaviour"))
        return collect(env, behaviour, episodes=episodes, seed=seed, progress=progress)
    finally:
        env.close()


def save_demo(result: DemoResult, folder: Path) -> tuple[Path, Path]:
    """Write the result as JSON and as a figure; each appears whole or not at all."""
    stored = {
        "task": result.task,
        "command": result.command,
        "truth": asdict(result.truth),
        "behaviour_mean_return": result.behaviour,
        "data": result.data,
        "config": plain_settings(result.config),
        **provenance(),
        "answer": _row(result, result.answer),
        "estimates": [_row(result, estimate) for estimate in result.estimates],
    }
    text = json.dumps(stored, indent=1, allow_nan=False)
    saved = write_text(folder / f"demo_{result.task}.json", text + "\n")
    return saved, _save_figure(result, folder / f"demo_{result.task}.png")


def _row(result: DemoResult, estimate: Estimate) -> dict[str, Any]:
    return {**estimate.to_dict(arrays=False), "error": result.error(estimate)}


def _save_figure(result: DemoResult, path: Path) -> Path:
    figure = new_figure(13, 4)
    left, middle, right = figure.subplots(1, 3)
    truth = (result.truth.mean, result.truth.standard_error)
    shown = (*result.estimates, result.answer)
    plot_estimates(left, shown, truth=truth, behaviour=result.behaviour)
    by_name = {estimate.estimator: estimate for estimate in result.estimates}
    plot_ess(middle, [by_name["stepwise"], by_name["c-stepwise"]])
    plot_weights(right, by_name["c-LFIW"])
    steps = result.estimates[0].estimand.horizon
    figure.suptitle(f"{result.task}: value of the target policy over {steps} steps")
    return save_figure(figure, path)


def relative_error(result: DemoResult, estimate: Estimate) -> float:
    """|estimate − truth| / |truth|"""
    return float(np.abs(result.error(estimate)) / max(abs(result.truth.mean), 1e-12))

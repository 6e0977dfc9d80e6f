"""The main job on a shipped task: logged data in, the target policy's value out, beside the truth.

The case that is shown by default is a stochastic one; its size was chosen by what it takes to run.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lfiw_envs import LADDERS, PAPER, Ladder, LadderValue, Question
from numpy.typing import NDArray

from lfiw_ope.benchmark.datasets import dataset
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.seeding import derive
from lfiw_ope.core.serialization import plain_settings, provenance, write_text
from lfiw_ope.data.censoring import PaddedEpisodes
from lfiw_ope.data.collect import collect
from lfiw_ope.dynamics.rollout import simulate
from lfiw_ope.estimators.fitted_model import FittedModel
from lfiw_ope.estimators.lfiw import LFIWConfig
from lfiw_ope.estimators.registry import Options, estimators_named, lfiw
from lfiw_ope.evaluation.plots import new_figure, plot_estimates, plot_returns_so_far, save_figure
from lfiw_ope.policies.files import load_actor
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.weighting import Weighting

FQE_UPDATES = 5000
"""A quarter of the default, so that the demo takes less than three minutes; its target networks
follow faster for it."""

PLAYED = 100
"""Real episodes of the target for the figure; the true value is of many more."""


@dataclass(frozen=True)
class DemoCase:
    """What the demo evaluates.

    Attributes:
        ladder: the environment, with its policies and their true values.
        data: which of the ladder's recipes is logged.
        target: policy that is evaluated; it has not acted in the log.
        transitions: that are logged, if not told otherwise.
        said: the case, in a sentence.
    """

    ladder: Ladder
    data: str
    target: str
    transitions: int
    said: str

    @property
    def question(self) -> str:
        """The ladder's question of the shortest horizon, by its name."""
        return min(self.ladder.questions, key=lambda name: self.ladder.questions[name].horizon)

    @property
    def asked(self) -> Question:
        """Horizon and discount."""
        return self.ladder.question(self.question)

    @property
    def truth(self) -> LadderValue:
        """The target's value, measured by playing it in the real environment."""
        return self.ladder.value(self.target, self.question)


DEMOS = {
    "ledge": DemoCase(
        LADDERS["ledge"],
        "replay",
        "sac_1",
        20_000,
        "A point mass is paid for walking near an edge, and random gusts throw it off. Five stages "
        "of a policy in training (PPO) were logged; the target was trained by another algorithm "
        "(SAC).",
    ),
    **{
        name: DemoCase(
            ladder,
            "behaviour",
            "target",
            50_000,
            f"The behaviour and the target policy of {ladder.env_id} are those of the paper's "
            "comparison.",
        )
        for name, ladder in PAPER.items()
    },
}
"""By name; the first is the default."""


@dataclass(frozen=True)
class DemoRow:
    """One way to tell the target's value.

    Attributes:
        name: in a few words.
        estimate: what it says.
        error: estimate minus truth.
    """

    name: str
    estimate: Estimate
    error: float


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        name: of the case.
        command: that gives this result.
        truth: the target's measured value.
        data: the log, in words.
        rows: the log's mean return, the model without weights, the published product, FQE, `LFIW`.
        chosen: noise and weights that `LFIW` chose; None where there was nothing to choose by.
        config: of `LFIW`.
        returns_so_far: `[n, T]` each, Σ_{u<=t} γ^u r_u of some real episodes of the target, and
            of the simulated ones that `model` and `LFIW()` are means of.
    """

    name: str
    command: str
    truth: LadderValue
    data: str
    rows: tuple[DemoRow, ...]
    chosen: str | None
    config: LFIWConfig
    returns_so_far: dict[str, NDArray[np.float64]]

    @property
    def answer(self) -> Estimate:
        """What `LFIW` says."""
        return self.rows[-1].estimate

    def to_dict(self) -> dict[str, Any]:
        """All but the trajectories, plain enough for JSON."""
        return {
            "demo": self.name,
            "command": self.command,
            "truth": asdict(self.truth),
            "data": self.data,
            "config": plain_settings(self.config),
            **provenance(),
            "chosen": self.chosen,
            "rows": [
                {"row": row.name, **row.estimate.to_dict(arrays=False), "error": row.error}
                for row in self.rows
            ],
        }


def run_demo(
    name: str,
    *,
    seed: int,
    transitions: int | None = None,
    options: Options | None = None,
    progress: Progress = silent,
) -> DemoResult:
    """Log behaviour in the real simulator, fit, and evaluate the target policy.

    Args:
        name: in `DEMOS`.
        seed: of data, training and rollouts.
        transitions: to log; None is the case's own number.
        options: rollouts, updates and device; None is the estimators' defaults. What is known of
            the environment's reward and termination is used, whatever they say.
        progress: told how far each stage is.

    Raises:
        ConfigError: if a setting is out of its range.
        DataError: if there are too few episodes.
        DivergedError: if a training or the simulation diverges.
    """
    case = DEMOS[name]
    options = options or Options()
    command = _command(name, seed, transitions, options)
    known = case.ladder.rules()
    options = replace(options, reward=known.reward, termination=known.termination)
    count = case.transitions if transitions is None else transitions
    estimand = Estimand(*case.asked)
    estimator = lfiw(estimand, options)
    quicker = replace(options, rollouts=None, updates=options.updates or FQE_UPDATES)
    others = estimators_named(("behaviour", "fqe"), estimand, quicker)
    data = dataset(case.ladder, case.data, count, seed, cache=None, progress=progress)
    target = load_actor(case.ladder.policy_path(case.target))

    fitted = estimator.fit(data, seed, progress=progress)
    forms = [Weighting(form="uniform"), Weighting(), fitted.weighting]
    model, product, weighted = fitted.estimate_forms([target], forms, progress=progress)[0]
    logged, fqe = (
        other.fit(data, seed, progress=progress).estimate(target) for other in others.values()
    )
    found = {
        "log's mean return": logged,
        "model": model,
        "published product": product,
        "FQE": fqe,
        "LFIW()": fitted.answer(weighted, model),
    }
    truth = case.truth
    return DemoResult(
        name=name,
        command=command,
        truth=truth,
        data=repr(data),
        rows=tuple(DemoRow(row, of, of.value - truth.mean) for row, of in found.items()),
        chosen=None if fitted.selection is None else str(fitted.selection.chosen),
        config=estimator.config,
        returns_so_far=_returns_so_far(case, fitted, target, seed),
    )


def _command(name: str, seed: int, transitions: int | None, options: Options) -> str:
    given = {"transitions": transitions} if transitions is not None else {}
    given = {"seed": seed, **given, **options.changed()}
    return " ".join([f"lfiw-ope demo {name}", *(f"--{k} {v}" for k, v in given.items())])


def _returns_so_far(
    case: DemoCase, fitted: FittedModel, target: Policy, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Of real episodes, and of the very rollouts that the estimates rest on."""
    env = case.ladder.make_vector(PLAYED)
    try:
        played = collect(env, target, episodes=PLAYED, seed=derive(seed, "demo", "played"))
    finally:
        env.close()
    found = {"real": PaddedEpisodes.of(played, case.asked.horizon).rewards.numpy()}
    shown = [("model", fitted.plain_model())]
    if fitted.weighting.candidates > 1:
        shown.append(("LFIW()", fitted))
    for name, model in shown:
        rollout = simulate(
            target,
            model.dynamics,
            model.initial_states,
            horizon=case.asked.horizon,
            rollouts=model.rollouts,
            seed=model.seed,
            ratio=model.ratio_for(model.weighting),
            candidates=model.weighting.candidates,
        )
        found[name] = rollout.rewards[0].double().cpu().numpy()
    discounts = case.asked.discount ** np.arange(case.asked.horizon)
    return {name: np.cumsum(discounts * rewards, axis=1) for name, rewards in found.items()}


def save_demo(result: DemoResult, folder: Path) -> tuple[Path, Path]:
    """Write the result as JSON and as a figure; each appears whole or not at all."""
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False)
    saved = write_text(folder / f"demo_{result.name}.json", text + "\n")
    return saved, _save_figure(result, folder / f"demo_{result.name}.png")


def _save_figure(result: DemoResult, path: Path) -> Path:
    figure = new_figure(13, 4)
    left, right = figure.subfigures(1, 2, width_ratios=(2, 3))
    truth = result.truth.mean, result.truth.standard_error
    names = [row.name for row in result.rows]
    estimates = [row.estimate for row in result.rows]
    plot_estimates(left.subplots(), estimates, names=names, truth=truth)
    panels = right.subplots(1, len(result.returns_so_far), sharey=True, sharex=True)
    for ax, (name, returns) in zip(panels, result.returns_so_far.items(), strict=True):
        plot_returns_so_far(ax, returns, value=result.truth.mean)
        ax.set_title("real" if name == "real" else f"simulated: {name}")
    panels[0].set_ylabel("return so far")
    panels[0].legend(frameon=False, fontsize=8, loc="upper left")
    steps = DEMOS[result.name].asked.horizon
    figure.suptitle(f"{result.name}: what is the target policy worth over {steps} steps?")
    return save_figure(figure, path)

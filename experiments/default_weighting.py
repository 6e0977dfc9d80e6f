"""Is any form of weights better than what `LFIW()` chooses? Asked on all development tasks.

    python experiments/default_weighting.py                     # all cells, one after the other
    python experiments/default_weighting.py --worker 0 --threads 1 & \\
        python experiments/default_weighting.py --worker 1 --threads 1
    python experiments/default_weighting.py --report-only

A cell is a development task and a seed: its "replay" data of 1e5 transitions, the ten policies of
its ladder, its shortest horizon, 500 rollouts. One fit of `LFIW()` gives all forms; the weighted
ones are simulated with bootstrap noise, which their ratio rests on. A task's error is the root mean
square, over seeds and the policies that the data support, of estimate minus measured value in
ranges of the ladder. Nothing is refused, capped or left out.

The rule, written before any result of these tasks was seen: the default stays unless the named form
of least mean error over tasks is better than it by more than the standard error of that gain over
tasks, both with all tasks and, chosen without each task in turn, in the mean over the tasks left
out: with dozens of forms one is best by luck.

The precision is pinned to bfloat16. A finished cell is a file in `results/default_weighting/` and
is not repeated; `results/default_weighting.{json,md,png}` are written from all there are.
"""

import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import typer
from cells import ReportOnly, Threads, Worker, asked, commit, default_settings, finished, shortest
from lfiw_envs import LADDERS
from lfiw_envs.ladders import DEVELOPMENT
from noise_and_weights import DATA, INTERVAL
from numpy.typing import NDArray

import lfiw_ope as ope
from lfiw_ope.benchmark import SUPPORTED
from lfiw_ope.core import write_text
from lfiw_ope.evaluation import PLAIN, TRUTH, WEIGHTED, new_figure, save_figure

RESULTS = Path(__file__).parent / "results"
CELLS = RESULTS / "default_weighting"
SEEDS = (0, 1)
ROLLOUTS = 500
DEFAULT = "LFIW()"
SHARES = (0.1, 0.25, 0.5, 0.8)


def forms() -> dict[str, ope.Weighting]:
    """Named forms of weights."""
    made = [
        ope.Weighting(form=form, conditional=conditional, temper=temper)  # type: ignore[arg-type]
        for form, conditional in product(("trajectory", "stepwise"), (False, True))
        for temper in (None, *SHARES)
    ]
    for conditional in (False, True):
        made += [ope.Weighting(conditional=conditional, first_ess=share) for share in (0.1, 0.5)]
        made += [
            ope.Weighting(conditional=conditional, exponent=0.5),
            ope.Weighting(conditional=conditional, clip=(0.1, 10.0)),
        ]
    made += [
        ope.Weighting(form="uniform", candidates=k, calibrated=calibrated)
        for calibrated in (False, True)
        for k in (4, 16)
    ]
    named = {one.label + ", calibrated" * one.calibrated: one for one in made}
    named["SIR 4, mean weight carried"] = ope.Weighting(candidates=4)
    return named


def run(task: str, seed: int) -> dict[str, Any]:
    """One cell: the error of every form on every policy."""
    ladder = LADDERS[task]
    name = shortest(ladder)
    of = asked(ladder, DATA, name, seed)
    policies = of.policies
    dynamics, ratio = default_settings()
    config = ope.LFIWConfig(
        dynamics=dynamics, ratio=ratio, rollouts=ROLLOUTS, draws=8, interval=INTERVAL
    )
    lfiw = ope.LFIW(of.estimand, config, **of.known)
    started = time.perf_counter()
    fitted = lfiw.fit(of.log, seed)
    middle = time.perf_counter()
    assert fitted.selection is not None
    assert fitted.ratio is not None
    values = {DEFAULT: [one.value for one in fitted.estimate(policies)]}
    for candidate in lfiw.candidates():
        if candidate.sir_candidates == 1:
            plain = fitted.with_candidate(candidate)
            name_of = f"model, {candidate} noise".replace("none noise", "no noise")
            values[name_of] = [one.value for one in plain.estimate(policies)]
    for of_policy in fitted.estimate_forms(policies, list(forms().values())):
        for form, estimate in zip(forms(), of_policy, strict=True):
            values.setdefault(form, []).append(estimate.value)
    return {
        "task": task,
        "seed": seed,
        "question": name,
        "supported": [ladder.support(policy, DATA) >= SUPPORTED for policy in ladder.targets],
        "chosen": str(fitted.selection.chosen),
        "accuracy": fitted.ratio.report.accuracy,
        "seconds": {"fit": middle - started, "forms": time.perf_counter() - middle},
        "commit": commit(),
        "errors": {form: of.errors(estimated) for form, estimated in values.items()},
    }


def task_errors(stored: list[dict[str, Any]], form: str) -> NDArray[np.float64]:
    """`[tasks]`, root mean square errors."""
    squares: dict[str, list[float]] = {}
    for cell in stored:
        errors = np.array(cell["errors"][form])[np.array(cell["supported"])]
        squares.setdefault(cell["task"], []).extend(errors**2)
    return np.array([np.sqrt(np.mean(of)) for of in squares.values()])


def gain(default: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over tasks of how much less the other's error is, and its standard error."""
    difference = default - other
    return float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)


def report(stored: list[dict[str, Any]]) -> dict[str, Any]:
    """All forms, and the rule carried out."""
    tasks = list(dict.fromkeys(cell["task"] for cell in stored))
    errors = {form: task_errors(stored, form) for form in stored[0]["errors"]}
    default = errors[DEFAULT]
    rest = [form for form in errors if form != DEFAULT]
    best = min(rest, key=lambda form: errors[form].mean())
    left_out = []
    for place, task in enumerate(tasks):
        kept = np.arange(len(tasks)) != place
        other = min(rest, key=lambda form: errors[form][kept].mean())
        left_out.append((task, other, float(default[place] - errors[other][place])))
    gained = np.array([one[-1] for one in left_out])
    mean, error = gain(default, errors[best])
    elsewhere, elsewhere_error = gained.mean(), gained.std(ddof=1) / len(gained) ** 0.5
    return {
        "command": "python experiments/default_weighting.py",
        "commits": sorted({cell["commit"] for cell in stored}),
        "tasks": tasks,
        "seeds": sorted({cell["seed"] for cell in stored}),
        "best": best,
        "gain": [mean, error],
        "left_out": left_out,
        "left_out_gain": [float(elsewhere), float(elsewhere_error)],
        "default_stays": bool(mean <= error or elsewhere <= elsewhere_error),
        "forms": {
            form: {
                "error": float(of.mean()),
                "gain": gain(default, of),
                "ratio": float(np.exp(np.log(of / default).mean())),
                "worst_ratio": float((of / default).max()),
                "by_task": [float(one) for one in of],
            }
            for form, of in sorted(errors.items(), key=lambda item: item[1].mean())
        },
    }


def markdown(said: dict[str, Any]) -> str:
    """The same as a page."""
    lines = ["# Is any form of weights better than what `LFIW()` chooses?", ""]
    lines += [__doc__.split("\n\n", 2)[2].strip(), ""]
    (mean, error), (there, there_error) = said["gain"], said["left_out_gain"]
    verdict = "The default stays." if said["default_stays"] else "The default should change."
    lines += [
        f"Commits {', '.join(said['commits'])}; seeds {', '.join(map(str, said['seeds']))}. Best "
        f"named form: {said['best']}, its gain over the default {mean:+.4f} ± {error:.4f}; on "
        f"tasks left out {there:+.4f} ± {there_error:.4f}. **{verdict}**",
        "",
        "Errors in ranges of the ladder. Gain: over the default, ± its standard error over tasks. "
        "Ratio: of errors to the default's, geometric mean over tasks, and the worst task.",
        "",
        "| form | error | gain | ratio | worst | " + " | ".join(said["tasks"]) + " |",
        "| --- | ---: | ---: | ---: | ---: |" + " ---: |" * len(said["tasks"]),
    ]
    for form, row in said["forms"].items():
        name = f"**{form}**" if form == DEFAULT else form
        lines.append(
            f"| {name} | {row['error']:.3f} | {row['gain'][0]:+.3f} ± {row['gain'][1]:.3f} "
            f"| {row['ratio']:.2f} | {row['worst_ratio']:.2f} | "
            + " | ".join(f"{one:.3f}" for one in row["by_task"])
            + " |"
        )
    lines += ["", "| left out | best of the rest | its gain there |", "| --- | --- | ---: |"]
    lines += [f"| {task} | {form} | {one:+.3f} |" for task, form, one in said["left_out"]]
    return "\n".join(lines) + "\n"


def draw(said: dict[str, Any]) -> Any:
    """Each form's error over the default's, task by task, and the geometric mean."""
    rows = sorted(said["forms"].items(), key=lambda item: -item[1]["ratio"])
    default = np.array(said["forms"][DEFAULT]["by_task"])
    figure = new_figure(7.5, 0.24 * len(rows) + 1.2)
    ax = figure.add_subplot()
    for height, (form, row) in enumerate(rows):
        colour = PLAIN if form.startswith("model") else WEIGHTED
        ratios = np.array(row["by_task"]) / default
        ax.plot(ratios, [height] * len(ratios), "o", color=colour, alpha=0.35, ms=4)
        ax.plot(row["ratio"], height, "D", color=TRUTH, ms=5)
    ax.axvline(1.0, color=TRUTH, lw=1)
    ax.set_xscale("log")
    ax.set_yticks(range(len(rows)), [form for form, _ in rows], fontsize=8)
    ax.set_xlabel("error over that of LFIW() (dots: tasks; diamonds: geometric mean)")
    return figure


def main(worker: Worker = None, threads: Threads = 2, report_only: ReportOnly = False) -> None:
    keys = [(task, seed) for seed, task in product(SEEDS, DEVELOPMENT)]
    stored = finished(CELLS, keys, run, worker=worker, threads=threads, report_only=report_only)
    said = report(stored)
    write_text(RESULTS / "default_weighting.json", json.dumps(said, indent=1) + "\n")
    write_text(RESULTS / "default_weighting.md", markdown(said))
    save_figure(draw(said), RESULTS / "default_weighting.png")


if __name__ == "__main__":
    typer.run(main)

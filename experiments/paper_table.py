"""The table of Grover et al. (2019) on three tasks, and the same on policies that a log supports.

    python experiments/paper_table.py                     # all cells, one after the other
    python experiments/paper_table.py --worker 0 --threads 1 & \\
        python experiments/paper_table.py --worker 1 --threads 1
    python experiments/paper_table.py --report-only

A cell is a pair of policies and a seed: 500 episodes of 100 steps of one are logged, and the value
of the other over 100 steps is estimated, by 1000 rollouts. "paper" are the pairs of the shipped
tasks, made like the paper's: a behaviour, and a target that was trained much longer. "ladder" are
the policies at 0.35 and at 0.5 of a ladder's first training run: what its training reached next.

- LFIW(): the default settings. "model" is its own model without weights.
- published: ten classifiers of the raw transitions, 2000 updates each, every one of which weighs
  the rollouts on its own, and whose estimates are averaged; neither calibrated nor smoothed, no
  fallback. Their dynamics are trained as the default's, and have Gaussian noise; "Gaussian model"
  is these without weights. `LFIW.paper()` has the paper's own, larger networks: hours a fit on a
  CPU.

One seed is everything's: the log, the networks, the rollouts. True values are measured by playing
and used for nothing but the errors. What is known of an environment's reward and termination is
used. The precision is pinned to bfloat16. A finished cell is a file in `results/paper_table/` and
is not repeated; `results/paper_table.{json,md,png}` are written from all there are.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import typer
from cells import (
    ReportOnly,
    Threads,
    Worker,
    commit,
    default_settings,
    finished,
    pinned,
    rules,
)
from lfiw_envs import LADDERS, PAPER, Ladder

import lfiw_ope as ope
from lfiw_ope.benchmark import SUPPORTED, dataset
from lfiw_ope.core import provenance, write_text
from lfiw_ope.evaluation import PLAIN, TRUTH, WEIGHTED, new_figure, save_figure

RESULTS = Path(__file__).parent / "results"
CELLS = RESULTS / "paper_table"
TASKS = ("swimmer", "half_cheetah", "humanoid_standup")
SEEDS = range(5)
STEPS = 100
TRANSITIONS = 50_000
QUESTION = "T100"

W = ope.Weighting
PUBLISHED = [W(), W(first=80), W(form="stepwise"), W(form="stepwise", first=80)]


class Pair(NamedTuple):
    """A logged policy and an evaluated one.

    Attributes:
        kind: "paper" or "ladder".
        ladder: of both, with episodes of 100 steps.
        data: recipe of the log.
        target: the evaluated policy.
        support: share of what the target does that the log's region holds.
    """

    kind: str
    ladder: Ladder
    data: str
    target: str
    support: float


def pair(kind: str, task: str) -> Pair:
    if kind == "paper":
        ladder = PAPER[task]
        return Pair(kind, ladder, "behaviour", "target", ladder.support("target", "behaviour"))
    ladder = LADDERS[task]
    first = ladder.recipe("medium")[0].rpartition("_")[0]
    target = f"{first}_0.5"
    support = ladder.support(target, "medium")
    short = replace(ladder, episode=STEPS, questions={QUESTION: ladder.question(QUESTION)})
    return Pair(kind, short, "medium", target, support)


def cells() -> list[tuple[str, str, int]]:
    """Kind, task and seed, seed by seed, so that a stopped run has every pair."""
    return [(kind, task, seed) for seed in SEEDS for kind in ("paper", "ladder") for task in TASKS]


def run(kind: str, task: str, seed: int) -> dict[str, Any]:
    """One cell."""
    of = pair(kind, task)
    estimand = ope.Estimand(*of.ladder.question(QUESTION))
    truth = of.ladder.value(of.target, QUESTION)
    log = dataset(of.ladder, of.data, TRANSITIONS, seed)
    target = ope.load_actor(of.ladder.policy_path(of.target))
    dynamics, ratio = default_settings()
    known = rules(of.ladder)
    config = ope.LFIWConfig(dynamics=dynamics, ratio=ratio)
    published = ope.LFIWConfig(
        dynamics=replace(dynamics, noise="gaussian"),
        ratio=ope.RatioConfig(
            members=10,
            features="raw",
            average="estimates",
            calibration="none",
            smoothing=0.0,
            fit=pinned(ope.FitConfig(updates=2000, evaluate_every=100)),
        ),
        weighting=W(),
        fallback=None,
    )
    fitted = ope.LFIW(estimand, config, **known).fit(log, seed)
    theirs = ope.LFIW(estimand, published, **known).fit(log, seed)
    assert fitted.selection is not None
    assert fitted.ratio is not None
    assert theirs.ratio is not None
    gaussian, *forms = theirs.estimate_forms([target], [W(form="uniform"), *PUBLISHED])[0]
    estimates = {
        "model": fitted.plain_model().estimate(target),
        "Gaussian model": gaussian,
        **{f"published {w.label}": one for w, one in zip(PUBLISHED, forms, strict=True)},
        "LFIW()": fitted.estimate(target),
    }
    return {
        "kind": kind,
        "task": task,
        "env_id": of.ladder.env_id,
        "seed": seed,
        "transitions": log.num_transitions,
        "logged": list(of.ladder.recipe(of.data)),
        "target": of.target,
        "support": of.support,
        "truth": {"mean": truth.mean, "standard_error": truth.standard_error},
        "log's mean return": float(log.returns(*of.ladder.question(QUESTION)).mean()),
        "chosen": str(fitted.selection.chosen),
        "accuracy": {
            "LFIW()": fitted.ratio.report.accuracy,
            "published": theirs.ratio.report.accuracy,
        },
        "forms": {name: _row(one, truth.mean) for name, one in estimates.items()},
        "seconds": fitted.seconds,
        "commit": commit(),
        **provenance(),
    }


def _row(estimate: ope.Estimate, truth: float) -> dict[str, Any]:
    interval = estimate.interval(0.95)
    return {
        "value": estimate.value,
        "error": estimate.value - truth,
        "ess": estimate.ess,
        "interval": None if interval is None else [interval.low, interval.high],
    }


def group(own: list[dict[str, Any]]) -> dict[str, Any]:
    """The cells of one pair: each form over seeds."""
    first = own[0]
    truth = first["truth"]["mean"]
    mean_return = float(np.mean([cell["log's mean return"] for cell in own]))
    off = np.array([abs(cell["forms"]["model"]["error"]) for cell in own])
    rows = {}
    for form in first["forms"]:
        of = [cell["forms"][form] for cell in own]
        values, errors = (np.array([one[name] for one in of]) for name in ("value", "error"))
        ends = [one["interval"] for one in of if one["interval"] is not None]
        rows[form] = {
            "value": float(values.mean()),
            "standard_error": float(values.std(ddof=1) / len(of) ** 0.5) if len(of) > 1 else None,
            "mean_absolute_error": float(np.abs(errors).mean()),
            "error_over_models": float(np.median(np.abs(errors) / off)),
            "nearer_than_model": int((np.abs(errors) < off).sum()),
            "ess": None if of[0]["ess"] is None else float(np.median([one["ess"] for one in of])),
            "intervals": len(ends),
            "intervals_that_hold_the_truth": sum(low <= truth <= high for low, high in ends),
        }
    same = ("kind", "task", "env_id", "transitions", "logged", "target", "support", "truth")
    return {
        **{name: first[name] for name in same},
        "seeds": [cell["seed"] for cell in own],
        "log's mean return": mean_return,
        "chosen": [cell["chosen"] for cell in own],
        "published_accuracy": float(np.median([cell["accuracy"]["published"] for cell in own])),
        "commits": sorted({cell["commit"] for cell in own}),
        "forms": rows,
    }


def markdown(groups: list[dict[str, Any]]) -> str:
    """A table for each pair."""
    lines = ["# The table of Grover et al. (2019), and policies that a log supports", ""]
    lines += [__doc__.split("\n\n", 2)[2].strip(), ""]
    lines += [
        "Mean over seeds ± its standard error; error is the mean of |error| over seeds; ÷ model is "
        "the median over seeds of |error| over the model's own; nearer counts the seeds where the "
        "form is nearer to the truth than the model; ESS (of 1000 rollouts) is the median; held "
        "counts the 95 % intervals that hold the truth."
    ]
    for one in groups:
        truth, mean_return = one["truth"], one["log's mean return"]
        leaves = "" if one["support"] >= SUPPORTED else ": it leaves the log"
        lines += ["", f"## {one['env_id']}, {one['kind']}: {one['target']}", ""]
        lines += [
            f"Truth {truth['mean']:.2f} ± {truth['standard_error']:.2f}; logged "
            f"{', '.join(one['logged'])}, mean return {mean_return:.2f}, off by "
            f"{abs(mean_return - truth['mean']):.2f}. The log holds {one['support']:.0%} of what "
            f"the target does{leaves}. {len(one['seeds'])} seeds, commits "
            f"{', '.join(one['commits'])}. `LFIW()` chose {', '.join(one['chosen'])}. Published "
            f"classifiers are {one['published_accuracy']:.0%} accurate."
        ]
        lines += ["", "| form | value | error | ÷ model | nearer | ESS | held |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        for form, row in one["forms"].items():
            error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.2f}"
            ess = "–" if row["ess"] is None else f"{row['ess']:.1f}"
            held = f"{row['intervals_that_hold_the_truth']}/{row['intervals']}"
            lines.append(
                f"| {form} | {row['value']:.2f}{error} | {row['mean_absolute_error']:.2f} "
                f"| {row['error_over_models']:.2f} "
                f"| {row['nearer_than_model']}/{len(one['seeds'])} "
                f"| {ess} | {held if row['intervals'] else '–'} |"
            )
    return "\n".join(lines) + "\n"


def draw(stored: list[dict[str, Any]]) -> Any:
    """Each seed's estimates by form, one panel a pair, the truth as a line."""
    figure = new_figure(13, 6)
    panels = figure.subplots(2, len(TASKS), sharey=True)
    for ax, (kind, task) in zip(
        panels.flat, [(k, t) for k in ("paper", "ladder") for t in TASKS], strict=True
    ):
        own = [cell for cell in stored if (cell["kind"], cell["task"]) == (kind, task)]
        if not own:
            continue
        names = list(own[0]["forms"])[::-1]
        for height, name in enumerate(names):
            values = [cell["forms"][name]["value"] for cell in own]
            plain = "model" in name
            ax.plot(values, [height] * len(values), "o", color=PLAIN if plain else WEIGHTED, ms=4)
        ax.axvline(own[0]["truth"]["mean"], color=TRUTH, lw=1.5, label="truth")
        means = [cell["log's mean return"] for cell in own]
        ax.axvline(np.mean(means), color="#888888", lw=1.2, ls="--", label="log's mean return")
        ax.set_yticks(range(len(names)), names)
        ax.set_title(f"{own[0]['env_id']}, {kind}: support {own[0]['support']:.0%}", fontsize=10)
    panels.flat[0].legend(frameon=False, fontsize=8)
    return figure


def write_report(stored: list[dict[str, Any]]) -> None:
    """`paper_table.{json,md,png}`."""
    keys = list(dict.fromkeys((cell["kind"], cell["task"]) for cell in stored))
    groups = [group([c for c in stored if (c["kind"], c["task"]) == key]) for key in keys]
    said = {"command": "python experiments/paper_table.py", "groups": groups}
    write_text(RESULTS / "paper_table.json", json.dumps(said, indent=1, allow_nan=False) + "\n")
    write_text(RESULTS / "paper_table.md", markdown(groups))
    save_figure(draw(stored), RESULTS / "paper_table.png")


def main(worker: Worker = None, threads: Threads = 2, report_only: ReportOnly = False) -> None:
    write_report(
        finished(CELLS, cells(), run, worker=worker, threads=threads, report_only=report_only)
    )


if __name__ == "__main__":
    typer.run(main)

"""Which weights, and which fallback, should `LFIW()` have? Chosen on development tasks.

    PYTHONPATH=tests python experiments/default_weighting.py

It takes half an hour on one core. A stopped run goes on from the cells that it has stored; one that
finds them all, in `results/default_weighting.json` or in its folder, only writes the report.

`development_tasks.py` holds the tasks; none of them is in a report. For each task and seed,
process, policies, log and fit are drawn anew, and every form of `forms()` is estimated from the one
fit. The error of an estimate is measured in standard deviations of the target's return. A task's
error is the root mean square over its seeds and targets, a form's error the mean over tasks.
Nothing is capped.

The rule (`default_choice.py` carries it out):

1. A candidate is a form with thresholds of a fallback out of `LEAST_ESS` × `MOST_ACCURACY`; where
   the fallback says so, the plain model's value stands in.
2. The candidate of least error leads. Those within one standard error of it tie: that of the mean
   of the tasks' paired differences. Of those that tie the simplest is chosen: the model before any
   weights, then the fewest settings that differ from a plain trajectory product, then the stricter
   fallback.
3. Hundreds of candidates have a lucky one among them. So the choice stands only if its gain over
   the model is above the gain's standard error, and if the same is true of the gains on each task
   of what is chosen without that task.
4. Otherwise no form is shown to be better. The default is then the safest weighted form: that whose
   error rises above the model's least, without a fallback, added up over tasks. Its fallback is the
   loosest that lets no task's error rise by more than `MOST_HARM`.

The rule was written down before any result, except for step 3 and the unit of `MOST_HARM`, which
was the model's own error: a look at the pilot, seed 0 and some of seed 1, led to them. Step 3 only
makes it harder for a form to be chosen. Seed 3 was added after a look at the others. What the rule
says without the pilot is stored too.

What came of it: no form is shown to be better than the plain model, and the safest three can hardly
be told apart. The rule names "LFIW first by ESS 0.5" on all seeds, "stepwise tempered 0.8" without
the pilot, and named "c-LFIW first by ESS 0.5" on seeds 0 to 2. Our reading, beyond the rule, is
`Weighting(form="stepwise", temper=0.8)` with `Fallback(least_ess=0.0, most_accuracy=0.9)`: it is
the rule's form on the seeds that had no part in the rule (on all of them it harms second least),
its error is below the model's on most tasks and little above it on any, and where H is chosen by
ESS it is 0, the plain model, in two estimates of five. A least ESS before tempering would take away
half of what the form gains. The accuracy of 0.9 is set by hand: an eighth of the estimates fall
back by it here, which costs the form nothing and gains nothing; it is there for classes that are
separable. Seeds differ more than tasks do: the form's gain by seed is in the report, and its mean
over seeds is within its standard error of 0.

One of the tasks, CartPole, is a report task of the benchmark that came later (with other policies,
another horizon and other values). What the rule says without it is printed from the stored cells:

    PYTHONPATH=tests python experiments/default_weighting.py --without CartPole-v1

The recommendation on all seeds is the same; without the pilot too, it is "c-LFIW tempered 0.8".
"""

import json
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from default_choice import Study, gain_by_seed, rounded, verdict
from default_tables import as_text, fallback_rows, form_rows, plot
from development_tasks import TASKS, Target, draw

import lfiw_ope as ope
from lfiw_ope.stored import write_text

RESULTS = Path(__file__).parent / "results" / "default_weighting.json"
HOW = "PYTHONPATH=tests python experiments/default_weighting.py"
ROLLOUTS = 500
PILOT = (0,)
"""Seeds that were seen in all tasks before the rule was final."""

SHARES = (0.1, 0.25, 0.5, 0.8)


def forms() -> list[ope.Weighting]:
    """The plain model first."""
    made = [ope.Weighting(form="uniform")]
    for form, conditional in product(("trajectory", "stepwise"), (False, True)):
        made += [
            ope.Weighting(form=form, conditional=conditional, temper=temper)  # type: ignore[arg-type]
            for temper in (None, *SHARES)
        ]
    for conditional in (False, True):
        made += [ope.Weighting(conditional=conditional, first_ess=share) for share in (0.1, 0.5)]
        made += [
            ope.Weighting(conditional=conditional, pareto=True),
            ope.Weighting(conditional=conditional, exponent=0.5),
            ope.Weighting(conditional=conditional, clip=(0.1, 10.0)),
            ope.Weighting(conditional=conditional, resample_below=0.5),
        ]
    made += [ope.Weighting(form="uniform", candidates=k) for k in (4, 16)]
    return [*made, ope.Weighting(candidates=4)]


def label(weighting: ope.Weighting) -> str:
    """The library's, and whether the mean weight of candidates is carried."""
    carried = weighting.candidates > 1 and weighting.form != "uniform"
    return weighting.label + " carried" * carried


def cell(name: str, seed: int) -> dict[str, Any]:
    """Every form's estimate of every target, from one log and one fit."""
    started = time.perf_counter()
    task = TASKS[name]
    data, targets = draw(name, seed)
    config = ope.LFIWConfig(
        dynamics=ope.DynamicsConfig(
            activation="silu",
            layer_norm=False,
            noise="gaussian",
            member_episodes="all",
            hidden=task.hidden,
            fit=ope.FitConfig(updates=task.updates, evaluate_every=100),
        ),
        ratio=ope.RatioConfig(
            members=3,
            hidden=(64, 64),
            features="residual",
            fit=ope.FitConfig(updates=task.updates, evaluate_every=100),
        ),
        weighting=ope.Weighting(form="stepwise", temper=0.8),
        ratio_share=0.3,
        rollouts=ROLLOUTS,
    )
    fit = ope.LFIW(ope.Estimand(task.horizon), config).fit(data, seed)
    fitted = time.perf_counter()
    estimates = fit.estimate_forms([target.policy for target in targets], forms())
    return {
        "task": name,
        "seed": seed,
        "transitions": data.num_transitions,
        "targets": [_row(*pair) for pair in zip(targets, estimates, strict=True)],
        "seconds": {"fit": fitted - started, "forms": time.perf_counter() - fitted},
    }


def _row(target: Target, estimates: list[ope.Estimate]) -> dict[str, Any]:
    weighted = estimates[1]
    return {
        "distance": target.distance,
        "truth": rounded(target.value),
        "standard_error": rounded(target.standard_error),
        "spread": rounded(target.spread),
        "bounded_share": rounded(weighted.bounded_share),
        "accuracy": rounded(weighted.classifier_accuracy),
        "log_loss": rounded(weighted.classifier_log_loss),
        "forms": {
            label(weighting): [rounded(one.value), rounded(one.ess), rounded(one.raw_ess)]
            for weighting, one in zip(forms(), estimates, strict=True)
        },
    }


def run(folder: Path, seeds: int) -> list[dict[str, Any]]:
    """Every cell, seed by seed, so that a stopped run has every task; stored ones are read."""
    stored = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else []
    known = {(made["task"], made["seed"]): made for made in stored}
    for seed in range(seeds):
        for name in TASKS:
            path = folder / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}.json"
            if path.exists():
                known[name, seed] = json.loads(path.read_text())
            if (name, seed) not in known:
                known[name, seed] = made = cell(name, seed)
                write_text(path, json.dumps(made) + "\n")
                taken = made["seconds"]
                typer.echo(f"{path.stem}: {taken['fit']:.0f} + {taken['forms']:.0f} s")
    return [known[name, seed] for name in TASKS for seed in range(seeds)]


def settings(weighting: ope.Weighting) -> int:
    """How many of them differ from a plain product's."""
    plain = asdict(ope.Weighting())
    return sum(value != plain[name] for name, value in asdict(weighting).items())


def report(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """All that is said of the cells."""
    complexity = {label(one): settings(one) for one in forms()}
    study = Study.of(cells, complexity, ROLLOUTS)
    rest = [made for made in cells if made["seed"] not in PILOT]
    found = verdict(study)
    told = dict.fromkeys((found["recommended_form"], label(ope.LFIWConfig().weighting)))
    return {
        "command": HOW,
        "rollouts": ROLLOUTS,
        **found,
        "without_pilot": verdict(Study.of(rest, complexity, ROLLOUTS)),
        "forms": form_rows(study),
        "fallbacks": {name: fallback_rows(study, study.labels.index(name)) for name in told},
        "gain_by_seed": {name: gain_by_seed(study, study.labels.index(name)) for name in told},
        "classifier_accuracy": {
            name: rounded(np.median(study.accuracy[study.task == index]))
            for index, name in enumerate(study.tasks)
        },
        "cells": cells,
    }


def told_without(task: str) -> None:
    """Print the verdict on the stored cells of all other tasks."""
    complexity = {label(one): settings(one) for one in forms()}
    cells = [made for made in json.loads(RESULTS.read_text())["cells"] if made["task"] != task]
    rest = [made for made in cells if made["seed"] not in PILOT]
    for name, some in (("all seeds", cells), ("without the pilot", rest)):
        typer.echo(f"{name}: {verdict(Study.of(some, complexity, ROLLOUTS))['recommended']}")


def main(
    seeds: Annotated[int, typer.Option(help="draws of everything, for each task")] = 4,
    folder: Annotated[Path, typer.Option(help="where finished cells are kept")] = Path("cells"),
    without: Annotated[str | None, typer.Option(help="say the verdict without this task")] = None,
) -> None:
    if without is not None:
        told_without(without)
        return
    said = report(run(folder, seeds))
    lines = ",\n".join(json.dumps(made) for made in said["cells"])
    head = json.dumps({**said, "cells": []}, indent=1)
    write_text(RESULTS, head.replace('"cells": []', f'"cells": [\n{lines}\n ]') + "\n")
    text = as_text(said)
    write_text(RESULTS.with_suffix(".md"), text)
    plot(said, RESULTS.with_suffix(".png"))
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)

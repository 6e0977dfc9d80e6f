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
was the model's own error: a pilot, seeds 0 and 1, led to them. The pilot's cells are stored and
take no part in the choice.
"""

import json
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from default_choice import (
    LEAST_ESS,
    MODEL,
    MOST_ACCURACY,
    Candidate,
    Gain,
    Study,
    choose,
    gain_of,
    safest,
)
from default_tables import as_text, plot
from development_tasks import TASKS, Target, draw

import lfiw_ope as ope
from lfiw_ope.results import write_text

RESULTS = Path(__file__).parent / "results" / "default_weighting.json"
HOW = "PYTHONPATH=tests python experiments/default_weighting.py"
ROLLOUTS = 500
PILOT = (0, 1)
"""Seeds whose cells were seen before the rule was final."""

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
            hidden=task.hidden, fit=ope.FitConfig(updates=task.updates, evaluate_every=100)
        ),
        ratio=ope.RatioConfig(
            members=3,
            hidden=(64, 64),
            fit=ope.FitConfig(updates=task.updates, evaluate_every=100),
        ),
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
        "truth": _rounded(target.value),
        "standard_error": _rounded(target.standard_error),
        "spread": _rounded(target.spread),
        "bounded_share": _rounded(weighted.bounded_share),
        "accuracy": _rounded(weighted.classifier_accuracy),
        "log_loss": _rounded(weighted.classifier_log_loss),
        "forms": {
            label(weighting): [_rounded(one.value), _rounded(one.ess), _rounded(one.raw_ess)]
            for weighting, one in zip(forms(), estimates, strict=True)
        },
    }


def _rounded(number: Any) -> Any:
    """To six digits, which no conclusion needs."""
    return number if isinstance(number, str) else float(f"{number:.6g}")


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
    return list(known.values())


def settings(weighting: ope.Weighting) -> int:
    """How many of them differ from a plain product's."""
    plain = asdict(ope.Weighting())
    return sum(value != plain[name] for name, value in asdict(weighting).items())


def form_rows(study: Study) -> list[dict[str, Any]]:
    """What is said of each form, without a fallback; the least error first."""
    model = study.task_errors(MODEL)
    rows = []
    for form, name in enumerate(study.labels):
        candidate = Candidate(form, 0.0, 1.0)
        errors, size = study.task_errors(candidate), np.abs(study.error[:, form])
        gain = study.gain(candidate)
        row = {
            "form": name,
            "error": errors.mean(),
            "median_error": np.median(size),
            "gain": gain.mean,
            "gain_standard_error": gain.standard_error,
            "ratio_to_model": np.exp(np.log(errors / model).mean()),
            "worst_task_ratio": (errors / model).max(),
            "nearer": (size < np.abs(study.error[:, 0])).mean(),
            "ess": np.median(study.ess[:, form]),
            "raw_ess": np.median(study.raw_ess[:, form]),
        }
        by_task = dict(zip(study.tasks, map(_rounded, errors), strict=True))
        rows.append({k: _rounded(v) for k, v in row.items()} | {"by_task": by_task})
    return sorted(rows, key=lambda row: row["error"])


def fallback_rows(study: Study, form: int) -> list[dict[str, Any]]:
    """What the thresholds make of one form."""
    model, rows = study.task_errors(MODEL), []
    for least in LEAST_ESS:
        for most in MOST_ACCURACY:
            candidate = Candidate(form, least, most)
            errors, gain = study.task_errors(candidate), study.gain(candidate)
            row = {
                "least_ess": least,
                "most_accuracy": most,
                "fallen_back": study.fallen(candidate).mean(),
                "error": errors.mean(),
                "gain": gain.mean,
                "gain_standard_error": gain.standard_error,
                "worst_task_ratio": (errors / model).max(),
            }
            rows.append({k: _rounded(v) for k, v in row.items()})
    return rows


def left_out_rows(study: Study) -> list[dict[str, Any]]:
    """What is chosen without each task, and what it is worth there."""
    model = study.task_errors(MODEL)
    rows = []
    for index, name in enumerate(study.tasks):
        row: dict[str, Any] = {"task": name}
        for role, candidate in zip(("leader", "choice"), choose(study, index), strict=True):
            row[role] = describe(study, candidate)
            row[f"{role}_gain"] = _rounded(model[index] - study.task_errors(candidate)[index])
        rows.append(row)
    return rows


def describe(study: Study, candidate: Candidate) -> str:
    """A candidate in words."""
    if candidate.form == 0:
        return "model"
    thresholds = f"least_ess {candidate.least_ess:g}, most_accuracy {candidate.most_accuracy:g}"
    return f"{study.labels[candidate.form]} ({thresholds})"


def report(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """All that is said of the cells."""
    judged = [made for made in cells if made["seed"] not in PILOT]
    study = Study.of(judged, {label(one): settings(one) for one in forms()}, ROLLOUTS)
    leader, choice = choose(study)
    safe, harm = safest(study)
    left_out = left_out_rows(study)
    gained = {
        role: gain_of(np.array([row[f"{role}_gain"] for row in left_out]))
        for role in ("leader", "choice")
    }
    stands = study.gain(choice).shown and gained["choice"].shown
    recommended = choice if stands else safe

    def numbers(gain: Gain) -> list[float]:
        return [_rounded(number) for number in gain]

    return {
        "command": HOW,
        "rollouts": ROLLOUTS,
        "seeds": sorted({made["seed"] for made in judged}),
        "estimates": len(study.task),
        "leader": describe(study, leader),
        "leader_gain": numbers(study.gain(leader)),
        "choice": describe(study, choice),
        "choice_gain": numbers(study.gain(choice)),
        "left_out": left_out,
        "left_out_gain": {role: numbers(gain) for role, gain in gained.items()},
        "stands": stands,
        "safest": describe(study, safe),
        "safest_most_harm": _rounded(harm),
        "recommended": describe(study, recommended),
        "recommended_error": _rounded(study.task_errors(recommended).mean()),
        "recommended_gain": numbers(study.gain(recommended)),
        "recommended_fallen_back": _rounded(study.fallen(recommended).mean()),
        "forms": form_rows(study),
        "fallbacks": fallback_rows(study, recommended.form),
        "classifier_accuracy": {
            name: _rounded(np.median(study.accuracy[study.task == index]))
            for index, name in enumerate(study.tasks)
        },
        "cells": cells,
    }


def main(
    seeds: Annotated[int, typer.Option(help="draws of everything, for each task")] = 5,
    folder: Annotated[Path, typer.Option(help="where finished cells are kept")] = Path("cells"),
) -> None:
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

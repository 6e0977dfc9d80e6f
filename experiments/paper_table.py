"""The table of Grover et al. (2019) on three tasks, with the published forms of weights and ours.

    OMP_NUM_THREADS=1 python experiments/paper_table.py --cache /tmp/paper
    python experiments/paper_table.py --summary

The first command evaluates every cell (task, number of logged episodes, seed) that has no file in
`results/paper_table/` yet and stores it there at once, so that a stopped run goes on; what it must
fit, it fits, or takes from the cache (`paper_fits.py` runs ahead). Two processes may share the
work, one of them with `--reverse`. The second command makes `results/paper_table.{json,md,png}` of
the cells there are.

One seed is everything's: the log, the model, the classifiers, the rollouts. The truth is the mean
of 2000 real episodes of the target and is used for nothing but the errors. All forms of a cell
share one dynamics model and ten classifiers, 1000 rollouts of 100 steps. Against the paper: nets of
3 × 256 and 2 × 128, 4000 and 2000 updates at most, stopped by held-out loss, the model's noise
fitted to held-out residuals, classifiers see s' − s and the reward.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lfiw_envs import get_task
from paper_fits import (
    EPISODES,
    RATIO_SHARE,
    cells,
    checkpoints,
    dynamics_config,
    fit_dynamics,
    log_of,
)
from paper_report import write_report
from revision import commit

import lfiw_ope as ope
from lfiw_ope.pareto import pareto_smooth
from lfiw_ope.stored import provenance, write_text

RESULTS = Path(__file__).parent / "results"
CELLS = RESULTS / "paper_table"
ROLLOUTS = 1000
HORIZONS = range(0, 101, 5)
DOTS = 300  # of the rollouts' weights and returns, kept for the figure

W = ope.Weighting
PUBLISHED = [
    W(),
    W(first=80),
    W(form="stepwise"),
    W(form="stepwise", first=80),
]
OURS = [
    W(form="uniform"),
    W(),
    W(conditional=True),
    W(form="stepwise", conditional=True),
    *(W(conditional=True, temper=share) for share in (0.1, 0.25, 0.5, 0.8)),
    *(W(form="stepwise", conditional=True, temper=share) for share in (0.1, 0.25, 0.5, 0.8)),
    W(temper=0.5),
    W(form="stepwise", temper=0.5),
    W(form="stepwise", temper=0.8),
    W(conditional=True, first_ess=0.1),
    W(conditional=True, first_ess=0.5),
    W(form="stepwise", conditional=True, first_ess=0.5),
    W(conditional=True, pareto=True),
    W(form="uniform", candidates=4),
    W(candidates=4),
    W(resample_below=0.5),
    W(resample_below=0.5, conditional=True),
]


def lfiw_config(average, calibration):
    fit = ope.FitConfig(updates=2000, evaluate_every=100, precision="bfloat16")
    return ope.LFIWConfig(
        dynamics=dynamics_config("gaussian"),
        ratio=ope.RatioConfig(
            members=10, average=average, calibration=calibration, features="residual", fit=fit
        ),
        weighting=W(form="stepwise", temper=0.8),
        rollouts=ROLLOUTS,
        draws=8,
        ratio_share=RATIO_SHARE,
        fallback=None,
    )


def row(estimate, truth):
    """What the table needs of an estimate; k̂ of the weights as they are."""
    return {
        "value": estimate.value,
        "error": estimate.value - truth,
        "mc_standard_error": estimate.mc_standard_error,
        "ess": estimate.ess,
        "raw_ess": estimate.raw_ess,
        "pareto_k": pareto_smooth(torch.from_numpy(estimate.log_weights)).shape,
        "first": estimate.first,
        "exponent": estimate.exponent,
        "resampled": estimate.resampled,
        "bounded_share": estimate.bounded_share,
    }


def evaluate(seed, episodes, name, cache):
    """One cell, as it is stored."""
    task = get_task(name)
    truth = task.value("target")
    estimand = ope.Estimand(task.horizon, task.discount)
    target, behaviour = (ope.load_actor(task.policy_path(p)) for p in ("target", "behaviour"))
    data = log_of(name, seed, episodes, cache)
    folder = checkpoints(name, seed, episodes, "gaussian", cache)
    published = ope.LFIW(estimand, lfiw_config("estimates", "none")).fit(
        data, seed, checkpoints=folder
    )
    ours = ope.LFIW(estimand, lfiw_config("logits", "temperature")).fit(
        data, seed, checkpoints=folder
    )
    gaussian = replace(
        ours.plain_model(),
        ratio=None,
        dynamics=fit_dynamics(name, seed, episodes, "heteroscedastic", cache),
    )
    curve = [W(first=h) for h in HORIZONS]
    theirs = published.estimate_forms([target], PUBLISHED + curve)[0]
    own = ours.estimate_forms([target], OURS + [replace(w, conditional=True) for w in curve])[0]
    plain = own[0]
    forms = {"model": row(plain, truth.mean)}
    forms["Gaussian model"] = row(gaussian.estimate(target), truth.mean)
    for weighting, estimate in zip(PUBLISHED, theirs[: len(PUBLISHED)], strict=True):
        forms[f"published {weighting.label}"] = row(estimate, truth.mean)
    for weighting, estimate in zip(OURS[1:], own[1 : len(OURS)], strict=True):
        forms[weighting.label] = row(estimate, truth.mean)
    product = own[2]
    report = ours.ratio.report
    return {
        "task": name,
        "seed": seed,
        "episodes": episodes,
        "transitions": data.num_transitions,
        "truth": {"mean": truth.mean, "standard_error": truth.standard_error},
        "behaviour_mean_return": float(data.returns(task.horizon, task.discount).mean()),
        "model_on_behaviour": ours.plain_model().estimate(behaviour).value,
        "dynamics": {
            kind: {
                "held_out": fit.dynamics.report.held_out_loss,
                "at": fit.dynamics.report.best_update,
            }
            for kind, fit in (("mean", ours), ("gaussian", gaussian))
        },
        "classifier": {
            "log_loss": report.log_loss,
            "accuracy": report.accuracy,
            "temperature": report.temperature,
        },
        "forms": forms,
        "value_by_first": {
            "first": list(HORIZONS),
            "published": [one.value for one in theirs[len(PUBLISHED) :]],
            "conditional": [one.value for one in own[len(OURS) :]],
        },
        "ess_by_step": {
            "published stepwise": theirs[2].ess_by_step.tolist(),
            "c-stepwise": own[3].ess_by_step.tolist(),
        },
        "weights": {
            "returns": np.round(product.returns[:DOTS], 4).tolist(),
            "log_weights": np.round(product.log_weights[:DOTS] + np.log(ROLLOUTS), 3).tolist(),
        },
        "commit": COMMIT,
        **provenance(),
    }


COMMIT = commit()  # when the code was loaded, which is what runs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help="of these alone")
    parser.add_argument("--cache", type=Path, help="folder of logs and fits")
    parser.add_argument("--episodes", type=int, choices=EPISODES, help="logs of this size alone")
    parser.add_argument("--reverse", action="store_true", help="last cell first")
    parser.add_argument("--summary", action="store_true", help="only tell of the stored cells")
    options = parser.parse_args()
    if options.cache is None and not options.summary:
        parser.error("give a --cache folder, or --summary")
    order = cells(options.tasks)[:: -1 if options.reverse else 1]
    for seed, episodes, name in [] if options.summary else order:
        path = CELLS / f"{name}_{episodes}_{seed}.json"
        if path.exists() or options.episodes not in (None, episodes):
            continue
        cell = evaluate(seed, episodes, name, options.cache)
        write_text(path, json.dumps(cell, allow_nan=False) + "\n")
        forms = cell["forms"]
        print(path.stem, {k: round(v["value"], 2) for k, v in forms.items()}, flush=True)
    stored = [json.loads(path.read_text()) for path in sorted(CELLS.glob("*.json"))]
    write_report(stored, RESULTS)


if __name__ == "__main__":
    main()

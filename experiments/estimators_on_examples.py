"""Every estimator where the true value is known: tabular examples, and a continuous task.

    OMP_NUM_THREADS=1 python experiments/estimators_on_examples.py [--jobs 2]

500 episodes of the behaviour policy, three seeds of everything. Networks are small and the same for
all tasks; nothing is chosen by a true value. Errors are in standard deviations of the behaviour's
return. Each finished cell is stored at once, and a run that was stopped goes on.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from cells import commit
from lfiw_envs import (
    Example,
    LinearGaussianPolicy,
    chain,
    model_fail,
    model_win,
    random_mdp,
    taxi,
)

import lfiw_ope as ope
from lfiw_ope.core import markdown_table, provenance, write_text
from lfiw_ope.evaluation import TRUTH, WEIGHTED, new_figure, save_figure

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from testbeds import linear_gaussian, log_of

EPISODES, SEEDS = 500, 3
RESULTS = Path(__file__).parent / "results"
STORED = RESULTS / "estimators_on_examples.json"

NETS = ope.FitConfig(updates=2000, evaluate_every=100)
Q_NETS = ope.FitConfig(
    updates=3000, learning_rate=1e-3, schedule="constant", evaluate_every=100, patience=None
)
DYNAMICS = ope.DynamicsConfig(member_episodes="all", members=3, hidden=(64, 64), fit=NETS)
FITTED_Q = ope.FQEConfig(hidden=(64, 64), members=2, tau=0.01, fit=Q_NETS)
FLOW = ope.DICEConfig(fit=ope.FitConfig(**{**vars(ope.DICEConfig().fit), "updates": 3000}))
RATIO = ope.RatioConfig(
    members=3, hidden=(64,), fit=ope.FitConfig(updates=1000, evaluate_every=100)
)
SIMULATED = ope.ModelBasedConfig(dynamics=DYNAMICS)

ESTIMATORS = {
    "behaviour mean": ope.BehaviourMean,
    "IS": ope.IS,
    "PDIS": ope.PDIS,
    "WIS": ope.WIS,
    "WPDIS": ope.WPDIS,
    "model": lambda e: ope.ModelBased(e, SIMULATED),
    "LFIW": lambda e: ope.LFIW(e, ope.LFIWConfig(dynamics=DYNAMICS, ratio=RATIO)),
    "FQE": lambda e: ope.FQE(e, FITTED_Q),
    "DICE": lambda e: ope.DICE(e, FLOW),
    "DR": lambda e: ope.DR(e, ope.DoublyRobustConfig(fqe=FITTED_Q)),
    "WDR": lambda e: ope.WDR(e, ope.DoublyRobustConfig(fqe=FITTED_Q)),
    "MAGIC": lambda e: ope.MAGIC(e, ope.MAGICConfig(fqe=FITTED_Q)),
    "model + residual": lambda e: ope.CorrectedModel(
        e, ope.CorrectedModelConfig(dynamics=DYNAMICS, dice=FLOW)
    ),
}


def continuous():
    """The linear-Gaussian test-bed, and a target that leans another way."""
    mdp, _, behaviour = linear_gaussian()
    gain = behaviour.gain + 0.1 * np.random.default_rng(1).normal(size=behaviour.gain.shape)
    return Example(mdp, behaviour, LinearGaussianPolicy(gain, behaviour.bias, behaviour.scale), 10)


TASKS = {
    "chain": chain,
    "ModelWin": model_win,
    "ModelFail": model_fail,
    "random": random_mdp,
    "taxi": taxi,
    "linear-Gaussian": continuous,
}


def measure(task, estimator, seed):
    """One fit, one estimate."""
    torch.set_num_threads(1)
    example = TASKS[task]()
    data = log_of(example.mdp, example.behaviour, EPISODES, example.horizon, seed=1000 + seed)
    started = time.perf_counter()
    fitted = ESTIMATORS[estimator](ope.Estimand(example.horizon)).fit(data, seed)
    found = fitted.estimate(example.target)
    return {
        "task": task,
        "estimator": estimator,
        "seed": seed,
        "value": found.value,
        "standard_error": found.standard_error,
        "ess": found.ess,
        "seconds": time.perf_counter() - started,
        "warnings": list(found.warnings),
        "commit": commit(),
    }


def summary(cells):
    """Of each task: the truth; of each estimator its mean, RMSE and the RMSE's standard error."""
    table = {}
    for task, make in TASKS.items():
        example = make()
        value = example.mdp.value(example.target, example.horizon)
        returns = log_of(example.mdp, example.behaviour, 20_000, example.horizon, seed=0).returns()
        rows = {}
        for name in ESTIMATORS:
            values = [c["value"] for c in cells if (c["task"], c["estimator"]) == (task, name)]
            if not values:
                continue
            errors = (np.array(values) - value) / returns.std()
            rmse = math.sqrt((errors**2).mean())
            spread = (errors**2).std(ddof=1) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
            rows[name] = {
                "mean": float(np.mean(values)),
                "bias": float(errors.mean()),
                "rmse": rmse,
                "rmse_standard_error": float(spread / (2 * rmse)) if rmse else 0.0,
                "seeds": len(values),
            }
        behaviour = example.mdp.value(example.behaviour, example.horizon)
        table[task] = {"truth": value, "behaviour": behaviour, "estimators": rows}
    return table


def markdown(table):
    """RMSE in standard deviations of the return, a row an estimator."""
    lines = []
    for name in ESTIMATORS:
        told = [of["estimators"].get(name) for of in table.values()]
        lines.append([name, *(f"{t['rmse']:.2f}" if t else "" for t in told)])
    return markdown_table(["RMSE", *table], lines)


def draw(table):
    figure = new_figure(11, 6)
    for ax, (task, of) in zip(figure.subplots(2, 3).flat, table.items(), strict=True):
        names = list(of["estimators"])
        rows = np.arange(len(names))[::-1]
        errors = [of["estimators"][name]["rmse"] for name in names]
        bias = [abs(of["estimators"][name]["bias"]) for name in names]
        ax.barh(rows, errors, color=WEIGHTED, alpha=0.5, label="RMSE")
        ax.plot(bias, rows, "|", color=TRUTH, ms=9, mew=2, label="|bias|")
        ax.set_yticks(rows, names, fontsize=8)
        ax.set_title(task, loc="left")
    figure.supxlabel("error, in standard deviations of the behaviour's return")
    figure.axes[0].legend(frameon=False, fontsize=8)
    save_figure(figure, STORED.with_suffix(".png"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--summary", action="store_true", help="of what is stored, and no more")
    options = parser.parse_args()
    cells = json.loads(STORED.read_text())["cells"] if STORED.exists() else []
    done = {(c["task"], c["estimator"], c["seed"]) for c in cells}
    every = [(t, e, s) for s in range(options.seeds) for t in TASKS for e in ESTIMATORS]
    wanted = [] if options.summary else [cell for cell in every if cell not in done]
    run = joblib.Parallel(options.jobs, return_as="generator_unordered")
    for cell in run(joblib.delayed(measure)(*one) for one in wanted):
        cells.append(cell)
        print(f"{cell['task']} {cell['estimator']} {cell['seed']}: {cell['value']:.3f}", flush=True)
        store(cells)
    table = summary(cells)
    store(cells, table)
    write_text(STORED.with_suffix(".md"), markdown(table))
    draw(table)
    print(markdown(table))


def store(cells, table=None):
    about = {"command": "python experiments/estimators_on_examples.py", **provenance()}
    written = {**about, "episodes": EPISODES, "table": table, "cells": cells}
    write_text(STORED, json.dumps(written, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()

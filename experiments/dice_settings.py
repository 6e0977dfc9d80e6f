"""DICE's default setting and the published one, at equal compute, where the truth is known.

    OMP_NUM_THREADS=1 python experiments/dice_settings.py [--jobs 2] [--seeds 3]

Tabular examples that neither setting was chosen on, over T steps and with discounting for all of
time; 500 episodes of the behaviour. The published setting, of batches four times as large, gets a
quarter of the default's updates (as many transitions), half (about as many seconds), or as many.
Errors of values are in standard deviations of the behaviour's return; those of ω are relative to
the error of the log's own ratio, ω = 1. Each finished cell is stored at once, and a run that was
stopped goes on.
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
from lfiw_envs import chain, model_win, taxi

import lfiw_ope as ope
from lfiw_ope.core import provenance, write_text

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from testbeds import log_of

EPISODES = 500
STORED = Path(__file__).parent / "results" / "dice_settings.json"

UPDATES = 10_000
SETTINGS = {
    "default": ope.DICEConfig(),
    "published, 2500 updates": ope.DICEConfig.published(updates=UPDATES // 4),
    "published, 5000 updates": ope.DICEConfig.published(updates=UPDATES // 2),
    "published, 10000 updates": ope.DICEConfig.published(updates=UPDATES),
}
TASKS = {
    "taxi, T = 15": (taxi, 15, 1.0),
    "chain, γ = 0.9": (chain, 60, 0.9),
    "taxi, γ = 0.95": (taxi, 120, 0.95),
    "ModelWin, T = 20": (model_win, 20, 1.0),
    "ModelWin, γ = 0.95": (model_win, 120, 0.95),
    "chain, T = 12": (chain, 12, 1.0),
}


def measure(task, setting, seed):
    """One log, one training."""
    torch.set_num_threads(1)
    make, horizon, discount = TASKS[task]
    example, estimand = make(), ope.Estimand(horizon, discount)
    data = log_of(example.mdp, example.behaviour, EPISODES, horizon, seed=2000 + seed)
    started = time.perf_counter()
    fitted = ope.fit_dice(data, [example.target], estimand, SETTINGS[setting], seed)
    seconds = time.perf_counter() - started
    logged = data.transitions()
    step = np.concatenate([np.arange(length) for length in data.lengths])
    rows = (torch.from_numpy(array) for array in (logged.state, logged.action, step))
    found = fitted.ratio(*rows).numpy()[0]
    exact = exact_ratio(example, logged, step, estimand, has_time=fitted.has_time)
    value = example.mdp.value(example.target, horizon, discount)
    spread = data.returns(horizon, discount).std()
    report = fitted.reports[0]
    return {
        "task": task,
        "setting": setting,
        "seed": seed,
        "error": (float(fitted.values[0]) - value) / spread,
        "ratio_error": float(np.mean((found - exact) ** 2) / np.mean((exact - 1.0) ** 2)) ** 0.5,
        "left": report.left,
        "stuck": report.stuck,
        "warnings": list(report.warnings),
        "seconds": seconds,
    }


def exact_ratio(example, logged, step, estimand, *, has_time):
    """ω at every row, of the exact occupancy of the target over the exact one of the log."""
    mdp, horizon = example.mdp, estimand.horizon
    state, action = logged.state.argmax(1), logged.action.argmax(1)
    of_log = mdp.occupancies(example.behaviour, horizon)
    if has_time:
        return (mdp.occupancies(example.target, horizon) / of_log.clip(1e-300))[step, state, action]
    pooled = of_log.sum(0) / of_log.sum()
    exact = mdp.discounted_occupancy(example.target, estimand.discount)
    return (exact / pooled.clip(1e-300))[state, action]


def summary(cells):
    """Of each task and setting: RMSE of the value, of the ratio, how many were stuck, seconds."""
    table = {}
    for task in TASKS:
        table[task] = {}
        for setting in SETTINGS:
            of = [c for c in cells if (c["task"], c["setting"]) == (task, setting)]
            if of:
                table[task][setting] = {
                    "rmse": math.sqrt(np.mean([c["error"] ** 2 for c in of])),
                    "bias": float(np.mean([c["error"] for c in of])),
                    "ratio_error": float(np.mean([c["ratio_error"] for c in of])),
                    "stuck": sum(c["stuck"] for c in of),
                    "seconds": float(np.mean([c["seconds"] for c in of])),
                    "seeds": len(of),
                }
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    cells = json.loads(STORED.read_text())["cells"] if STORED.exists() else []
    done = {(c["task"], c["setting"], c["seed"]) for c in cells}
    every = [(t, s, seed) for seed in range(options.seeds) for t in TASKS for s in SETTINGS]
    wanted = [cell for cell in every if cell not in done]
    run = joblib.Parallel(options.jobs, return_as="generator_unordered")
    for cell in run(joblib.delayed(measure)(*one) for one in wanted):
        cells.append(cell)
        print(
            f"{cell['task']} | {cell['setting']} | {cell['seed']}: {cell['error']:+.3f}, "
            f"ratio {cell['ratio_error']:.2f}, left {cell['left']:.2f}, {cell['seconds']:.0f} s",
            flush=True,
        )
        about = {"command": "python experiments/dice_settings.py", **provenance()}
        written = {**about, "episodes": EPISODES, "table": summary(cells), "cells": cells}
        write_text(STORED, json.dumps(written, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()

"""How fast the learned log-ratio nears the exact one as data grow, where the exact one is known.

    OMP_NUM_THREADS=1 python experiments/ratio_convergence.py

On the linear-Gaussian and the tabular test-bed the model is a given wrong one, so that the ratio is
all there is to learn. For growing logs: the root mean square error of the calibrated log-ratio at
the model's own draws, the held-out log-loss above Bayes', and the slope of log error against log
transitions. A parametric rate is −1/2; networks that are stopped early are usually slower.
"""

import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import linregress

import lfiw_ope as ope
from lfiw_ope.core import provenance, write_text
from lfiw_ope.data import DeviceLog
from lfiw_ope.evaluation import TRUTH, WEIGHTED, new_figure, save_figure
from lfiw_ope.ratios import log_loss

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from testbeds import ExactRatio, Placed, linear_gaussian, log_of, tabular

BEDS = {"linear-Gaussian": (linear_gaussian, 15), "tabular": (tabular, 12)}
EPISODES = (50, 150, 500, 1500, 5000)
SEEDS = range(3)
RESULTS = Path(__file__).parent / "results"


def measure(bed, episodes, seed):
    """One fit: how far from the exact ratio, and from Bayes' log-loss, on fresh transitions."""
    make, horizon = BEDS[bed]
    truth, model, policy = make()
    data = log_of(truth, policy, episodes=episodes, horizon=horizon, seed=seed)
    held_out = max(2, episodes // 3)
    config = ope.RatioConfig(
        members=5, hidden=(64, 64), fit=ope.FitConfig(updates=2000, evaluate_every=100)
    )
    ratio = ope.fit_transition_ratio(
        data,
        Placed(model),
        config,
        seed,
        train=range(held_out, episodes),
        held_out=range(held_out),
    )
    fresh = log_of(truth, policy, episodes=1000, horizon=horizon, seed=10_000 + seed)
    log = DeviceLog.of(fresh, "cpu")
    rows = log.at(log.rows_of(range(1000)))
    drawn = model.sample(rows.state, rows.action, torch.Generator().manual_seed(seed))
    exact = ExactRatio(truth, model)
    (known_real, real), (known_drawn, simulated) = (
        [one.log_ratio(rows.state, rows.action, step).double() for one in (exact, ratio)]
        for step in (rows, drawn)
    )
    loss, best = (float(log_loss(*pair)) for pair in ((real, simulated), (known_real, known_drawn)))
    return {
        "transitions": data.num_transitions,
        "error": float((simulated - known_drawn).square().mean().sqrt()),
        "excess_log_loss": loss - best,
        "log_loss_of_bayes": best,
        "spread_of_exact": float(known_drawn.std()),
    }


def main():
    torch.set_num_threads(1)
    found = {}
    for bed in BEDS:
        cells = []
        for episodes, seed in itertools.product(EPISODES, SEEDS):
            cells.append({"episodes": episodes, "seed": seed, **measure(bed, episodes, seed)})
            print(bed, cells[-1], flush=True)
        x, y = (np.log([c[k] for c in cells]) for k in ("transitions", "error"))
        line = linregress(x, y)
        found[bed] = {"slope": line.slope, "slope_standard_error": line.stderr, "cells": cells}
        print(f"{bed}: slope {line.slope:.3f} ± {line.stderr:.3f}", flush=True)
    about = {"command": "python experiments/ratio_convergence.py", **provenance()}
    stored = json.dumps({**about, "beds": found}, indent=1, allow_nan=False)
    write_text(RESULTS / "ratio_convergence.json", stored + "\n")
    draw(found)


def draw(found):
    figure = new_figure(9, 3.6)
    for ax, (bed, told) in zip(figure.subplots(1, 2), found.items(), strict=True):
        x, y = (np.array([c[k] for c in told["cells"]]) for k in ("transitions", "error"))
        ax.loglog(x, y, ".", color=WEIGHTED)
        centre = math.exp(np.log(y).mean()), math.exp(np.log(x).mean())
        ends = np.array([x.min(), x.max()])
        label = f"slope {told['slope']:.2f} ± {told['slope_standard_error']:.2f}"
        ax.loglog(ends, centre[0] * (ends / centre[1]) ** told["slope"], color=TRUTH, label=label)
        ax.axhline(told["cells"][0]["spread_of_exact"], color="#888888", ls="--", lw=1)
        ax.set_title(f"{bed} test-bed", loc="left")
        ax.set_xlabel("logged transitions")
        ax.set_ylabel("error of the log-ratio (dashed: saying 0)")
        ax.legend(frameon=False)
    save_figure(figure, RESULTS / "ratio_convergence.png")


if __name__ == "__main__":
    main()

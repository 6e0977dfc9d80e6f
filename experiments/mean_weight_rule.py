"""What the least mean weight of an interval of importance sampling does to its coverage.

    OMP_NUM_THREADS=1 python experiments/mean_weight_rule.py

Where heavy weights are missing in a log, neither the effective sample size nor the spread of the
others shows it; that the weights average less than 1 does. Coverage of the default interval at
95 % over 300 logs of targets that are far from the behaviour, by the smallest mean weight that an
interval is given at; 10 and 20 steps.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from cells import commit
from coverage_estimators import beds

import lfiw_ope as ope
from lfiw_ope.core import provenance, write_text
from lfiw_ope.estimators import importance as fitted

STORED = Path(__file__).parent / "results" / "mean_weight_rule.json"
REPEATS, LEAST = 300, (0.0, 0.8, 0.9)
SETTINGS = [
    *(("tabular", "far", episodes, 10) for episodes in (50, 200, 1000)),
    *(("tabular", "far", episodes, 20) for episodes in (200, 1000)),
    *(("linear-Gaussian", "far", episodes, 10) for episodes in (200, 1000)),
    ("tabular", "near", 50, 20),
]


def measure(bed, mismatch, episodes, horizon):
    """Of each form: mean weights, and whether the interval held the true value."""
    made, estimand = beds()[bed], ope.Estimand(horizon)
    target = made.targets[mismatch]
    truth = made.mdp.value(target, horizon)
    told = {}
    for repeat in range(REPEATS):
        data = made.log(episodes, horizon, seed=50_000 + repeat)
        shared = ope.IS(estimand).fit(data, 0)
        for kind in (ope.IS, ope.PDIS, ope.WIS, ope.WPDIS):
            estimate = kind(estimand).adopt(shared).estimate(target)
            interval = estimate.interval(0.95)
            if interval is not None:
                held = interval.covers(truth)
                told.setdefault(kind.label, []).append((estimate.diagnostics["mean_weight"], held))
    return told


def counted(pairs):
    """At each threshold, how many intervals are given, and the share of them that hold."""
    mean, held = np.array(pairs).T
    return {
        f"{least:g}": {
            "given": int((mean >= least).sum()),
            "held": float(held[mean >= least].mean()),
        }
        for least in LEAST
        if (mean >= least).any()
    }


def main():
    torch.set_num_threads(1)
    fitted.LEAST_MEAN_WEIGHT = 0.0  # the rule is what is measured
    started, rows = time.perf_counter(), []
    for setting in SETTINGS:
        bed, mismatch, episodes, horizon = setting
        for form, pairs in measure(*setting).items():
            by = counted(pairs)
            rows.append(
                {
                    "bed": bed,
                    "mismatch": mismatch,
                    "episodes": episodes,
                    "horizon": horizon,
                    "form": form,
                    "at_least": by,
                }
            )
            shown = ", ".join(f"{k}: {v['held']:.2f} of {v['given']}" for k, v in by.items())
            print(f"{bed} {mismatch} N={episodes} T={horizon} {form:5}  {shown}", flush=True)
    about = {"command": "python experiments/mean_weight_rule.py", **provenance()}
    about |= {"commit": commit(), "repeats": REPEATS, "seconds": time.perf_counter() - started}
    write_text(STORED, json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

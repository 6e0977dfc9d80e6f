"""What refusing a number does: how often, and what is left of errors among the answered.

    OMP_NUM_THREADS=1 python experiments/refusal.py [--jobs 2]

Tasks with a known truth, and on each of them targets from the behaviour itself to far from it, two
sizes of the log, several seeds of everything. Errors are in standard deviations of the behaviour's
return; one above 0.5 is called wrong, as no two policies of these tasks could be told apart by it.

The rule by which the defaults of `lfiw_ope.Thresholds` are chosen: of a grid, with the other
thresholds off, the strictest value of which at least half of the refused numbers are wrong, on the
even seeds and of ten numbers or more; the loosest of several that refuse as many. A threshold
without such a value is set by hand. Odd seeds have no part in it: the table is theirs.

It is the second rule. The first, written before the run, took the value that refuses the most wrong
numbers and at most 5 % of the right ones. It turned off the effective sample size and k̂ by a few
numbers that were right by luck, of which a user could not have known that they were; when it was
replaced, a table of the odd seeds at defaults set by hand had been seen. The ten had been three
until a table of the odd seeds at that rule's values was seen, too. Neither has been changed since,
nor by what intervals cover, which came after.

Each finished cell is stored at once, and a run that was stopped goes on.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import fields
from pathlib import Path

import joblib
import numpy as np
import torch
from lfiw_envs import (
    Example,
    LinearGaussianPolicy,
    TabularPolicy,
    chain,
    model_fail,
    random_mdp,
    taxi,
)

import lfiw_ope as ope
from lfiw_ope.core import markdown_table, provenance, write_text
from lfiw_ope.evaluation import PLAIN, WEIGHTED, new_figure, save_figure

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from testbeds import linear_gaussian, log_of

STORED = Path(__file__).parent / "results" / "refusal.json"
SIZES, SEEDS, WRONG = (50, 300), 4, 0.5
FEWEST = 10
SHIFTS = (0.0, 0.33, 0.67, 1.0)
"""How far a target is from the behaviour: 0 is the behaviour, 1 the task's own target."""

NETS = ope.FitConfig(updates=800, evaluate_every=100)
Q_NETS = ope.FitConfig(
    updates=1000, learning_rate=2e-3, schedule="constant", evaluate_every=50, patience=None
)
DYNAMICS = ope.DynamicsConfig(members=5, hidden=(64, 64), fit=NETS)
FITTED_Q = ope.FQEConfig(hidden=(32,), members=5, tau=0.02, fit=Q_NETS)
RATIO = ope.RatioConfig(members=2, hidden=(64,), fit=ope.FitConfig(updates=400, evaluate_every=50))

ESTIMATORS = {
    "IS": ope.IS,
    "WIS": ope.WIS,
    "FQE": lambda e: ope.FQE(e, FITTED_Q),
    "model": lambda e: ope.ModelBased(e, ope.ModelBasedConfig(dynamics=DYNAMICS, rollouts=500)),
    "LFIW": lambda e: ope.LFIW(e, ope.LFIWConfig(dynamics=DYNAMICS, ratio=RATIO, rollouts=500)),
}

GRIDS = {
    "most_actions_outside": (math.inf, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05),
    "least_ess": (0.0, 2.0, 5.0, 10.0, 20.0, 50.0),
    "most_pareto_k": (math.inf, 2.0, 1.5, 1.0, 0.7, 0.5),
    "most_accuracy": (math.inf, 0.99, 0.95, 0.9, 0.8, 0.7),
    "most_states_outside": (math.inf, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05),
    "most_disagreement": (math.inf, 10.0, 5.0, 3.0, 2.0, 1.5),
    "least_open_loop": (0.0, 0.1, 0.25, 0.5, 0.75, 0.9),
    "most_return_bias": (math.inf, 3.0, 2.0, 1.0, 0.5, 0.25),
    "most_bounded_states": (math.inf, 0.5, 0.2, 0.1, 0.05),
    "most_bounded_values": (math.inf, 0.5, 0.2, 0.1, 0.05),
    "most_drift": (math.inf, 2.0, 1.0, 0.5, 0.2, 0.1),
    "most_member_spread": (math.inf, 2.0, 1.0, 0.5, 0.2, 0.1),
}
"""Loosest first."""

OFF = {name: grid[0] for name, grid in GRIDS.items()}


def continuous(lean):
    """The linear-Gaussian test-bed, and a target that leans another way by so much at most."""

    def make():
        mdp, _, behaviour = linear_gaussian()
        rng = np.random.default_rng(1)
        gain = behaviour.gain + lean * rng.normal(size=behaviour.gain.shape)
        bias = behaviour.bias + lean * rng.normal(size=behaviour.bias.shape)
        return Example(mdp, behaviour, LinearGaussianPolicy(gain, bias, behaviour.scale), 10)

    return make


TASKS = {
    "linear-Gaussian": continuous(0.5),
    "linear-Gaussian, far": continuous(2.0),
    "chain": chain,
    "random": random_mdp,
    "taxi": taxi,
    "ModelFail": model_fail,
}


def between(example, shift):
    """A policy so far from the behaviour on the way to the target."""
    here, there = example.behaviour, example.target
    if isinstance(here, TabularPolicy):
        return TabularPolicy((1 - shift) * here.table + shift * there.table)
    mixed = (
        (1 - shift) * a + shift * b for a, b in ((here.gain, there.gain), (here.bias, there.bias))
    )
    return LinearGaussianPolicy(*mixed, here.scale)


def measure(task, episodes, seed):
    """One log: every estimator on every target, with what is known of each."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    example = TASKS[task]()
    estimand = ope.Estimand(example.horizon)
    data = log_of(example.mdp, example.behaviour, episodes, example.horizon, seed=5000 + seed)
    policies = [between(example, shift) for shift in SHIFTS]
    found, model = {}, None
    for name, make in ESTIMATORS.items():
        fitted = make(estimand).fit(data, seed)
        found[name] = [e.to_dict(arrays=False) for e in fitted.estimate(policies)]
        model = fitted if name == "LFIW" else model
    diagnoses = ope.diagnose(
        data,
        policies,
        estimand,
        dynamics=model.dynamics,
        ratio=model.ratio,
        held_out=model.held_out,
        seed=seed,
    )
    for estimates in found.values():
        for estimate in estimates:
            del estimate["seconds"], estimate["warnings"]
    return {
        "task": task,
        "episodes": episodes,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "diagnoses": [d.to_dict() | {"warnings": []} for d in diagnoses],
        "estimates": found,
    }


class Number:
    """One estimate, its error, and what is known of it."""

    def __init__(self, cell, name, place, truth):
        value, unit = truth
        arrays = dict.fromkeys(("returns", "log_weights", "ess_by_step"))
        stored = cell["estimates"][name][place]
        self.estimator, self.seed, self.shift = name, cell["seed"], SHIFTS[place]
        self.estimate = ope.Estimate.from_dict({**stored, **arrays, "warnings": []})
        self.diagnosis = ope.Diagnosis.from_dict(cell["diagnoses"][place])
        self.error = abs(self.estimate.value - value) / unit
        interval = self.estimate.interval()
        self.covered = None if interval is None else interval.covers(value)

    def refused(self, thresholds):
        return bool(thresholds.reasons(self.estimate, self.diagnosis))


def numbers(cells):
    found = []
    for task, make in TASKS.items():
        example = make()
        returns = log_of(example.mdp, example.behaviour, 20_000, example.horizon, seed=0).returns()
        values = [example.mdp.value(between(example, s), example.horizon) for s in SHIFTS]
        for cell in cells:
            if cell["task"] == task:
                found += [
                    Number(cell, name, place, (value, returns.std()))
                    for name in ESTIMATORS
                    for place, value in enumerate(values)
                ]
    return found


def chosen(found):
    """The value of each threshold that the rule gives; None where there is none."""
    best = {}
    for name, grid in GRIDS.items():
        best[name], most = None, FEWEST - 1
        for value in grid:
            alone = ope.Thresholds(**{**OFF, name: value})
            refused = [one for one in found if one.refused(alone)]
            wrong = sum(one.error > WRONG for one in refused)
            if len(refused) > most and 2 * wrong >= len(refused):
                best[name], most = value, len(refused)
    return best


def effect(found, thresholds):
    """Of each estimator, and of all: how many are refused, and the errors of either kind."""
    table = {}
    for name in (*ESTIMATORS, "all"):
        own = [one for one in found if name in ("all", one.estimator)]
        refused = [one for one in own if one.refused(thresholds)]
        answered = [one for one in own if not one.refused(thresholds)]
        table[name] = {
            "numbers": len(own),
            "refused": len(refused) / max(1, len(own)),
            "right_refused": share(one.refused(thresholds) for one in own if one.error <= WRONG),
            "wrong_refused": share(one.refused(thresholds) for one in own if one.error > WRONG),
        }
        for kind, some in (("answered", answered), ("refused", refused)):
            table[name] |= {
                f"rmse_{kind}": math.sqrt(np.mean([o.error**2 for o in some])) if some else None,
                f"wrong_{kind}": share(one.error > WRONG for one in some),
                f"coverage_{kind}": share(o.covered for o in some if o.covered is not None),
            }
    return table


def markdown(table):
    """Of each estimator: who is refused, and what is left."""
    head = (
        *("refused", "wrong, of answered", "wrong, of refused"),
        *("95 % intervals hold, of answered", "of refused"),
    )
    lines = []
    names = ("refused", "wrong_answered", "wrong_refused", "coverage_answered", "coverage_refused")
    for estimator, row in table.items():
        told = ("–" if row[name] is None else f"{row[name]:.0%}" for name in names)
        lines.append([estimator, *told])
    return markdown_table(["", *head], lines)


def share(values):
    values = list(values)
    return float(np.mean(values)) if values else None


def draw(found, thresholds):
    figure = new_figure(9, 4)
    ax, rng = figure.subplots(), np.random.default_rng(0)
    for place, name in enumerate(ESTIMATORS):
        for side, (kind, colour) in enumerate((("answered", WEIGHTED), ("refused", PLAIN))):
            own = [
                o.error
                for o in found
                if o.estimator == name and o.refused(thresholds) == bool(side)
            ]
            at = place + 0.4 * side - 0.2 + 0.12 * (rng.random(len(own)) - 0.5)
            ax.plot(
                at,
                np.maximum(own, 1e-3),
                ".",
                color=colour,
                alpha=0.5,
                label=kind if not place else None,
            )
    ax.axhline(WRONG, color="#888888", lw=1)
    ax.set_yscale("log")
    ax.set_xticks(range(len(ESTIMATORS)), list(ESTIMATORS))
    ax.set_ylabel("error, in standard deviations\nof the behaviour's return")
    ax.legend(frameon=False)
    save_figure(figure, STORED.with_suffix(".png"))


def store(cells, **summary):
    about = {"command": "python experiments/refusal.py", **provenance()}
    written = {**about, "wrong": WRONG, **summary, "cells": cells}
    write_text(STORED, json.dumps(written, allow_nan=False).replace('{"task"', '\n{"task"') + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--fresh", action="store_true", help="measure stored cells anew")
    parser.add_argument("--summary", action="store_true", help="of what is stored, and no more")
    options = parser.parse_args()
    kept = STORED.exists() and not options.fresh
    cells = json.loads(STORED.read_text())["cells"] if kept else []
    done = {(c["task"], c["episodes"], c["seed"]) for c in cells}
    every = [(t, n, s) for s in range(options.seeds) for t in TASKS for n in SIZES]
    wanted = [] if options.summary else [cell for cell in every if cell not in done]
    run = joblib.Parallel(options.jobs, return_as="generator_unordered")
    for cell in run(joblib.delayed(measure)(*one) for one in wanted):
        cells.append(cell)
        print(
            f"{cell['task']} {cell['episodes']} {cell['seed']}: {cell['seconds']:.0f} s", flush=True
        )
        store(cells)
    found = numbers(cells)
    by_rule = chosen([one for one in found if one.seed % 2 == 0])
    defaults = ope.Thresholds()
    judged = [one for one in found if one.seed % 2]
    each = {}
    for name in GRIDS:
        alone = ope.Thresholds(**{**OFF, name: getattr(defaults, name)})
        each[name] = effect(judged, alone)["all"]
    table = effect(judged, defaults)
    used = {each.name: getattr(defaults, each.name) for each in fields(defaults)}
    store(cells, chosen_by_the_rule=by_rule, defaults=used, effect=table, effect_of_each=each)
    draw(judged, defaults)
    write_text(STORED.with_suffix(".md"), markdown(table))
    print(json.dumps(by_rule, indent=1))
    for name, row in {**table, **{f"{n} alone": r for n, r in each.items()}}.items():
        told = ", ".join(f"{k} {v:.2f}" for k, v in row.items() if v is not None)
        print(f"{name}: {told}")


if __name__ == "__main__":
    main()

"""Errors of `LFIW()` and of each candidate of noise and weights that it chooses among.

    python experiments/noise_and_weights.py                    # all cells, one after the other
    python experiments/noise_and_weights.py --worker 0 --threads 1 & \\
        python experiments/noise_and_weights.py --worker 1 --threads 1
    python experiments/noise_and_weights.py --report-only

A cell is a task and a seed: the task's "replay" data set of 1e5 transitions by that seed, all ten
policies of the ladder, its horizon of 100 steps (40 on the ledge). Errors are estimate minus
measured value, in ranges of the ladder's measured values; a policy is supported where the data set
holds 80 % or more of what it does. Nothing is refused and nothing is left out.

- `lfiw`: `LFIW()`; `plain` its own model without weights, `candidates` everything it chose among.
- `model`: `ModelBased()`, on stochastic tasks alone.
- `before`: the former default settings (SiLU networks without layer norm, 4000 updates, Gaussian
  noise of held-out residuals, stepwise weights tempered to 80 %), on stochastic tasks alone. They
  run by today's code, whose early stopping goes by absolute error.

The precision is pinned to bfloat16: on a processor without matrix units for it a cell takes about
ten times as long. A finished cell is a file in `results/noise_and_weights/` and is not repeated;
`results/noise_and_weights.md` is written from all cells there are.
"""

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from cells import (
    ReportOnly,
    Threads,
    Worker,
    asked,
    commit,
    default_settings,
    finished,
    pinned,
    shortest,
)
from lfiw_envs import LADDERS

import lfiw_ope as ope
from lfiw_ope.benchmark import SUPPORTED
from lfiw_ope.core import write_text

HERE = Path(__file__).parent
CELLS = HERE / "results" / "noise_and_weights"
REPORT = HERE / "results" / "noise_and_weights.md"

STOCHASTIC = (
    "ledge",
    "dropout_pendulum",
    "pushed_hopper",
    "delayed_pendulum",
    "pushed_half_cheetah",
)
DETERMINISTIC = ("half_cheetah", "hopper", "swimmer", "walker2d")
DATA = "replay"
INTERVAL = ope.SimulatedIntervalConfig(method="simulation")
"""Values are what is studied; intervals that hold the fit take each member's rollouts as well."""
OFF = 0.03
"""RMSE of a plain model, in ranges, from which weights have something to gain."""


def before(estimand: ope.Estimand, **known: Any) -> ope.LFIW:
    """The former default."""
    fit = pinned(ope.FitConfig())
    config = ope.LFIWConfig(
        dynamics=ope.DynamicsConfig(activation="silu", layer_norm=False, noise="gaussian", fit=fit),
        ratio=ope.RatioConfig(
            features="residual",
            smoothing=0.0,
            fit=pinned(ope.FitConfig(updates=2000, evaluate_every=100)),
        ),
        weighting=ope.Weighting(form="stepwise", temper=0.8),
        ratio_share=0.3,
        interval=INTERVAL,
    )
    return ope.LFIW(estimand, config, **known)


def run(task: str, seed: int) -> dict[str, Any]:
    """One cell."""
    ladder = LADDERS[task]
    name = shortest(ladder)
    of = asked(ladder, DATA, name, seed)
    policies = of.policies

    def errors(estimates: list[ope.Estimate]) -> list[float]:
        return of.errors([estimate.value for estimate in estimates])

    dynamics, ratio = default_settings()
    cell: dict[str, Any] = {
        "task": task,
        "seed": seed,
        "purpose": ladder.purpose,
        "question": name,
        "range": of.range,
        "policies": list(ladder.targets),
        "support": [ladder.support(policy, DATA) for policy in ladder.targets],
        "commit": commit(),
        "machine": f"{platform.machine()}, AMX {torch.cpu._is_amx_tile_supported()}",
        "threads": torch.get_num_threads(),
    }
    started = time.perf_counter()
    config = ope.LFIWConfig(dynamics=dynamics, ratio=ratio, interval=INTERVAL)
    lfiw = ope.LFIW(of.estimand, config, **of.known)
    fitted = lfiw.fit(of.log, seed)
    cell["seconds"] = {**fitted.seconds, "fit": time.perf_counter() - started}
    assert fitted.selection is not None
    assert fitted.ratio is not None
    cell["selection"] = {**vars(fitted.selection), "chosen": str(fitted.selection.chosen)}
    cell["classifier"] = {
        "log_loss": fitted.ratio.report.log_loss,
        "accuracy": fitted.ratio.report.accuracy,
        "updates": fitted.ratio.fit_report.best_update,
    }
    cell["dynamics_updates"] = fitted.dynamics.report.best_update
    cell["candidates"] = {
        str(candidate): errors(fitted.with_candidate(candidate).estimate(policies))
        for candidate in lfiw.candidates()
    }
    cell["lfiw"] = cell["candidates"][str(fitted.selection.chosen)]
    cell["plain"] = cell["candidates"][fitted.selection.chosen.noise]
    if task in STOCHASTIC:
        plain = ope.ModelBasedConfig(dynamics=dynamics, interval=INTERVAL)
        model = ope.ModelBased(of.estimand, plain, **of.known).fit(of.log, seed)
        cell["model"] = errors(model.estimate(policies))
        cell["model_noise"] = str(model.selection.chosen) if model.selection else None
        former = before(of.estimand, **of.known).fit(of.log, seed)
        cell["before"] = errors(former.estimate(policies))
    return cell


def rmse(cell: dict[str, Any], errors: list[float]) -> float:
    """Over supported policies."""
    supported = np.array(cell["support"]) >= SUPPORTED
    return float(np.sqrt(np.mean(np.square(np.array(errors)[supported]))))


def report(cells: list[dict[str, Any]]) -> str:
    """All cells as two tables, and what they say of the choice."""
    lines = ["# Noise and weights", "", __doc__.split("\n\n", 2)[2].strip(), ""]
    lines += ["RMSE over supported policies, in ranges of the ladder.", ""]
    lines += [
        "| task | seed | commit | supported | `LFIW()` chose | its RMSE | plain | over plain "
        "| best candidate | `ModelBased()` | before | over the better of both |"
    ]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    within = []
    for cell in cells:
        of = {name: rmse(cell, errors) for name, errors in cell["candidates"].items()}
        lfiw, plain = rmse(cell, cell["lfiw"]), rmse(cell, cell["plain"])
        best = min(of, key=of.__getitem__)
        within.append(lfiw <= 1.1 * of[best] + 0.005)
        row = [cell["task"], str(cell["seed"]), cell["commit"]]
        row += [str(int((np.array(cell["support"]) >= SUPPORTED).sum()))]
        row += [cell["selection"]["chosen"], f"{lfiw:.3f}", f"{plain:.3f}", f"{lfiw / plain:.2f}"]
        row += [f"{best} {of[best]:.3f}"]
        if "model" in cell:
            model = rmse(cell, cell["model"])
            row += [f"{model:.3f} ({cell['model_noise']})", f"{rmse(cell, cell['before']):.3f}"]
            row += [f"{lfiw / min(model, plain):.2f}"]
        else:
            row += ["", "", ""]
        lines.append("| " + " | ".join(row) + " |")
    lines += [
        "",
        f"The choice's RMSE is at most 1.1 times the best candidate's plus 0.005 in "
        f"{sum(within)} of {len(within)} cells.",
        "",
    ]
    names = ["none", "gaussian", "bootstrap", "bootstrap + SIR 4", "bootstrap + SIR 16"]
    lines += ["Held-out loss and RMSE of each candidate:", ""]
    lines += ["| task | seed | " + " | ".join(names) + " |"]
    lines += ["| --- | --- |" + " --- |" * len(names)]
    for cell in cells:
        losses, errors = cell["selection"]["scores"], cell["selection"]["standard_errors"]
        found = [
            f"{losses[n]:.4f} ± {errors[n]:.4f}; {rmse(cell, cell['candidates'][n]):.3f}"
            for n in names
        ]
        lines.append("| " + " | ".join([cell["task"], str(cell["seed"]), *found]) + " |")
    return "\n".join(lines) + "\n"


def main(worker: Worker = None, threads: Threads = 2, report_only: ReportOnly = False) -> None:
    tasks = [*STOCHASTIC, *DETERMINISTIC]
    keys = [(task, seed) for seed in (0, 1) for task in tasks]
    cells = finished(CELLS, keys, run, worker=worker, threads=threads, report_only=report_only)
    cells.sort(key=lambda cell: (tasks.index(cell["task"]), cell["seed"]))
    write_text(REPORT, report(cells))
    typer.echo(f"Wrote {REPORT}")


if __name__ == "__main__":
    typer.run(main)

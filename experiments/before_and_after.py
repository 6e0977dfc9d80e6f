"""`model` and `lfiw` with the former and the present default settings, side by side.

    python experiments/before_and_after.py                     # all cells, one after the other
    python experiments/before_and_after.py --worker 0 --threads 1 & \\
        python experiments/before_and_after.py --worker 1 --threads 1
    python experiments/before_and_after.py --report-only

A cell is a task, a data set of 1e5 transitions and a seed: those of the suite `ladder-small`, whose
question it answers, and the stochastic ladders' "replay" data (T = 100, on the ledge 40). All ten
policies of the ladder are estimated, and nothing is refused or left out. Errors are estimate minus
measured value, in ranges of the ladder's measured values.

- after: `ModelBased()` and `LFIW()`. Both train the same networks by the same seed.
- before: the former defaults as `noise_and_weights.py` has them; the model is without the weights.

On the stochastic ladders "after" is taken from `results/noise_and_weights/`, which has the same
logs and seeds. The precision is pinned to bfloat16. A finished cell is a file in
`results/before_and_after/` and is not repeated; `results/before_and_after.md` is written from all
there are. Intervals are percentiles of a bootstrap over the policies of a row; seeds are not
resampled.
"""

import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from cells import ReportOnly, Threads, Worker, asked, commit, default_settings, finished, shortest
from lfiw_envs import LADDERS
from noise_and_weights import CELLS as KNOWN
from noise_and_weights import INTERVAL, STOCHASTIC, before
from numpy.typing import NDArray
from scipy.stats import bootstrap

import lfiw_ope as ope
from lfiw_ope.benchmark import SUPPORTED, get_suite
from lfiw_ope.core import write_text

RESULTS = Path(__file__).parent / "results"
CELLS = RESULTS / "before_and_after"
REPORT = RESULTS / "before_and_after.md"
SMALL = get_suite("ladder-small")
WAYS = ("model before", "model after", "lfiw before", "lfiw after")


def cells() -> list[tuple[str, str, str, int]]:
    """Task, data set, question and seed, the first seed's first."""
    found = [(name, "replay", shortest(LADDERS[name])) for name in STOCHASTIC]
    small = list(product(SMALL.data[::-1], SMALL.ladders[::-1]))
    found += [(one.name, data, SMALL.asked(one)[0]) for data, one in small]
    return [(*one, seed) for seed in SMALL.seeds for one in found]


def run(task: str, data: str, question: str, seed: int) -> dict[str, Any]:
    """One cell."""
    ladder = LADDERS[task]
    of = asked(ladder, data, question, seed)
    seconds: dict[str, float] = {}

    def errors(way: str, fitted: ope.FittedModel) -> list[float]:
        started = time.perf_counter()
        values = [estimate.value for estimate in fitted.estimate(of.policies)]
        seconds[way] = round(time.perf_counter() - started, 1)
        return of.errors(values)

    cell: dict[str, Any] = {
        "task": task,
        "data": data,
        "question": question,
        "seed": seed,
        "purpose": ladder.purpose,
        "policies": list(ladder.targets),
        "support": [ladder.support(policy, data) for policy in ladder.targets],
        "commit": commit(),
        "threads": torch.get_num_threads(),
    }
    former = before(of.estimand, **of.known).fit(of.log, seed)
    cell["lfiw before"] = errors("lfiw before", former)
    cell["model before"] = errors("model before", former.plain_model())
    stored = KNOWN / f"{task}-{seed}.json"
    if task in STOCHASTIC and stored.exists():
        found = json.loads(stored.read_text(encoding="utf-8"))
        same = np.abs(np.array(found["before"]) - cell["lfiw before"]).max()
        cell["after from commit"] = found["commit"]
        cell["lfiw before, there and here, differ by at most"] = float(same)
        cell["lfiw after"], cell["model after"] = found["lfiw"], found["model"]
        cell["chosen"] = {"lfiw": found["selection"]["chosen"], "model": found["model_noise"]}
    else:
        dynamics, ratio = default_settings()
        config = ope.LFIWConfig(dynamics=dynamics, ratio=ratio, interval=INTERVAL)
        plain = ope.ModelBasedConfig(dynamics=dynamics, interval=INTERVAL)
        lfiw = ope.LFIW(of.estimand, config, **of.known).fit(of.log, seed)
        model = ope.ModelBased(of.estimand, plain, **of.known).fit(of.log, seed)
        assert lfiw.selection is not None
        assert model.selection is not None
        cell["lfiw after"] = errors("lfiw after", lfiw)
        cell["model after"] = errors("model after", model)
        cell["chosen"] = {
            "lfiw": str(lfiw.selection.chosen),
            "model": str(model.selection.chosen),
        }
    cell["seconds"] = {"former fit": former.seconds, **seconds}
    return cell


def rmse(errors: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """Of each unit, then the mean over units: `[U, .., n]` to `[..]`."""
    found: NDArray[np.float64] = np.sqrt(np.nanmean(errors**2, axis=axis)).mean(axis=0)
    return found


def with_interval(errors: dict[str, NDArray[np.float64]]) -> dict[str, tuple[float, float, float]]:
    """RMSE of each way, and what is left of the former one, with 95 % intervals over policies.

    Args:
        errors: `[U, n]` each: units that share their policies, NaN where one is left out.
    """
    statistics = {way: (lambda one: rmse(one), [of]) for way, of in errors.items()}
    for name in ("model", "lfiw"):
        both = [errors[f"{name} after"], errors[f"{name} before"]]
        statistics[f"{name} after / before"] = (lambda a, b: rmse(a) / rmse(b), both)
    both = [errors["lfiw after"], errors["model after"]]
    statistics["lfiw / model after"] = (lambda a, b: rmse(a) / rmse(b), both)
    found = {}
    for name, (statistic, of) in statistics.items():
        number = of[0].shape[1]

        def resampled(places: NDArray[np.int64], axis: int = -1) -> Any:  # noqa: ARG001
            taken = [part[:, places.astype(int)] for part in of]  # noqa: B023
            return statistic(*taken)  # noqa: B023

        middle = float(statistic(*of))
        if number < 2:
            found[name] = middle, float("nan"), float("nan")
            continue
        interval = bootstrap(
            (np.arange(number),),
            resampled,
            n_resamples=2000,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(0),
        ).confidence_interval
        found[name] = middle, float(interval.low), float(interval.high)
    return found


COLUMNS = (*WAYS, "model after / before", "lfiw after / before", "lfiw / model after")


def report(stored: list[dict[str, Any]]) -> str:
    """All cells, by support, task and data set."""
    lines = ["# Former and present defaults", "", __doc__.split("\n\n", 2)[2].strip(), ""]
    commits = sorted(
        {c["commit"] for c in stored} | {c.get("after from commit", "") for c in stored}
    )
    lines += [f"Commits: {', '.join(filter(None, commits))}."]
    for supported in (True, False):
        lines += ["", "## Policies that the log supports" if supported else "## Other policies", ""]
        lines += ["RMSE in ranges of the ladder, in brackets its 95 % interval.", ""]
        lines += ["| task | data | purpose | policies | seeds | " + " | ".join(COLUMNS) + " |"]
        lines += ["| --- | --- | --- | ---: | ---: |" + " --- |" * len(COLUMNS)]
        ratios: dict[str, list[float]] = {}
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for cell in stored:
            groups.setdefault((cell["task"], cell["data"]), []).append(cell)
        for (task, data), of in groups.items():
            kept = (np.array(of[0]["support"]) >= SUPPORTED) == supported
            if not kept.any():
                continue
            errors = {way: np.array([cell[way] for cell in of])[:, kept] for way in WAYS}
            found = with_interval(errors)
            row = [task, data, of[0]["purpose"], str(int(kept.sum())), str(len(of))]
            row += [_said(found[name]) for name in COLUMNS]
            lines.append("| " + " | ".join(row) + " |")
            for name in COLUMNS[len(WAYS) :]:
                ratios.setdefault(name, []).append(found[name][0])
        means = {name: np.exp(np.mean(np.log(of))) for name, of in ratios.items()}
        said = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
        lines += ["", f"Geometric means over rows: {said}."]
    lines += ["", "## What was chosen", "", "| cell | `LFIW()` | `ModelBased()` |"]
    lines += ["| --- | --- | --- |"]
    lines += [
        f"| {c['task']}, {c['data']}, seed {c['seed']} | {c['chosen']['lfiw']} "
        f"| {c['chosen']['model']} |"
        for c in stored
    ]
    return "\n".join(lines) + "\n"


def _said(of: tuple[float, float, float]) -> str:
    value, low, high = of
    return f"{value:.3f}" + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def main(worker: Worker = None, threads: Threads = 2, report_only: ReportOnly = False) -> None:
    stored = finished(CELLS, cells(), run, worker=worker, threads=threads, report_only=report_only)
    write_text(REPORT, report(stored))
    typer.echo(f"Wrote {REPORT}")


if __name__ == "__main__":
    typer.run(main)

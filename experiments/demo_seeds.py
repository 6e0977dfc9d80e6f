"""The demo by ten seeds: how far off is each row, and how often does its interval hold the truth?

    python experiments/demo_seeds.py                # ledge, the default of `lfiw-ope demo`
    python experiments/demo_seeds.py --task swimmer --seeds 5

Every seed logs its own data. A finished seed is a file in `results/demo/<task>/` and is not
repeated; `results/demo/<task>.md` is written from all there are. No seed is left out.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from cells import Threads, Worker, commit, finished

from lfiw_ope.benchmark import DEMOS, run_demo
from lfiw_ope.core import write_text

RESULTS = Path(__file__).parent / "results" / "demo"


def report(task: str, stored: list[dict[str, Any]]) -> str:
    """All seeds as one table."""
    truth = stored[0]["truth"]
    commits = ", ".join(sorted({one["commit"] for one in stored}))
    lines = [f"# `lfiw-ope demo {task}`, {len(stored)} seeds", ""]
    lines += [DEMOS[task].said, ""]
    lines += [f"`python experiments/demo_seeds.py --task {task}`, commit {commits}. True value: "]
    lines[-1] += f"{truth['mean']:.2f} ± {truth['standard_error']:.2f}. Errors are estimate minus "
    lines[-1] += "true value; spread is their standard deviation over seeds."
    lines += ["", "| | mean estimate | mean error | spread | RMSE | 95 % interval holds it |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for place, row in enumerate(stored[0]["rows"]):
        of = [one["rows"][place] for one in stored]
        errors = np.array([one["error"] for one in of])
        intervals = [i for one in of for i in one["intervals"] if i["level"] == 0.95]
        held = sum(i["low"] <= truth["mean"] <= i["high"] for i in intervals)
        lines += [
            f"| {row['row']} | {np.mean([one['value'] for one in of]):.2f} | {errors.mean():+.2f} "
            f"| {errors.std(ddof=1):.2f} | {np.sqrt(np.mean(errors**2)):.2f} "
            f"| {f'{held} of {len(intervals)}' if intervals else '–'} |"
        ]
    chosen = [one["chosen"] for one in stored]
    counts = ", ".join(f"{name} ({chosen.count(name)})" for name in sorted(set(chosen)))
    lines += ["", f"`LFIW()` chose, on held-out episodes: {counts}."]
    return "\n".join(lines) + "\n"


def main(
    task: Annotated[str, typer.Option(help=", ".join(DEMOS))] = "ledge",
    seeds: int = 10,
    worker: Worker = None,
    threads: Threads = 2,
) -> None:
    def run(seed: int) -> dict[str, Any]:
        return {"commit": commit(), "seed": seed, **run_demo(task, seed=seed).to_dict()}

    keys = [(seed,) for seed in range(seeds)]
    text = report(task, finished(RESULTS / task, keys, run, worker=worker, threads=threads))
    write_text(RESULTS / f"{task}.md", text)
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)

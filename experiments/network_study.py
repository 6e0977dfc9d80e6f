"""Which dynamics networks, and how long to train them? Chosen on development tasks.

    python experiments/network_study.py
    python experiments/network_study.py --task swimmer --variant default

Every cell fits one ensemble to the "replay" data set of a ladder (1e5 transitions) and simulates
the ladder's ten policies for 100 steps, 500 rollouts each, without noise, with Gaussian and with
bootstrap noise. Errors are RMSE over supported policies in ranges of the ladder's measured values,
and over all policies. The precision is pinned to bfloat16. A finished cell is stored in
`results/network_study.json` and is not repeated.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from cells import asked, commit, pinned, shortest
from lfiw_envs import LADDERS
from noise_and_weights import DATA

import lfiw_ope as ope
from lfiw_ope.benchmark import SUPPORTED
from lfiw_ope.core import write_text

RESULTS = Path(__file__).parent / "results" / "network_study.json"
TASKS = ("half_cheetah", "swimmer", "walker2d", "hopper")
ROLLOUTS = 500

DEFAULT = ope.DynamicsConfig()
VARIANTS = {
    "default": {},
    "all episodes for each member": {"member_episodes": "all"},
    "bootstrap of episodes": {"member_episodes": "bootstrap"},
    "4000 updates": {"fit": replace(DEFAULT.fit, updates=4000, epochs=None)},
    "no layer norm": {"layer_norm": False},
    "SiLU": {"activation": "silu"},
    "SiLU, no layer norm, 4000 updates": {
        "activation": "silu",
        "layer_norm": False,
        "fit": replace(DEFAULT.fit, updates=4000, epochs=None),
    },
    "weight decay 0.3": {"fit": replace(DEFAULT.fit, weight_decay=0.3)},
}


def run(task: str, variant: str, seed: int) -> dict[str, Any]:
    """One cell."""
    ladder = LADDERS[task]
    of = asked(ladder, DATA, shortest(ladder), seed)
    supported = np.array([ladder.support(p, DATA) >= SUPPORTED for p in ladder.targets])
    config = replace(DEFAULT, **VARIANTS[variant])
    config = replace(config, noise="none", fit=pinned(config.fit))
    interval = ope.SimulatedIntervalConfig(method="none")
    settings = ope.ModelBasedConfig(dynamics=config, rollouts=ROLLOUTS, interval=interval)
    started = time.perf_counter()
    model = ope.ModelBased(of.estimand, settings, **of.known).fit(of.log, seed)
    cell: dict[str, Any] = {
        "task": task,
        "variant": variant,
        "seed": seed,
        "commit": commit(),
        "seconds": time.perf_counter() - started,
        "held_out_loss": float(np.mean(model.dynamics.report.held_out_loss)),
        "best_update": model.dynamics.report.best_update,
        "supported": int(supported.sum()),
    }
    for noise in ("none", "gaussian", "bootstrap"):
        noisy = replace(model, dynamics=model.dynamics.with_noise(noise))
        errors = of.errors([estimate.value for estimate in noisy.estimate(of.policies)])
        squares = np.array(errors) ** 2
        cell[noise] = {
            "supported": float(np.sqrt(squares[supported].mean())),
            "all": float(np.sqrt(squares.mean())),
        }
    return cell


def main(
    task: Annotated[str | None, typer.Option(help="one task; else all")] = None,
    variant: Annotated[str | None, typer.Option(help="one variant; else all")] = None,
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="of PyTorch")] = 2,
) -> None:
    torch.set_num_threads(threads)
    cells = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else []
    done = {(cell["task"], cell["variant"], cell["seed"]) for cell in cells}
    for name in [variant] if variant else VARIANTS:
        for one in [task] if task else TASKS:
            if (one, name, seed) not in done:
                cells.append(run(one, name, seed))
                stored = {"command": "python experiments/network_study.py", "cells": cells}
                write_text(RESULTS, json.dumps(stored, indent=1) + "\n")
    for cell in cells:
        errors = ", ".join(
            f"{noise} {cell[noise]['supported']:.3f}" for noise in ("none", "gaussian", "bootstrap")
        )
        typer.echo(f"{cell['task']}, {cell['variant']}, seed {cell['seed']}: {errors}")


if __name__ == "__main__":
    typer.run(main)

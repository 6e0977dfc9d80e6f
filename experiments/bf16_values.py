"""Does bfloat16 keep the value within its standard error? Measured on development tasks.

    python experiments/bf16_values.py

Pendulum and Hopper, played by random networks. The plain model is
fitted in float32 and in bfloat16 from the same seed, and the float32 model is also rolled out in
bfloat16, from the same random numbers. What a precision changes is held against the standard error
of the simulation (1000 rollouts) and against what another seed of the fit changes. No true value
is looked at. Each finished cell is stored at once; a stopped run goes on.
"""

import json
import statistics
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import torch
import typer

import lfiw_ope as ope
from lfiw_ope.core import torch_generator, write_text
from lfiw_ope.policies import GaussianHead

RESULTS = Path(__file__).parent / "results" / "bf16_values.json"
HOW = "python experiments/bf16_values.py"


# Action bound, horizon, episodes: Hopper falls after 15 steps, so it needs many.
TASKS = {"Hopper-v5": (1.0, 100, 2000), "Pendulum-v1": (2.0, 100, 300)}


def random_policy(env: gym.Env, bound: float, seed: int) -> ope.MLPPolicy:
    """A 64-tanh network with weights U(±3/√fan_in): it acts, and it explores."""
    generator = torch_generator(seed, "policy")
    sizes = (env.observation_space.shape[0], 64, env.action_space.shape[0])
    weights = [
        (2 * torch.rand((a, b), generator=generator) - 1) * 3 / a**0.5 for a, b in pairwise(sizes)
    ]
    limit = torch.full((1, sizes[-1]), bound)
    head = GaussianHead(torch.full_like(limit, -0.5), -limit, limit)
    biases = [torch.zeros(size) for size in sizes[1:]]
    return ope.MLPPolicy.from_layers(weights, biases, head, activation="tanh")


def cell(env_id: str, seed: int, updates: int) -> dict[str, float | str | int]:
    bound, horizon, episodes = TASKS[env_id]

    def make() -> gym.Env:
        return gym.make(env_id, max_episode_steps=horizon)

    # One log and one target for all seeds: only the fit and its rollouts differ.
    behaviour, target = (random_policy(make(), bound, i) for i in (0, 1))
    data = ope.collect(
        gym.vector.SyncVectorEnv([make] * 20), behaviour, episodes=min(episodes, 500), seed=0
    )

    def config(precision: str) -> ope.DynamicsConfig:
        fit = ope.FitConfig(updates=updates, precision=precision)  # type: ignore[arg-type]
        return ope.DynamicsConfig(member_episodes="all", noise="bootstrap", fit=fit)

    values, errors = {}, {}
    fits = {}
    for precision in ("float32", "bfloat16"):
        made = ope.ModelBasedConfig(dynamics=config(precision))
        fits[precision] = ope.ModelBased(ope.Estimand(horizon), made).fit(data, seed)
        estimate = fits[precision].estimate(target)
        values[precision], errors[precision] = estimate.value, estimate.mc_standard_error
    # The float32 model itself, rolled out in bfloat16.
    dynamics = fits["float32"].dynamics
    dynamics.config = config("bfloat16")
    rounded = replace(fits["float32"], dynamics=dynamics).estimate(target).value
    return {
        "env_id": env_id,
        "seed": seed,
        "float32": values["float32"],
        "standard_error": errors["float32"] or 0.0,
        "bfloat16_fit_and_rollout": values["bfloat16"],
        "bfloat16_rollout_alone": rounded,
    }


def main(seeds: int = 5, updates: int = 2000) -> None:
    rows = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else []
    done = {(row["env_id"], row["seed"]) for row in rows}
    for env_id in TASKS:
        for seed in range(seeds):
            if (env_id, seed) not in done:
                rows.append(cell(env_id, seed, updates))
                stored = {"command": HOW, "updates": updates, "cells": rows}
                write_text(RESULTS, json.dumps(stored, indent=1) + "\n")
    for env_id in TASKS:
        of_task = [row for row in rows if row["env_id"] == env_id]
        spread = statistics.stdev(row["float32"] for row in of_task)
        typer.echo(f"{env_id}: another seed changes the value by {spread:.3g} (std over seeds)")
        changes = [row["bfloat16_fit_and_rollout"] - row["float32"] for row in of_task]
        error = statistics.stdev(changes) / len(changes) ** 0.5
        typer.echo(f"  bfloat16 minus float32: {statistics.mean(changes):.3g} ± {error:.2g}")
        for row in of_task:
            error = row["standard_error"]
            both, alone = (
                (row[name] - row["float32"]) / error
                for name in ("bfloat16_fit_and_rollout", "bfloat16_rollout_alone")
            )
            typer.echo(
                f"  seed {row['seed']}: {row['float32']:.4g} ± {error:.2g}; in bfloat16 "
                f"{both:+.2f} standard errors, its rollout alone {alone:+.2f}"
            )


if __name__ == "__main__":
    typer.run(main)

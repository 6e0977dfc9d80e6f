"""Measure the shipped policies' values by playing them in the real environments.

    python experiments/measure_values.py                  # every task, 2000 episodes a policy
    python experiments/measure_values.py --task swimmer

Stochastic play, as the policies were trained, for each task's horizon and discount. Written to
`envs/lfiw_envs/policies/<task>/values.json`, one task at a time.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from lfiw_envs import TASKS, Task

import lfiw_ope as ope
from lfiw_ope.core import write_text

HERE = Path(__file__).parent


def measure(task: Task, policy: str, episodes: int, seed: int) -> dict[str, float | int]:
    actor = ope.load_actor(task.policy_path(policy))
    played = ope.collect(task.make_vector(50), actor, episodes=episodes, seed=seed)
    returns = played.returns(task.horizon, task.discount)
    return {
        "mean": float(returns.mean()),
        "standard_error": float(returns.std(ddof=1) / np.sqrt(episodes)),
        "episodes": episodes,
    }


def main(
    task: Annotated[str | None, typer.Option(help="one task, by name")] = None,
    episodes: Annotated[int, typer.Option(help="episodes for each policy")] = 2000,
    seed: int = 1_000_003,
) -> None:
    for name in [task] if task else TASKS:
        record = TASKS[name]
        values = {policy: measure(record, policy, episodes, seed) for policy in record.policies}
        command = f"python experiments/measure_values.py --task {name} --episodes {episodes}"
        stored = {
            "command": f"{command} --seed {seed}",
            "env_id": record.env_id,
            "horizon": record.horizon,
            "discount": record.discount,
            "play": "stochastic",
            "values": values,
        }
        path = HERE.parent / "envs/lfiw_envs/policies" / name / "values.json"
        write_text(path, json.dumps(stored, indent=1) + "\n")
        for policy, value in values.items():
            typer.echo(f"{name}/{policy}: {value['mean']:.3f} ± {value['standard_error']:.3f}")


if __name__ == "__main__":
    typer.run(main)

"""Train the shipped policies: PPO, one target and one behaviour policy for each task.

    python experiments/train_policies.py                 # all six, two at a time
    python experiments/train_policies.py --only swimmer/target

The protocol is that of Grover et al. (2019): the target policy is trained for 1M steps, the
behaviour policy for 500k steps with other hyper-parameters and another seed. Everything else is
stable-baselines3's PPO default (2 x 64 tanh). A finished training leaves its zip in
`experiments/runs/` (not in git) and is not repeated; the actor alone goes, as safetensors, into
`envs/lfiw_envs/policies/<task>/`, the learning curve into `experiments/results/training/`.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

HERE = Path(__file__).parent
ENV_IDS = {
    "humanoid_standup": "HumanoidStandup-v5",
    "half_cheetah": "HalfCheetah-v5",
    "swimmer": "Swimmer-v5",
}


@dataclass(frozen=True)
class Training:
    steps: int
    seed: int
    learning_rate: float


ROLES = {
    "target": Training(steps=1_000_000, seed=1, learning_rate=3e-4),
    "behaviour": Training(steps=500_000, seed=2, learning_rate=1e-4),
}


def train(name: str) -> str:
    """Train `task/role` unless its zip is there; write zip and learning curve."""
    zip_path = HERE / "runs" / f"{name}.zip"
    if zip_path.exists():
        return f"{name}: already trained"
    import torch
    from stable_baselines3 import PPO, __version__
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)  # two trainings share two cores
    task, role = name.split("/")
    settings = ROLES[role]
    env = make_vec_env(ENV_IDS[task], n_envs=1, seed=settings.seed)
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        device="cpu",
    )
    model.learn(settings.steps)
    monitor = env.envs[0]  # type: ignore[attr-defined]
    returns, lengths = monitor.get_episode_rewards(), monitor.get_episode_lengths()
    curve = HERE / "results" / "training" / f"{name.replace('/', '_')}.json"
    curve.parent.mkdir(parents=True, exist_ok=True)
    curve.write_text(
        json.dumps(
            {
                "command": f"python experiments/train_policies.py --only {name}",
                "env_id": ENV_IDS[task],
                "algorithm": "PPO",
                "stable_baselines3": __version__,
                **asdict(settings),
                "episode_lengths": lengths,
                "episode_returns": [round(r, 3) for r in returns],
            }
        )
    )
    zip_path.parent.mkdir(parents=True, exist_ok=True)
    partial = zip_path.with_suffix(".partial.zip")
    model.save(partial)
    os.replace(partial, zip_path)
    return f"{name}: return of the last 20 episodes {sum(returns[-20:]) / 20:.1f}"


def export(name: str) -> str:
    """Write the trained actor of `task/role` as safetensors, without its critic."""
    import lfiw_ope as ope

    actor = ope.load_sb3(HERE / "runs" / f"{name}.zip")
    path = ope.save_actor(actor, HERE.parent / "envs/lfiw_envs/policies" / f"{name}.safetensors")
    return f"{name}: {path.stat().st_size / 1000:.0f} kB"


def main(
    only: Annotated[str | None, typer.Option(help="one policy, as task/role")] = None,
    jobs: Annotated[int, typer.Option(help="trainings at a time")] = 2,
) -> None:
    names = [only] if only else [f"{task}/{role}" for task in ENV_IDS for role in ROLES]
    with ProcessPoolExecutor(jobs) as pool:
        for line in pool.map(train, names):
            typer.echo(line)
    for name in names:
        typer.echo(export(name))


if __name__ == "__main__":
    typer.run(main)

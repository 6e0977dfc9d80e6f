"""Train the policies of the ladders: two runs for each task, with snapshots along the way.

    python experiments/train_ladders.py                       # what is missing, two runs at a time
    python experiments/train_ladders.py --only walker2d/sac

Every task has a PPO run; the second one is SAC with 128 x 128 actors where that learns within the
time, else A2C or PPO with other settings. A finished run leaves its snapshots in
`experiments/runs/ladders/` (not in git) and is not repeated; the learning curves go into
`experiments/results/ladders/`. `experiments/export_ladders.py` makes the shipped actors of it.
"""

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

HERE = Path(__file__).parent
RUNS = HERE / "runs" / "ladders"
CURVES = HERE / "results" / "ladders"

FRACTIONS = (0.0, 0.02, 0.05, 0.075, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0)
"""Of a run's steps, at which a snapshot is taken."""

BINS = 100
"""Of a learning curve."""

LEDGE = "lfiw_envs.stochastic:Ledge-v0"
DELAYED = "lfiw_envs.stochastic:DelayedPendulum-v0"


@dataclass(frozen=True)
class Run:
    """One training: what stable-baselines3 is told.

    Attributes:
        env_id: the Gymnasium id.
        algorithm: PPO, A2C or SAC.
        steps: of the environment, over all its copies.
        seed: of networks, exploration and environments.
        num_envs: copies of the environment.
        normalised: behind a `VecNormalize` of observations and rewards.
        settings: other than the algorithm's defaults; a learning rate "lin_3e-4" falls from 3e-4
            to 0 over the steps.
    """

    env_id: str
    algorithm: str
    steps: int
    seed: int
    num_envs: int = 8
    normalised: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


def _ppo(env_id: str, steps: int, seed: int, **settings: Any) -> Run:
    """PPO behind a normaliser, 2048 steps between updates."""
    settings = {"n_steps": 256, "batch_size": 128} | settings
    return Run(env_id, "PPO", steps, seed, normalised=True, settings=settings)


def _sac(env_id: str, steps: int, seed: int, **settings: Any) -> Run:
    """SAC with one gradient step for two steps of the environment."""
    settings = {"train_freq": 1, "gradient_steps": 2, "learning_starts": 5000} | settings
    return Run(env_id, "SAC", steps, seed, num_envs=4, settings=settings)


# In the order in which they are trained. Settings are those of rl-baselines3-zoo in the main; none
# was chosen by what an estimator makes of the policies.
TRAININGS = {
    "pendulum/ppo": Run(
        "Pendulum-v1",
        "PPO",
        300_000,
        11,
        num_envs=4,
        settings={"n_steps": 512, "batch_size": 64, "gamma": 0.9, "learning_rate": 1e-3},
    ),
    "cartpole/ppo": Run(
        "CartPole-v1",
        "PPO",
        100_000,
        13,
        settings={"n_steps": 128, "batch_size": 256, "gamma": 0.98, "gae_lambda": 0.9},
    ),
    "cartpole/a2c": Run("CartPole-v1", "A2C", 200_000, 14),
    "acrobot/ppo": _ppo("Acrobot-v1", 300_000, 15, n_epochs=4, gae_lambda=0.94),
    "acrobot/a2c": Run("Acrobot-v1", "A2C", 400_000, 16, num_envs=16, normalised=True),
    "half_cheetah/sac": _sac("HalfCheetah-v5", 200_000, 22),
    "swimmer/ppo": _ppo(
        "Swimmer-v5", 1_000_000, 17, gamma=0.9999, gae_lambda=0.98, learning_rate=6e-4
    ),
    "swimmer/ppo_default": Run(
        "Swimmer-v5", "PPO", 500_000, 18, num_envs=1, settings={"batch_size": 128}
    ),
    "walker2d/sac": _sac("Walker2d-v5", 200_000, 26),
    "half_cheetah/ppo": _ppo("HalfCheetah-v5", 1_000_000, 21),
    "walker2d/ppo": _ppo("Walker2d-v5", 1_000_000, 25),
    "hopper/ppo": _ppo("Hopper-v5", 1_000_000, 23),
    "hopper/sac": _sac("Hopper-v5", 150_000, 24),
    "pendulum/sac": _sac("Pendulum-v1", 30_000, 12, learning_starts=1000),
    # With a standard deviation of 1 at first it never walks (401 after three million steps, and an
    # ant that stands still has 1000): the torques of such noise cost more than walking earns. With
    # a constant learning rate it walks after a million steps and loses it in the next two.
    "ant/ppo": _ppo(
        "Ant-v5",
        2_000_000,
        27,
        learning_rate="lin_3e-4",
        policy_kwargs={"log_std_init": -1.0},
    ),
    "humanoid_standup/ppo": _ppo("HumanoidStandup-v5", 1_000_000, 29),
    "ant/sac": _sac("Ant-v5", 200_000, 28),
    "humanoid_standup/ppo_default": Run(
        "HumanoidStandup-v5",
        "PPO",
        400_000,
        30,
        num_envs=4,
        settings={"n_steps": 512, "batch_size": 128},
    ),
    "ledge/ppo": _ppo(LEDGE, 200_000, 31),
    "ledge/sac": _sac(LEDGE, 20_000, 32, learning_starts=1000),
    "delayed_pendulum/ppo": Run(
        DELAYED,
        "PPO",
        300_000,
        33,
        num_envs=4,
        settings={"n_steps": 512, "batch_size": 64, "gamma": 0.9, "learning_rate": 1e-3},
    ),
    "delayed_pendulum/sac": _sac(DELAYED, 20_000, 34, learning_starts=1000),
    "inverted_double_pendulum/ppo": _ppo("InvertedDoublePendulum-v5", 300_000, 35),
    "inverted_double_pendulum/sac": _sac(
        "InvertedDoublePendulum-v5", 20_000, 36, learning_starts=1000
    ),
    "pusher/ppo": _ppo("Pusher-v5", 200_000, 37),
    "pusher/sac": _sac("Pusher-v5", 20_000, 38, learning_starts=1000),
}


def learn(name: str) -> str:
    """Run one training unless it is finished; write snapshots and the learning curve."""
    run, folder = TRAININGS[name], RUNS / name
    if (folder / "finished").exists():
        return f"{name}: already trained"
    import torch

    torch.set_num_threads(1)  # two trainings share two cores
    folder.mkdir(parents=True, exist_ok=True)
    model, env = _start(run)
    snapshots = _snapshots(folder, run)
    began = time.perf_counter()
    model.learn(run.steps, callback=snapshots)
    _write_curve(name, run, env, snapshots.taken, time.perf_counter() - began)
    (folder / "finished").touch()
    return f"{name}: {time.perf_counter() - began:.0f} s"


def _start(run: Run) -> tuple[Any, Any]:
    import stable_baselines3 as sb3
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.utils import LinearSchedule
    from stable_baselines3.common.vec_env import VecNormalize

    env = make_vec_env(run.env_id, n_envs=run.num_envs, seed=run.seed)
    if run.normalised:
        env = VecNormalize(env, gamma=run.settings.get("gamma", 0.99))
    settings: dict[str, Any] = dict(run.settings)
    if str(rate := settings.get("learning_rate")).startswith("lin_"):
        settings["learning_rate"] = LinearSchedule(float(rate.removeprefix("lin_")), 0.0, 1.0)
    if run.algorithm == "SAC":
        settings["policy_kwargs"] = {
            "net_arch": [128, 128],
            "optimizer_kwargs": {"fused": True},  # the same arithmetic in fewer calls
        }
    model = getattr(sb3, run.algorithm)("MlpPolicy", env, seed=run.seed, device="cpu", **settings)
    return model, env


def _snapshots(folder: Path, run: Run) -> Any:
    """A callback that saves the model as soon as each fraction of the steps is reached."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Snapshots(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.left = list(FRACTIONS)
            self.taken: dict[str, int] = {}

        def _take(self) -> None:
            while self.left and self.num_timesteps >= self.left[0] * run.steps:
                fraction = self.left.pop(0)
                stem = folder / f"{fraction:g}"
                self.model.save(stem.with_name(stem.name + ".zip"))
                if normaliser := self.model.get_vec_normalize_env():
                    normaliser.save(str(stem.with_name(stem.name + ".pkl")))
                self.taken[f"{fraction:g}"] = self.num_timesteps

        def _on_rollout_start(self) -> None:
            self._take()

        def _on_step(self) -> bool:
            return True

        def _on_training_end(self) -> None:
            self._take()

    return Snapshots()


def _write_curve(name: str, run: Run, env: Any, taken: dict[str, int], seconds: float) -> None:
    """Mean return and length of the episodes that ended in each hundredth of the training."""
    lengths = env.env_method("get_episode_lengths")
    returns = env.env_method("get_episode_rewards")
    ends = np.concatenate([np.cumsum(of_one) for of_one in lengths]) * run.num_envs
    places = np.minimum((ends / run.steps * BINS).astype(int), BINS - 1)
    flat_returns, flat_lengths = np.concatenate(returns), np.concatenate(lengths)
    curve = [
        {
            "steps": round((place + 1) * run.steps / BINS),
            "episodes": int((places == place).sum()),
            "mean_return": round(float(flat_returns[places == place].mean()), 3),
            "mean_length": round(float(flat_lengths[places == place].mean()), 1),
        }
        for place in np.unique(places)
    ]
    import gymnasium
    import stable_baselines3 as sb3

    stored = {
        "command": f"python experiments/train_ladders.py --only {name}",
        "env_id": run.env_id,
        "algorithm": run.algorithm,
        "steps": run.steps,
        "seed": run.seed,
        "num_envs": run.num_envs,
        "normalised": run.normalised,
        "settings": run.settings,
        "versions": {"stable_baselines3": sb3.__version__, "gymnasium": gymnasium.__version__},
        "seconds": round(seconds, 1),
        "snapshots": taken,
        "curve": curve,
    }
    CURVES.mkdir(parents=True, exist_ok=True)
    path = CURVES / f"{name.replace('/', '_')}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def main(
    only: Annotated[str | None, typer.Option(help="one run, as task/run")] = None,
    jobs: Annotated[int, typer.Option(help="trainings at a time")] = 2,
) -> None:
    with ProcessPoolExecutor(jobs, max_tasks_per_child=1) as pool:
        futures = [pool.submit(learn, name) for name in ([only] if only else TRAININGS)]
        for future in as_completed(futures):
            typer.echo(future.result())


if __name__ == "__main__":
    typer.run(main)

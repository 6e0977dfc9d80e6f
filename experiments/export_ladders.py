"""Make the shipped actors of the ladders of the training's snapshots.

    python experiments/export_ladders.py                     # every run that is finished
    python experiments/export_ladders.py --task cartpole

From `experiments/runs/ladders/<task>/<run>/<fraction>.zip`, as `train_ladders.py` leaves them, to
`envs/lfiw_envs/policies/<task>/<run>_<fraction>.safetensors`: the policies that a ladder names as
targets or as makers of its data, and no others. Each is held against the stable-baselines3 model
that it was, behind the statistics that it was trained with, at states of its environment.
"""

import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from lfiw_envs import LADDERS, Ladder
from lfiw_envs.tasks import POLICIES

import lfiw_ope as ope

HERE = Path(__file__).parent

LARGEST = 400_000
"""Bytes of a file that is shipped."""

STATES = 256
"""At which an actor is held against its model."""


def snapshot(ladder: Ladder, policy: str, runs: Path) -> Path:
    """The zip of a policy, which its name tells: run, then fraction."""
    run, fraction = policy.rsplit("_", 1)
    return runs / ladder.name / run / f"{fraction}.zip"


def export(ladder: Ladder, path: Path, to: Path) -> ope.MLPPolicy:
    """Write a snapshot's actor, without its critic; nothing in the files is executed."""
    statistics = path.with_suffix(".pkl")
    # 0.5.zip has 0.5.pkl beside it where the run had a VecNormalize.
    space = ladder.make().action_space  # the zip's own print leaves out some of many bounds
    spec = None if hasattr(space, "n") else ope.ActionSpec.continuous(space.low, space.high)
    actor = ope.load_sb3(
        path,
        action_spec=spec,
        vec_normalize=statistics if statistics.exists() else None,
    )
    ope.save_actor(actor, to)
    return ope.load_actor(to, deterministic=True)


def model_actions(ladder: Ladder, path: Path, states: np.ndarray) -> np.ndarray:
    """What the model itself does at states `[n, S]`, `[n, A]`, by its mode."""
    import stable_baselines3 as sb3
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    said = ladder.make().action_space
    name = path.parent.name.split("_")[0].upper()
    model = getattr(sb3, name).load(path, device="cpu")
    statistics = path.with_suffix(".pkl")
    seen: Any = states
    if statistics.exists():
        seen = VecNormalize.load(str(statistics), DummyVecEnv([ladder.make])).normalize_obs(states)
    actions, _ = model.predict(seen, deterministic=True)
    return np.eye(said.n)[actions] if hasattr(said, "n") else actions


def visited(ladder: Ladder, actor: ope.MLPPolicy) -> np.ndarray:
    """States `[n, S]` of random actions, from the start on."""
    env = ladder.make()
    env.action_space.seed(0)
    rows = []
    while len(rows) < STATES:
        state, _ = env.reset(seed=len(rows))
        for _ in range(32):
            rows.append(np.asarray(state, np.float32).ravel())
            state, _, terminated, *_ = env.step(env.action_space.sample())
            if terminated:
                break
    assert rows[0].size == actor.state_size
    return np.stack(rows[:STATES])


def largest_difference(ladder: Ladder, path: Path, actor: ope.MLPPolicy) -> float:
    """Of the exported actor's actions from the model's, in the environment's units."""
    states = visited(ladder, actor)
    mine = actor.act(torch.from_numpy(states), torch.Generator()).numpy()
    return float(np.abs(mine - model_actions(ladder, path, states)).max())


def main(
    task: Annotated[str | None, typer.Option(help="one ladder, by name")] = None,
    runs: Annotated[Path, typer.Option(help="of the training")] = HERE / "runs" / "ladders",
    folder: Annotated[Path, typer.Option(help="of the policies, a folder a task")] = POLICIES,
) -> None:
    warnings.filterwarnings("ignore", message=".*render.*")
    for name in [task] if task else LADDERS:
        ladder, waiting = LADDERS[name], set[str]()
        if ladder.folder.name != name:
            typer.echo(f"{name}: shares the policies of {ladder.folder.name}")
            continue
        for policy in ladder.policies:
            path = snapshot(ladder, policy, runs)
            if not (path.parent / "finished").exists():
                waiting.add(path.parent.name)
                continue
            to = folder / name / f"{policy}.safetensors"
            apart = largest_difference(ladder, path, export(ladder, path, to))
            size = to.stat().st_size
            if apart > 1e-4 or size >= LARGEST:
                to.unlink()
                raise SystemExit(f"{name}/{policy}: {apart:.1e} from its model, {size} bytes")
            typer.echo(f"{name}/{policy}: {size / 1000:.0f} kB, within {apart:.1e} of its model")
        for run in sorted(waiting):
            typer.echo(f"{name}/{run}: not trained yet")


if __name__ == "__main__":
    typer.run(main)

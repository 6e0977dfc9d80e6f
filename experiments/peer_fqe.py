"""Does fitted Q evaluation agree with d3rlpy's, and what does an update cost in either?

    python experiments/peer_fqe.py --peer-python peers/bin/python

The peer needs a venv of its own:

    python3 -m venv peers && peers/bin/pip install torch==2.13.0 d3rlpy==2.8.1

Set equal: the log (Pendulum, made on the spot, every transition of it in either), standardised
states and rewards, the deterministic target policies, networks of 2 hidden ReLU layers, batches of
256, Adam's rate of 3e-4, one network for a policy, γ = 0.9 over an infinite horizon. Not equal, as
the peer does not offer it: it copies its target networks at every 100 updates (ours follow by
τ = 0.01), neither balances the constant nor bounds its targets, draws batches from a replay buffer
of Python objects, computes the policy's actions at every update, and trains 20 policies one after
the other, which takes 20 times as long as one. Its own scaler of states would standardise what the
policy sees, too, so that states are standardised beforehand, and undone in the policy.

Every cell runs in a process of its own, a peer's next to ours; times are medians over blocks of 25
updates. A cell is stored when it is finished; a stopped run goes on, and `--fresh` begins again.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import typer

import lfiw_ope as ope
from lfiw_ope.core import provenance, torch_generator, write_text
from lfiw_ope.policies import GaussianHead

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "peer_fqe.json"
ESTIMAND = ope.Estimand(200, 0.9)
EPISODES, SEEDS, WIDTHS, THREADS = 100, (0, 1, 2), (256, 64), (1, 2)
VALUE_UPDATES, TIMED = 4000, 150
Cell = dict[str, Any]


def pendulum() -> gym.Env:
    return gym.make("Pendulum-v1", max_episode_steps=ESTIMAND.horizon)


def layers(seed: int) -> list[torch.Tensor]:
    generator = torch_generator(seed, "policy")
    return [
        (2 * torch.rand(shape, generator=generator) - 1) * 3 / shape[0] ** 0.5
        for shape in pairwise((3, 64, 1))
    ]


def policy(seed: int, *, deterministic: bool = True) -> ope.MLPPolicy:
    limit = torch.full((1, 1), 2.0)
    head = GaussianHead(torch.zeros((1, 1)), -limit, limit)
    biases = [torch.zeros(64), torch.zeros(1)]
    return ope.MLPPolicy.from_layers(
        layers(seed), biases, head, activation="tanh", deterministic=deterministic
    )


def play(actor: ope.MLPPolicy, episodes: int, seed: int) -> ope.Trajectories:
    env = gym.vector.SyncVectorEnv([pendulum] * 20)
    data = ope.collect(env, actor, episodes=episodes, seed=seed)
    env.close()
    return data


def standardised(data: ope.Trajectories) -> tuple[ope.Trajectories, float, float]:
    """The log with rewards of mean 0 and standard deviation 1, and what these were."""
    mean, std = float(data.rewards.mean()), float(data.rewards.std())
    log = ope.Trajectories(
        states=data.states,
        actions=data.actions,
        rewards=(data.rewards - mean) / std,
        lengths=data.lengths,
        terminated=data.terminated,
        truncated=data.truncated,
        action_spec=data.action_spec,
    )
    return log, mean, std


def ours(
    data: ope.Trajectories, count: int, width: int, updates: int, seed: int, precision: str
) -> Cell:
    """Value of the first policy, and milliseconds for an update of one policy."""
    marks: list[tuple[int, float]] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        marks.append((done, time.perf_counter()))

    config = ope.FQEConfig(
        hidden=(width, width),
        members=1,
        fit=ope.FitConfig(
            updates=updates,
            learning_rate=3e-4,
            schedule="constant",
            evaluate_every=max(100, updates // 40),
            precision=precision,  # type: ignore[arg-type]
            patience=None,
        ),
    )
    policies = [policy(1 + i) for i in range(count)]
    fitted = ope.fit_q(data, policies, ESTIMAND, config, seed, progress=progress)
    each = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(marks) if b[0] > a[0]]
    return {"value": float(fitted.values[0]), "ms": 1e3 * statistics.median(each) / count}


def peer(python: Path, log: Path, width: int, updates: int, seed: int, threads: int) -> Cell:
    asked = {"log": str(log), "width": width, "updates": updates, "seed": seed}
    asked |= {"threads": threads, "discount": ESTIMAND.discount}
    command = [str(python), str(HERE / "peer_d3rlpy.py"), json.dumps(asked)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode:
        raise SystemExit(said.stderr)
    cell: Cell = json.loads(said.stdout.splitlines()[-1])
    return cell


def cells() -> dict[str, Cell]:
    """What is to be measured, by name; a peer's cell next to ours."""
    found: dict[str, Cell] = {}
    for seed in SEEDS:
        for who in ("peer", "ours"):
            found[f"value, {who}, seed {seed}"] = {
                "who": who,
                "count": 1,
                "width": 256,
                "updates": VALUE_UPDATES,
                "seed": seed,
                "threads": 1,
                "precision": "float32",
            }
    for threads in THREADS:
        for width in WIDTHS:
            kinds = [("peer", 1, "float32")]
            kinds += [("ours", n, p) for p in ("float32", "bfloat16") for n in (1, 20)]
            for who, count, precision in kinds:
                name = f"{who}, {count} policies, width {width}, {threads} threads, {precision}"
                found[name] = {
                    "who": who,
                    "count": count,
                    "width": width,
                    "updates": TIMED,
                    "seed": 0,
                    "threads": threads,
                    "precision": precision,
                }
    return found


def measure(cell: Cell, log: Path, python: Path) -> Cell:
    """One cell, in a process of its own."""
    if cell["who"] == "peer":
        shape = (cell["width"], cell["updates"], cell["seed"], cell["threads"])
        return peer(python, log, *shape)
    command = [sys.executable, __file__, "--cell", json.dumps(cell)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode:
        raise SystemExit(said.stderr)
    found: Cell = json.loads(said.stdout.splitlines()[-1])
    return found


def one_cell(cell: Cell) -> None:
    torch.set_num_threads(cell["threads"])
    data, _, _ = standardised(play(policy(0, deterministic=False), EPISODES, seed=0))
    shape = (cell["count"], cell["width"], cell["updates"], cell["seed"], cell["precision"])
    print(json.dumps(ours(data, *shape)))


def summary(found: dict[str, Cell], truth: Cell, mean: float, std: float) -> Cell:
    """Values in the environment's units, and how many times as fast."""
    whole = mean / (1.0 - ESTIMAND.discount)
    values = {
        who: [whole + std * found[f"value, {who}, seed {seed}"]["value"] for seed in SEEDS]
        for who in ("peer", "ours")
    }
    times = {}
    for threads in THREADS:
        for width in WIDTHS:
            end = f"width {width}, {threads} threads"
            slow = found[f"peer, 1 policies, {end}, float32"]["ms"]
            for precision in ("float32", "bfloat16"):
                times[f"{end}, {precision}"] = {
                    f"{count} policies": slow
                    / found[f"ours, {count} policies, {end}, {precision}"]["ms"]
                    for count in (1, 20)
                }
    return {"values": values, "truth": truth, "times_as_fast": times}


def draw(told: Cell, found: dict[str, Cell], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (who, label) in enumerate((("peer", "d3rlpy 2.8.1"), ("ours", "lfiw_ope"))):
        left.plot([place] * len(SEEDS), told["values"][who], "o", label=label)
    left.axhline(told["truth"]["value"], color="black", lw=1, label="played")
    left.set(xticks=(), ylabel="value", title=f"Pendulum, γ = 0.9, {len(SEEDS)} seeds each")
    left.legend()
    names = [n for n in found if not n.startswith("value") and "1 threads" in n]
    labels = [n.replace(" policies", "").replace(", 1 threads", "") for n in names]
    right.barh(labels, [found[name]["ms"] for name in names])
    right.invert_yaxis()
    right.set(xlabel="ms for an update of one policy, 1 thread")
    figure.savefig(path, dpi=120)


def main(
    peer_python: Annotated[Path | None, typer.Option(help="python with d3rlpy 2.8.1")] = None,
    fresh: Annotated[bool, typer.Option(help="forget what is stored")] = False,
    cell: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    if cell is not None:
        return one_cell(json.loads(cell))
    if peer_python is None:
        raise typer.BadParameter("give --peer-python")
    stored = {} if fresh or not RESULTS.exists() else json.loads(RESULTS.read_text())
    found: dict[str, Cell] = stored.get("cells", {})
    data, mean, std = standardised(play(policy(0, deterministic=False), EPISODES, seed=0))
    starts = play(policy(1), 1000, seed=1).returns(ESTIMAND.horizon, ESTIMAND.discount)
    truth = {"value": starts.mean(), "standard_error": starts.std() / len(starts) ** 0.5}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.npz"
        shape = (data.num_episodes, -1)
        np.savez(
            log,
            states=data.states.reshape(*shape, 3),
            actions=data.actions.reshape(*shape, 1),
            rewards=data.rewards.reshape(shape),
            **{f"layer{i}": weight.numpy() for i, weight in enumerate(layers(1))},
        )
        for name, what in cells().items():
            if name not in found:
                found[name] = measure(what, log, peer_python)
                print(name, found[name], flush=True)
                write_text(RESULTS, json.dumps({"cells": found}, indent=1) + "\n")
    told = summary(found, truth, mean, std)
    whole = {"command": "experiments/peer_fqe.py", **provenance(), "cells": found, **told}
    write_text(RESULTS, json.dumps(whole, indent=1) + "\n")
    draw(told, found, RESULTS.with_suffix(".png"))
    print(json.dumps(told, indent=1))
    return None


if __name__ == "__main__":
    typer.run(main)

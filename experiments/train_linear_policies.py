"""Train the linear policies that the rules of environments are checked with.

    python experiments/train_linear_policies.py                 # all eight, two at a time
    python experiments/train_linear_policies.py --only Hopper

Augmented random search (Mania, Guy and Recht, NeurIPS 2018, arXiv 1803.07055, version V2-t) on
a = clip(W s + b). The policies read the leading entries of the observation, those that every
version of an environment shares, so one plays v4 and v5. They stay on their feet longer than
chance and reach states that random play does not; they are not meant to be strong. The weights
go, with what they earned, into `tests/integration/linear_policies/<name>.json`.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import numpy as np
import typer

WEIGHTS = Path(__file__).parents[1] / "tests" / "integration" / "linear_policies"
DIRECTIONS, KEPT, HORIZON, TESTED = 8, 4, 1000, 10


@dataclass(frozen=True)
class Training:
    entries: int  # of the observation, from the first
    steps: int
    step_size: float = 0.02
    noise: float = 0.03
    alive_bonus: float = 0.0  # taken off each step's reward in training


TRAININGS = {
    "Ant": Training(entries=27, steps=600_000, step_size=0.01, noise=0.02),
    "Hopper": Training(entries=11, steps=1_000_000, alive_bonus=1.0),
    "Humanoid": Training(entries=45, steps=800_000, alive_bonus=5.0),
    "InvertedDoublePendulum": Training(entries=8, steps=300_000),
    "InvertedPendulum": Training(entries=4, steps=100_000, step_size=0.2, noise=0.2),
    "Pusher": Training(entries=23, steps=400_000, step_size=0.01, noise=0.02),
    "Reacher": Training(entries=10, steps=300_000, step_size=0.01, noise=0.02),
    "Walker2d": Training(entries=17, steps=1_200_000, alive_bonus=1.0),
}


class Moments:
    """Running mean and variance of observations."""

    def __init__(self, size: int) -> None:
        self.count, self.mean, self.square = 1e-4, np.zeros(size), np.ones(size) * 1e-4

    def add(self, rows: np.ndarray) -> None:
        new = self.count + len(rows)
        self.mean += (rows - self.mean).sum(0) / new
        self.square += (rows**2).sum(0)
        self.count = new

    @property
    def scale(self) -> np.ndarray:
        return np.sqrt(np.maximum(self.square / self.count - self.mean**2, 1e-6))


def play(env: Any, weight: np.ndarray, bias: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """States `[T, entries]` and the return of one episode."""
    entries, high = weight.shape[1], env.action_space.high
    observation, _ = env.reset(seed=seed)
    states, total, ended = [], 0.0, False
    while not ended and len(states) < HORIZON:
        states.append(observation[:entries])
        action = np.clip(weight @ states[-1] + bias, -high, high).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, ended = total + float(reward), terminated or truncated
    return np.stack(states), total


def train(name: str) -> str:
    settings = TRAININGS[name]
    env = gymnasium.make(f"{name}-v5")
    rng = np.random.default_rng(0)
    theta = np.zeros((*env.action_space.shape, settings.entries))
    seen, steps, seed = Moments(settings.entries), 0, 0
    while steps < settings.steps:
        directions = rng.standard_normal((DIRECTIONS, *theta.shape))
        mean, scale = seen.mean.copy(), seen.scale
        earned = np.empty((DIRECTIONS, 2))
        for i, direction in enumerate(directions):
            for j, sign in enumerate((1.0, -1.0)):
                weight = (theta + sign * settings.noise * direction) / scale
                states, total = play(env, weight, -weight @ mean, seed := seed + 1)
                earned[i, j] = total - settings.alive_bonus * len(states)
                steps += len(states)
                seen.add(states)
        best = np.argsort(-earned.max(1))[:KEPT]
        gap = (earned[best, 0] - earned[best, 1])[:, None, None]
        spread = KEPT * earned[best].std() + 1e-8
        theta += settings.step_size / spread * (gap * directions[best]).sum(0)
    weight = (theta / seen.scale).round(5)
    bias = (-weight @ seen.mean).round(5)
    tests = [play(env, weight, bias, 10_000_000 + i) for i in range(TESTED)]
    write(name, weight, bias, steps, tests)
    lengths, returns = [len(states) for states, _ in tests], [total for _, total in tests]
    return f"{name}: return {np.mean(returns):.0f}, {np.mean(lengths):.0f} steps"


def write(name: str, weight: np.ndarray, bias: np.ndarray, steps: int, tests: list[Any]) -> None:
    said = {
        "command": f"python experiments/train_linear_policies.py --only {name}",
        "env_id": f"{name}-v5",
        "steps": steps,
        "mean_return": round(float(np.mean([total for _, total in tests])), 2),
        "mean_length": float(np.mean([len(states) for states, _ in tests])),
        "bias": bias.tolist(),
        "weight": weight.tolist(),
    }
    WEIGHTS.mkdir(exist_ok=True)
    partial = WEIGHTS / f"{name}.partial"
    partial.write_text(json.dumps(said).replace("], [", "],\n[") + "\n", encoding="utf-8")
    os.replace(partial, WEIGHTS / f"{name}.json")


def main(
    only: Annotated[str | None, typer.Option(help="one environment's name")] = None,
    jobs: Annotated[int, typer.Option(help="trainings at a time")] = 2,
) -> None:
    with ProcessPoolExecutor(jobs) as pool:
        for line in pool.map(train, [only] if only else list(TRAININGS)):
            typer.echo(line)


if __name__ == "__main__":
    typer.run(main)

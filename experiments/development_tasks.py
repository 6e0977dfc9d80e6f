"""Tasks to choose settings on: test-beds and environments that no report is made of.

Each is drawn from a seed: the process where it is a test-bed, the behaviour policy and its log, and
target policies on a line that leads away from the behaviour. A target's value is exact in the
test-beds and measured by real play elsewhere. The test-beds' logs come from `tests/testbeds.py`,
so that `tests` must be on PYTHONPATH.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import lfiw_envs
import numpy as np
import torch
from bf16_values import random_policy
from testbeds import log_of

import lfiw_ope as ope
from lfiw_ope.policies.heads import CategoricalHead, GaussianHead
from lfiw_ope.seeding import derive, numpy_generator

LINEAR_POLICIES = Path(__file__).parents[1] / "tests" / "integration" / "linear_policies"
DISTANCES = (0.25, 0.5, 1.0)
"""Of the targets, on the line from the behaviour, which is at 0, to another policy, at 1."""

COPIES = 20
"""Of an environment that play side by side."""


@dataclass(frozen=True)
class Task:
    """What is evaluated, and how much is there to learn it from.

    Attributes:
        kind: "linear_gaussian", "tabular" or a Gymnasium id.
        horizon: T.
        episodes: of the log.
        played: episodes that measure a target's spread of returns, and its value where that is not
            exact.
        hidden: the dynamics' layers.
        updates: of the dynamics.
    """

    kind: str
    horizon: int
    episodes: int
    played: int = 400
    hidden: tuple[int, ...] = (128, 128)
    updates: int = 1500


TASKS = {
    "linear-Gaussian": Task("linear_gaussian", 20, 200, 4000),
    "linear-Gaussian, little data": Task("linear_gaussian", 20, 30, 4000, updates=500),
    "linear-Gaussian, small network": Task("linear_gaussian", 20, 200, 4000, hidden=(4,)),
    "tabular": Task("tabular", 20, 200, 4000),
    "tabular, little data": Task("tabular", 20, 40, 4000, updates=500),
    "Pendulum-v1": Task("Pendulum-v1", 60, 200),
    "Pendulum-v1, little data": Task("Pendulum-v1", 60, 30, updates=750),
    "CartPole-v1": Task("CartPole-v1", 60, 300),
    "Reacher-v5": Task("Reacher-v5", 50, 200),
    "Hopper-v5": Task("Hopper-v5", 60, 300, 300),
}


@dataclass(frozen=True)
class Target:
    """A policy to evaluate, and the answer.

    Attributes:
        distance: from the behaviour, 0 to 1.
        policy: as the estimators take it.
        value: v(π).
        standard_error: of the value; 0 where it is exact.
        spread: standard deviation of one episode's return, the unit of errors.
    """

    distance: float
    policy: ope.types.Policy
    value: float
    standard_error: float
    spread: float


def draw(name: str, seed: int) -> tuple[ope.Trajectories, list[Target]]:
    """The log and the targets of one task, all drawn from the seed."""
    task = TASKS[name]
    # Tasks of one kind share the process and the policies: what differs is what is learned from.
    seed = derive(seed, task.kind) % 2**31
    if task.kind == "linear_gaussian":
        return _linear_gaussian(task, seed)
    if task.kind == "tabular":
        return _tabular(task, seed)
    return _environment(task, seed)


def _linear_gaussian(task: Task, seed: int) -> tuple[ope.Trajectories, list[Target]]:
    rng = numpy_generator(seed, "linear Gaussian")
    states, actions = 3, 2
    truth = lfiw_envs.LinearGaussianMDP(
        a=0.9 * np.eye(states) + 0.05 * rng.normal(size=(states, states)),
        b=0.3 * rng.normal(size=(states, actions)),
        offset=0.1 * rng.normal(size=states),
        noise=0.04 * np.eye(states),
        initial_mean=np.zeros(states),
        initial_cov=0.1 * np.eye(states),
        linear=rng.normal(size=states),
        state_cost=0.1 * np.eye(states),
        action_cost=0.1 * np.eye(actions),
    )
    gain, bias = 0.3 * rng.normal(size=(2, actions, states)), 0.2 * rng.normal(size=(2, actions))
    away = 0.4 * rng.normal(size=actions)

    def policy(distance: float) -> lfiw_envs.LinearGaussianPolicy:
        mixed = gain[0] + distance * (gain[1] - gain[0])
        return lfiw_envs.LinearGaussianPolicy(
            mixed, bias[0] + distance * (bias[1] - bias[0] + away), np.full(actions, 0.3)
        )

    policies = {distance: policy(distance) for distance in DISTANCES}
    return _test_bed(task, truth, policy(0.0), policies, policies, seed)


def _tabular(task: Task, seed: int) -> tuple[ope.Trajectories, list[Target]]:
    states, actions = 6, 3
    truth = lfiw_envs.TabularMDP.random(states, actions, seed, terminal=1)
    rng = numpy_generator(seed, "tables")
    near, far = (
        rng.dirichlet(np.ones(actions), states),
        rng.dirichlet(np.full(actions, 0.3), states),
    )
    tables = {distance: (1 - distance) * near + distance * far for distance in DISTANCES}
    playing = {d: lfiw_envs.TabularPolicy(table) for d, table in tables.items()}
    # A learned model draws states that are nearly one-hot; the library's table can read them.
    simulated = {d: ope.TabularPolicy(table) for d, table in tables.items()}
    return _test_bed(task, truth, lfiw_envs.TabularPolicy(near), playing, simulated, seed)


def _test_bed(task, truth, behaviour, playing, simulated, seed):
    data = log_of(truth, behaviour, task.episodes, task.horizon, derive(seed, "log"))
    targets = []
    for distance, policy in playing.items():
        played = log_of(truth, policy, task.played, task.horizon, derive(seed, "play"))
        spread = float(played.returns(task.horizon, 1.0).std(ddof=1))
        value = truth.value(policy, task.horizon)
        targets.append(Target(distance, simulated[distance], value, 0.0, spread))
    return data, targets


def _environment(task: Task, seed: int) -> tuple[ope.Trajectories, list[Target]]:
    def make() -> gym.Env:
        return gym.make(task.kind, max_episode_steps=task.horizon)

    behaviour, other = _ends(task.kind, make(), seed)
    env = gym.vector.SyncVectorEnv([make] * COPIES)
    data = ope.collect(env, behaviour, episodes=task.episodes, seed=derive(seed, "log"))
    targets = []
    for distance in DISTANCES:
        policy = _between(behaviour, other, distance)
        played = ope.collect(env, policy, episodes=task.played, seed=derive(seed, "play"))
        returns = played.returns(task.horizon, 1.0)
        spread = float(returns.std(ddof=1))
        error = spread / len(returns) ** 0.5
        targets.append(Target(distance, policy, float(returns.mean()), error, spread))
    env.close()
    return data, targets


def _ends(kind: str, env: gym.Env, seed: int) -> tuple[ope.MLPPolicy, ope.MLPPolicy]:
    """The behaviour, and the policy at the other end of the line."""
    if kind == "Pendulum-v1":
        first, second = (random_policy(env, 2.0, derive(seed, name)) for name in ("near", "far"))
        return first, second
    rng = numpy_generator(seed, "ends")
    if kind == "CartPole-v1":
        # Pushing where the pole falls to keeps it up; the behaviour does so half-heartedly.
        upright = np.array([0.1, 0.3, 2.0, 0.6])
        ends = []
        for strength in (0.3, 1.0):
            push = torch.tensor(
                strength * (upright + 0.3 * rng.normal(size=4)), dtype=torch.float32
            )
            ends.append(_linear(torch.stack((-push, push), 1), torch.zeros(2), CategoricalHead()))
        return ends[0], ends[1]
    trained = json.loads((LINEAR_POLICIES / f"{kind.split('-')[0]}.json").read_text())
    weight, bias = np.array(trained["weight"]).T, np.array(trained["bias"])
    limit = torch.ones((1, len(bias))) * torch.from_numpy(env.action_space.high)
    ends = []
    for _ in range(2):
        changed = weight * (1 + 0.3 * rng.normal(size=weight.shape))
        head = GaussianHead(torch.full_like(limit, -0.5) + limit.log(), -limit, limit)
        ends.append(_linear(_padded(changed, env), torch.tensor(bias), head))
    return ends[0], ends[1]


def _padded(weight: np.ndarray, env: gym.Env) -> torch.Tensor:
    """`[S, A]`: the linear policies read the leading entries of the observation alone."""
    missing = env.observation_space.shape[0] - len(weight)
    return torch.from_numpy(np.pad(weight, ((0, missing), (0, 0))))


def _linear(weight: torch.Tensor, bias: torch.Tensor, head) -> ope.MLPPolicy:
    return ope.MLPPolicy.from_layers([weight.float()], [bias.float()], head, activation="tanh")


def _between(first: ope.MLPPolicy, second: ope.MLPPolicy, distance: float) -> ope.MLPPolicy:
    """The policy whose parameters lie on the line from the first's to the second's."""
    mixed = copy.deepcopy(first)
    for own, other in zip(mixed.parameters(), second.parameters(), strict=True):
        own.data.lerp_(other.data, distance)
    return mixed

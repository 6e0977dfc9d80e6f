"""Who plays the real simulators in tests: at random, and well."""

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from lfiw_envs import TASKS
from lfiw_envs.rules.lookup import STOCHASTIC

import lfiw_ope as ope

LINEAR = Path(__file__).parent / "integration" / "linear_policies"
"""Trained by experiments/train_linear_policies.py."""


class Log(NamedTuple):
    """Transitions of a real environment, as it observed them."""

    state: np.ndarray  # [B, S] in the environment's dtype
    action: np.ndarray  # [B, A] float32, one-hot if discrete
    next_state: np.ndarray  # [B, S]
    reward: np.ndarray  # [B] float64
    terminated: np.ndarray  # [B] bool

    def tensors(self, dtype):
        return tuple(torch.from_numpy(a).to(dtype) for a in self[:3])


def make(env_id, kwargs=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # v4 is deprecated, and data sets of it are there
        return gymnasium.make(env_id, disable_env_checker=True, **(kwargs or {}))


def play(env, act, *, steps, seed, most=1000):
    """`steps` transitions or a few more, in whole episodes of at most `most` steps."""
    rows, episode = [], 0
    while len(rows) < steps:
        state, _ = env.reset(seed=seed + episode)
        env.action_space.seed(seed + episode)
        for _ in range(most):
            rows.append(one_step(env, state, act(state)))
            *_, state, _, terminated, truncated = rows[-1]
            if terminated or truncated:
                break
        episode += 1
    return as_log(rows)


def one_step(env, state, action):
    reached, reward, terminated, truncated, _ = env.step(action)
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        action = np.eye(int(env.action_space.n), dtype=np.float32)[action]
    return state, action, reached, float(reward), terminated, truncated


def as_log(steps):
    return Log(*(np.array(column) for column in list(zip(*steps, strict=True))[:5]))


def reward_error(rules, log, dtype=torch.float64):
    """Of each step, relative to the reward where that is above 1."""
    said = rules.reward(*log.tensors(dtype)).double().numpy()
    return np.abs(said - log.reward) / np.maximum(1.0, np.abs(log.reward))


def random_player(env):
    return lambda _: env.action_space.sample()


def weak_player(env):
    """Small random actions, each held for some steps: longer episodes, other falls."""
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return held_player(env, 8)
    return held_player(env, 5, 0.3)


def held_player(env, steps, scale=1.0):
    held = []

    def act(_):
        if not held:
            action = env.action_space.sample()
            held.extend([action if scale == 1.0 else (scale * action).astype(np.float32)] * steps)
        return held.pop()

    return act


def good_player(env, env_id, kwargs=None):
    """A controller by hand, a shipped policy or a trained linear one; None where there is none."""
    env_id = env_id.removeprefix(STOCHASTIC).removeprefix("Pushed")  # pushes need no other player
    name = env_id.split("-")[0]
    if name in RANDOM_BY_HAND:
        return RANDOM_BY_HAND[name]
    if name in BY_HAND:
        return BY_HAND[name]
    shipped = {task.env_id.split("-")[0]: task for task in TASKS.values()}
    if name in shipped:
        return _shipped_player(shipped[name], env, env_id, kwargs or {})
    return _linear_player(name, env, kwargs or {})


def _hidden(name, kwargs):
    """How many leading positions are observed beyond the default."""
    kept = not kwargs.get("exclude_current_positions_from_observation", True)
    return kept * (1 if name in ("HalfCheetah", "Hopper", "Walker2d") else 2)


def _linear_player(name, env, kwargs):
    said = json.loads((LINEAR / f"{name}.json").read_text(encoding="utf-8"))
    weight, bias = np.array(said["weight"]), np.array(said["bias"])
    first, high = _hidden(name, kwargs), env.action_space.high

    def act(state):
        seen = state[first : first + weight.shape[1]]
        return np.clip(weight @ seen + bias, -high, high).astype(np.float32)

    return act


def _shipped_player(task, env, env_id, kwargs):
    if any(name.startswith("include_") for name in kwargs):
        return None
    actor = ope.load_actor(task.policy_path("target"))
    generator = torch.Generator().manual_seed(0)
    seen = np.arange(_hidden(env_id.split("-")[0], kwargs), env.observation_space.shape[0])
    if env_id == "HumanoidStandup-v4":  # v5 leaves out the world body and the root's actuators
        blocks = ((45, 0), (130, 10), (78, 6), (17, 6), (78, 6))
        starts = np.cumsum([dropped + size for size, dropped in blocks])
        seen = np.concatenate(
            [np.arange(end - size, end) for end, (size, _) in zip(starts, blocks, strict=True)]
        )

    def act(state):
        row = torch.from_numpy(state[seen]).float()[None]
        return actor.act(row, generator).numpy()[0]

    return act


def _swing(state):
    cosine, sine, speed = state
    if cosine > 0.9:
        torque = -(12.0 * np.arctan2(sine, cosine) + 3.0 * speed)
    else:  # pump the energy (ω²/6 + 5 (cos θ − 1), at rest upright 0) towards 0
        torque = -2.0 * np.sign(speed or 1.0) * np.sign(speed**2 / 6.0 + 5.0 * (cosine - 1.0))
    return np.clip(np.array([torque], np.float32), -2.0, 2.0)


BY_HAND = {
    "Acrobot": lambda s: 2 if s[5] > 0 else 0,
    "CartPole": lambda s: int(3.0 * s[2] + s[3] + 0.1 * s[0] + 0.3 * s[1] > 0),
    "MountainCar": lambda s: 2 if s[1] >= 0 else 0,
    "MountainCarContinuous": lambda s: np.array([1.0 if s[1] >= 0 else -1.0], np.float32),
    "Pendulum": _swing,
}


def _walk(state):
    """To the far end of the ledge, at a distance from the edge."""
    x, y, along, across = state
    push = (6.0 * (0.9 - x) - 3.0 * along, 6.0 * (0.5 - y) - 3.0 * across)
    return np.clip(push, -1.0, 1.0).astype(np.float32)


RANDOM_BY_HAND = {
    "DelayedPendulum": lambda state: _swing(state[:3]),
    "DropoutPendulum": _swing,
    "Ledge": _walk,
}
"""Controllers of the package's own environments."""

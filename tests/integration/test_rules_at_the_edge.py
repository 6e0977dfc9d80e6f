"""Rules at their thresholds, what their notes call hidden, and the play they are checked with."""

import math

import numpy as np
import pytest
import torch
from lfiw_envs import NEVER, rules_for
from lfiw_envs.rules.lookup import KNOWN
from players import (
    BY_HAND,
    LINEAR,
    as_log,
    good_player,
    make,
    one_step,
    play,
    random_player,
    reward_error,
)

POSITIONS = {"exclude_current_positions_from_observation": False}
NEAR = np.array([-1e-5, 1e-5])


@pytest.mark.parametrize(
    ("env_id", "kwargs", "entry", "bounds"),
    [
        ("Ant-v5", {}, 2, (0.2, 1.0)),
        ("Ant-v4", {"healthy_z_range": (0.3, 0.6)}, 2, (0.3, 0.6)),
        ("Hopper-v5", {}, 1, (0.7,)),
        ("Hopper-v4", {}, 2, (-0.2, 0.2)),
        ("Hopper-v5", {}, 4, (-100.0, 100.0)),  # an angle; velocities are clipped at 10
        ("Hopper-v5", {"healthy_state_range": (-5.0, 8.0)}, -2, (-5.0, 8.0)),
        ("Humanoid-v4", {}, 2, (1.0, 2.0)),
        ("Humanoid-v5", {}, 2, (1.0, 2.0)),
        ("Walker2d-v4", {}, 1, (0.8, 2.0)),
        ("Walker2d-v5", {}, 2, (-1.0, 1.0)),
    ],
    ids=str,
)
def test_healthy_ranges_to_a_hundred_thousandth(env_id, kwargs, entry, bounds):
    """One entry of the simulator's state just inside and just outside each bound."""
    env = make(env_id, kwargs).unwrapped
    env.reset(seed=0)
    rule = rules_for(env_id, kwargs).termination
    start = env.state_vector()
    found = set()
    for value in np.add.outer(bounds, NEAR * np.abs(bounds).max()).ravel():
        state = start.copy()
        state[entry] = value
        env.set_state(state[: env.model.nq], state[env.model.nq :])
        seen = torch.from_numpy(env._get_obs()).float()[None]
        assert rule(seen, seen, seen).item() is not bool(env.is_healthy)
        found.add(bool(env.is_healthy))
    assert found == {True, False}


def _cart(rng):
    return rng.uniform(-1, 1, 4) * (2.6, 1.0, 0.25, 1.0)


def _hill(rng):
    return np.array([rng.uniform(0.4, 0.6), rng.uniform(-0.07, 0.07)])


@pytest.mark.parametrize(
    ("env_id", "kwargs", "draw"),
    [
        ("CartPole-v1", {"sutton_barto_reward": True}, _cart),
        ("Acrobot-v1", {}, lambda rng: rng.uniform(-1, 1, 4) * (math.pi, math.pi, 8.0, 20.0)),
        ("MountainCar-v0", {"goal_velocity": 0.01}, _hill),
        ("MountainCarContinuous-v0", {"goal_velocity": 0.01}, _hill),
        ("Pendulum-v1", {}, lambda rng: rng.uniform(-1, 1, 2) * (20.0, 8.0)),
        ("InvertedPendulum-v5", {}, lambda rng: rng.uniform(-0.3, 0.3, 4)),
        ("InvertedDoublePendulum-v5", {}, lambda rng: rng.uniform(-0.8, 0.8, 6)),
    ],
)
def test_rules_agree_from_any_state(env_id, kwargs, draw):
    """One step from each of 2000 random states, many near where episodes end."""
    env = make(env_id, kwargs).unwrapped
    rng, rows = np.random.default_rng(0), []
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(2000):
        state = _put(env, draw(rng))
        rows.append(one_step(env, state, env.action_space.sample()))
    log, rules = as_log(rows), rules_for(env_id, kwargs)
    ended = rules.termination(*log.tensors(torch.float32))
    np.testing.assert_array_equal(ended.numpy(), log.terminated)
    assert log.terminated.any() == (rules.termination != NEVER)
    assert not log.terminated.all()
    if rules.reward is not None:
        assert reward_error(rules, log).max() <= 1e-6


def _put(env, state):
    """The environment in this state, and what it observes there."""
    if hasattr(env, "set_state"):
        env.set_state(*np.split(state, 2))
        return env._get_obs()
    env.state, env.steps_beyond_terminated = state, None
    observe = getattr(env, "_get_obs", None) or getattr(env, "_get_ob", None)
    return observe() if observe else np.array(state, np.float32)


def test_what_the_notes_say_is_hidden():
    """Why no reward is given, and where a termination can err, in figures."""
    double = make("InvertedDoublePendulum-v5")
    act, gaps = good_player(double, "InvertedDoublePendulum-v5"), []

    def watched(state):
        x, sin1, sin2, cos1, cos2 = state[:5]
        tip = (
            x + 0.6 * (sin1 + sin1 * cos2 + cos1 * sin2),
            0.6 * (cos1 + cos1 * cos2 - sin1 * sin2),
        )
        gaps.append(np.abs(double.unwrapped.data.site_xpos[0][[0, 2]] - tip).max())
        return np.clip(act(state) + double.action_space.sample(), -1.0, 1.0).astype(np.float32)

    play(double, watched, steps=2000, seed=0)
    assert 1e-6 < max(gaps) < 2e-2
    ant = make("Ant-v5", POSITIONS)
    ant.reset(seed=0)
    ant.action_space.seed(0)
    gaps = []
    for _ in range(100):
        observed = ant.step(ant.action_space.sample())[0]
        gaps.append(np.abs(ant.unwrapped.data.body("torso").xpos[:2] - observed[:2]).max())
    assert 1e-4 < max(gaps) < 1e-2
    hopper = make("Hopper-v5").unwrapped
    hopper.reset(seed=0)
    spinning = np.where(np.arange(6) == 5, 101.0, 0.0)
    hopper.set_state(hopper.init_qpos, spinning)
    seen = torch.from_numpy(hopper._get_obs())[None]
    assert not hopper.is_healthy
    assert not rules_for("Hopper-v5").termination(seen, seen, seen).item()


@pytest.mark.parametrize("name", [*BY_HAND, *(path.stem for path in LINEAR.glob("*.json"))])
def test_good_play_is_good(name):
    """12 episodes earn more than 12 of random play, by 3 standard errors of the difference."""
    env_id = [known for known in KNOWN if known.startswith(f"{name}-v")][-1]
    env = make(env_id)
    good, random = (
        np.array([play(env, act, steps=1, seed=i, most=200).reward.sum() for i in range(12)])
        for act in (good_player(env, env_id), random_player(env))
    )
    error = np.hypot(good.std(ddof=1), random.std(ddof=1)) / math.sqrt(12)
    assert good.mean() > random.mean() + 3 * error

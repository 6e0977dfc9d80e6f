"""Agents of the RL Baselines3 Zoo, saved years ago by old versions with Gym-era spaces."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

import lfiw_ope as ope

CARTPOLE = ("a2c", "ars", "ppo", "trpo", "dqn")
"""Measured outside as 499.9 or 500, the most there is; DQN was not measured."""

PENDULUM = {"a2c": -167, "ars": -217, "ppo": -180, "sac": -160, "tqc": -156, "trpo": -181}
"""Mean of 50 episodes with deterministic actions, measured outside through the library itself,
each with a standard error of 12 to 20."""

AGENTS = [(name, "CartPole-v1") for name in CARTPOLE] + [(name, "Pendulum-v1") for name in PENDULUM]


def load(zoo, name, env, **how):
    statistics = zoo / f"{name}-{env}.vecnormalize.pkl"
    if statistics.exists():
        how["vec_normalize"] = statistics
    return ope.load_sb3(zoo / f"{name}-{env}.zip", **how)


def play(policy, env, episodes=50):
    vector = gym.vector.SyncVectorEnv([lambda: gym.make(env)] * 10)
    return ope.collect(vector, policy, episodes=episodes, seed=0)


@pytest.mark.parametrize(("name", "env"), AGENTS)
def test_agents_score_as_they_did(zoo, name, env):
    data = play(load(zoo, name, env, deterministic=True), env)
    returns = data.returns()
    if env == "CartPole-v1":
        assert returns.mean() > 499
        return
    # Within 4 standard errors of the difference; a policy that does nothing earns about -1200.
    error = math.hypot(returns.std(ddof=1) / math.sqrt(50), 12)
    assert error < 35
    assert abs(returns.mean() - PENDULUM[name]) < 4 * error


@pytest.mark.parametrize(("name", "env"), AGENTS)
def test_both_ways_of_reading_agree(zoo, name, env):
    """Without unpickling, and through the library's own `load`."""
    plain, trusted = (load(zoo, name, env, trust=trust) for trust in (False, True))
    state = torch.from_numpy(play(plain, env, 10).states[:500])
    action = plain.act(state, torch.Generator().manual_seed(1))
    assert torch.equal(action, trusted.act(state, torch.Generator().manual_seed(1)))
    if plain.has_density:
        assert torch.equal(plain.log_prob(state, action), trusted.log_prob(state, action))


@pytest.mark.parametrize("name", ["a2c", "ars"])
def test_statistics_are_those_that_the_library_s_own_class_would_hold(zoo, name):
    """ARS's were saved with Gym's spaces, which cannot be unpickled here; A2C's can."""
    path = zoo / f"{name}-Pendulum-v1.vecnormalize.pkl"
    found = ope.load_vec_normalize(path)
    assert found.state_size == 3
    if name == "ars":
        return
    import pickle

    saved = pickle.loads(path.read_bytes())
    raw = np.random.default_rng(0).normal(0, 3, (100, 3)).astype(np.float32)
    expected = saved.normalize_obs(raw)
    np.testing.assert_allclose(found(torch.from_numpy(raw)).numpy(), expected, atol=1e-6)

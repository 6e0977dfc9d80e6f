"""Diagnoses of real logs: CartPole and Pendulum, as they were played."""

import gymnasium as gym
import numpy as np
import pytest
from cartpole_log import LIMIT, recorded

import lfiw_ope as ope

NETS = ope.FitConfig(updates=400, evaluate_every=50, batch_size=128, learning_rate=3e-3)
CONFIG = ope.DiagnosisConfig(hidden=(32,), fit=NETS, rollouts=50)


def pendulum(torque, noise):
    """A pendulum's swing-up of sorts, as a policy of Pendulum-v1."""
    spec = ope.ActionSpec.continuous(np.full(1, -2.0), np.full(1, 2.0))

    def act(states, rng):
        return torque * states[:, 2:3] + noise * rng.normal(size=(len(states), 1))

    return ope.from_function(act, state_size=3, action_spec=spec, stochastic=True)


def test_pendulum():
    behaviour, other = pendulum(0.2, 0.3), pendulum(-1.0, 0.05)
    env = gym.make_vec("Pendulum-v1", 10, max_episode_steps=30, vectorization_mode="sync")
    data = ope.collect(env, behaviour, episodes=60, seed=0)
    estimand = ope.Estimand(30)
    config = ope.ModelBasedConfig(
        dynamics=ope.DynamicsConfig(members=3, hidden=(64,), fit=NETS), rollouts=50
    )
    model = ope.ModelBased(estimand, config).fit(data, seed=0)
    own, far = ope.diagnose(
        data,
        [behaviour, other],
        estimand,
        config=CONFIG,
        dynamics=model.dynamics,
        ratio=model.ratio,
        held_out=model.held_out,
        seed=0,
    )
    # 900 rows are looked at, of 30 episodes: see tests/statistical/test_diagnosis.py.
    assert own.actions_outside < 0.05
    assert own.action_accuracy == pytest.approx(0.5, abs=0.05)
    # A model of so few updates leaves the circle of (cos, sin) by itself; the other goes farther.
    assert own.states_outside < 0.6 * far.states_outside
    assert own.disagreement == pytest.approx(1.0, abs=0.6)
    assert own.open_loop.compared == 30
    assert "carries no likelihoods" in own.no_weights
    assert far.action_accuracy > 0.8
    assert far.actions_outside > 0.5
    assert any("outside what the log has" in text for text in far.warnings)


def test_cartpole_of_thirty_ragged_episodes():
    columns = {name: values for name, values in recorded().items() if name != "log_prob"}
    data = ope.from_arrays(columns)
    spec = data.action_spec

    def random_play(states, rng):
        pushes = rng.normal(size=(len(states), 1))
        return np.where(rng.random((len(states), 1)) < 1 / 3, 1.0, pushes)

    own = ope.from_function(random_play, state_size=4, action_spec=spec, stochastic=True)
    hard = ope.from_function(
        lambda states: np.full((len(states), 1), 9.0), state_size=4, action_spec=spec
    )
    of_own, of_hard = ope.diagnose(data, [own, hard], ope.Estimand(LIMIT), config=CONFIG, seed=0)
    # 30 episodes, each of which pushes in its own way: 120 rows are looked at.
    assert of_own.actions_outside < 0.1
    assert of_own.action_accuracy < 0.75
    assert of_hard.actions_outside == 1.0
    assert of_hard.action_accuracy > 0.9
    reasons = ope.Thresholds().reasons(
        ope.Estimate(estimator="FQE", estimand=ope.Estimand(LIMIT), value=0.0, seed=0), of_hard
    )
    assert len(reasons) == 1

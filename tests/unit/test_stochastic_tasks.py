"""Environments with random transitions: what is random, how often, and what is not."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from lfiw_envs import Ladder, Question, making
from lfiw_envs.array_env import ArrayVectorEnv
from lfiw_envs.ledge import EPISODE, Ledge, advance, gusts, start
from lfiw_envs.rules.lookup import STOCHASTIC

import lfiw_ope as ope
from lfiw_ope.benchmark import play_returns

IDS = ("Ledge", "DropoutPendulum", "DelayedPendulum", "PushedHopper", "PushedHalfCheetah")
TRIALS = 3000


def made(name, **kwargs):
    return making.make(f"{STOCHASTIC}{name}-v0", 1000, kwargs)


def assert_share(happened, probability):
    """Within 4 standard errors √(p (1 − p) / n) of a share of n independent events."""
    error = np.sqrt(probability * (1.0 - probability) / len(happened))
    assert abs(np.mean(happened) - probability) < 4.0 * error


def played(env, seed, steps=60):
    """Observations and rewards under actions that are the same for every seed."""
    rng = np.random.default_rng(0)
    rows = [(env.reset(seed=seed)[0], 0.0)]
    low, high = env.action_space.low, env.action_space.high
    for _ in range(steps):
        observation, reward, terminated, *_ = env.step(rng.uniform(low, high).astype(np.float32))
        rows.append((observation, reward))
        if terminated:
            break
    return np.array([np.append(*row) for row in rows])


def test_importing_the_package_registers_nothing():
    code = (
        "import lfiw_envs, sys; assert 'gymnasium' not in sys.modules\n"
        "import gymnasium; assert not any('Ledge' in name for name in gymnasium.registry)\n"
        f"gymnasium.make('{STOCHASTIC}Ledge-v0'); print('mujoco' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_accepts_the_environment(name):
    env = made(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it advises on spaces: MuJoCo's, Pendulum's
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("name", IDS)
def test_one_seed_gives_one_episode(name):
    kwargs = {"gust_probability": 0.5} if name == "Ledge" else {}
    first, second = made(name, **kwargs), made(name, **kwargs)
    again = played(first, 3)
    np.testing.assert_array_equal(again, played(second, 3))
    np.testing.assert_array_equal(again, played(second, 3))
    assert not np.array_equal(again, played(second, 4))


def executed_torque(before, after):
    """Of a step that hits no limit, from the change of the angular velocity."""
    (angle, speed), reached = before[0, :2], after[0, 1]
    assert abs(reached) < 8.0
    return ((reached - speed) / 0.05 - 15.0 * np.sin(angle)) / 3.0


def swings(env, command, steps=TRIALS):
    """(state, command, executed torque) of steps that hit no limit."""
    env.reset(seed=0)
    found = []
    for _ in range(steps):
        before, action = env.state, command()
        env.step(action)
        if abs(env.state[0, 1]) < 8.0:
            found.append((before, action, executed_torque(before, env.state)))
    return found


def test_a_quarter_of_the_torques_is_lost():
    env = made("DropoutPendulum").unwrapped
    lost = []
    for _, _, torque in swings(env, lambda: np.array([1.5], np.float32)):
        assert min(abs(torque), abs(torque - 1.5)) < 1e-9
        lost.append(abs(torque) < 1e-9)
    assert_share(lost, 0.25)


def test_half_of_the_torques_come_a_step_late():
    """And nothing else of the past matters: the last command is observed."""
    env, rng = made("DelayedPendulum").unwrapped, np.random.default_rng(0)
    assert env.reset(seed=0)[0][3] == 0.0
    late = []
    for before, action, torque in swings(env, lambda: rng.uniform(-3, 3, 1).astype(np.float32)):
        command, previous = np.clip(action[0], -2.0, 2.0), before[0, 2]
        assert env.physics.observe(before)[0, 3] == np.float32(previous)
        assert min(abs(torque - command), abs(torque - previous)) < 1e-9
        if command != previous:
            late.append(abs(torque - previous) < 1e-9)
    assert_share(late, 0.5)


def test_the_command_is_observed():
    env = made("DelayedPendulum")
    env.reset(seed=0)
    for command, seen in ((1.5, 1.5), (-3.0, -2.0)):
        assert env.step(np.array([command], np.float32))[0][3] == seen


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("DropoutPendulum", {"dropout_probability": 0.0}),
        ("DelayedPendulum", {"delay_probability": 0.0}),
    ],
)
def test_pendulums_that_never_fail_are_that_of_gymnasium(name, kwargs):
    plain = played(making.make("Pendulum-v1", 1000, {}), 5)
    found = played(made(name, **kwargs), 5)
    np.testing.assert_allclose(found[:, [0, 1, 2, -1]], plain, atol=1e-5)


@pytest.mark.parametrize("name", ["Hopper", "HalfCheetah"])
def test_pushes_come_in_four_steps_of_a_hundred(name):
    env = made(f"Pushed{name}").unwrapped
    env.reset(seed=0)
    pushed = []
    for _ in range(TRIALS):
        env.step(np.zeros(env.action_space.shape, np.float32))
        pushed.append(env.pushed)
    assert_share(pushed, 0.04)


@pytest.mark.parametrize("name", ["Hopper", "HalfCheetah"])
def test_without_pushes_it_is_the_task_of_gymnasium(name):
    plain = making.make(f"{name}-v5", 1000, {})
    np.testing.assert_array_equal(
        played(made(f"Pushed{name}", push_probability=0.0), 5), played(plain, 5)
    )


@pytest.mark.parametrize("name", ["Hopper", "HalfCheetah"])
def test_a_push_changes_the_velocities_of_the_root_alone(name):
    env = made(f"Pushed{name}", push_probability=1.0).unwrapped
    env.reset(seed=0)
    kicks = []
    for _ in range(TRIALS):
        before, place = env.data.qvel.copy(), env.data.qpos.copy()
        assert env.push()
        change = env.data.qvel - before
        np.testing.assert_array_equal(env.data.qpos, place)
        assert not change[3:].any()
        kicks.append(change[:3])
    # A mean of n normal numbers has the error σ / √n, their standard deviation about σ / √(2 n).
    sizes = np.array(env.push_sizes)
    assert (np.abs(np.mean(kicks, 0)) < 4.0 * sizes / np.sqrt(TRIALS)).all()
    assert (np.abs(np.std(kicks, 0) - sizes) < 4.0 * sizes / np.sqrt(2 * TRIALS)).all()


def test_gusts_blow_in_one_half_of_the_ledge():
    state = np.zeros((2 * TRIALS, 4), np.float32)
    state[:, 0] = np.repeat([-0.5, 0.5], TRIALS)
    found = gusts(np.random.default_rng(0), state, 0.15, 1.0)
    assert not found[:TRIALS].any()
    assert_share(found[TRIALS:].any(1), 0.15)
    kicks = found[found.any(1)]
    # The standard deviation of n normal numbers is off by about σ / √(2 n).
    assert abs(kicks.std() - 1.0) < 4.0 / np.sqrt(2 * kicks.size)


def test_nothing_is_random_in_the_calm_half():
    reached = set()
    for seed in range(20):
        env = Ledge(gust_probability=1.0)
        env.reset(seed=seed)
        env.state = np.array([[-0.01, 0.5, 0.3, -0.2]], np.float32)
        observation, *_ = env.step(np.array([0.7, -0.4], np.float32))
        reached.add(observation.tobytes())
    assert len(reached) == 1


def test_the_mass_falls_over_the_edge_and_stops_at_the_walls():
    calm = np.zeros((3, 2))
    state = np.array([[0, 0.05, 0, -1], [0.95, 0.5, 1, 0], [0, 0.95, 0, 1]], np.float32)
    step = advance(state, calm, calm)
    assert step.terminated.tolist() == [True, False, False]
    np.testing.assert_allclose(step.state[:, :2], [[0, -0.045], [1, 0.5], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(step.state[:, 2:], [[0, -0.95], [0, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(step.reward, [0.5 + 0.5225, 1.25, 0.5], atol=1e-6)


def test_many_masses_move_as_each_alone():
    rng = np.random.default_rng(0)
    state, action = rng.uniform(-1, 1, (50, 4)).astype(np.float32), rng.normal(size=(50, 2))
    gust = gusts(rng, state)
    together = advance(state, action, gust)
    for i in range(50):
        alone = advance(state[i : i + 1], action[i : i + 1], gust[i : i + 1])
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[i])


@pytest.mark.parametrize("name", ["Ledge", "DropoutPendulum", "DelayedPendulum"])
@pytest.mark.parametrize("seed", range(3))
def test_the_vector_environment_plays_what_the_single_one_plays(name, seed):
    env_id = f"{STOCHASTIC}{name}-v0"
    single, vector = making.make(env_id, EPISODE, {}), making.make_vector(env_id, EPISODE, {}, 1)
    assert isinstance(vector.unwrapped, ArrayVectorEnv)
    rng, space = np.random.default_rng(seed), single.action_space
    np.testing.assert_array_equal(single.reset(seed=seed)[0], vector.reset(seed=seed)[0][0])
    ended = False
    while not ended:
        action = rng.uniform(space.low, space.high).astype(np.float32)
        one, many = single.step(action)[:4], vector.step(action[None])[:4]
        for of_one, of_many in zip(one, many, strict=True):
            np.testing.assert_array_equal(of_one, of_many[0])
        ended = one[2] or one[3]


def test_ended_episodes_start_anew_in_the_next_step():
    """As copies in a SyncVectorEnv do."""
    vector = making.make_vector(f"{STOCHASTIC}Ledge-v0", 3, {}, 4)
    copies = gymnasium.vector.SyncVectorEnv([lambda: made("Ledge")])
    mode = vector.metadata["autoreset_mode"]
    assert mode == copies.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.NEXT_STEP
    vector.reset(seed=0)
    still = np.zeros((4, 2), np.float32)
    for step in range(1, 9):
        state, reward, terminated, truncated, _ = vector.step(still)
        assert not terminated.any()
        assert truncated.all() == (step % 4 == 3)
        assert (reward == 0.0).all() == (step % 4 == 0)
        if step % 4 == 0:
            assert (state[:, 0] <= -0.5).all()
            assert not state[:, 2:].any()


class Walker:
    """Walks along the ledge half way between edge and wall, with noise."""

    state_size, action_size, action_kind = 4, 2, "continuous"

    def act(self, state, generator):
        x, y, along, across = state.unbind(-1)
        push = torch.stack([6 * (0.9 - x) - 3 * along, 6 * (0.5 - y) - 3 * across], -1)
        noise = torch.randn(push.shape, generator=generator)
        return (push + 0.5 * noise).clamp(-1.0, 1.0)


@pytest.fixture
def ledge(tmp_path):
    return Ladder(
        name="ledge",
        env_id=f"{STOCHASTIC}Ledge-v0",
        targets=(),
        recipes={},
        folder=Path(tmp_path),
        episode=EPISODE,
        questions={"T40": Question(40, 1.0), "T10": Question(10, 0.9)},
    )


def test_values_by_many_masses_are_those_by_single_ones(ledge):
    """Means of independent returns, within 4 standard errors of their difference."""
    many = play_returns(ledge, Walker(), episodes=3001, seed=0)
    copies = gymnasium.vector.SyncVectorEnv([ledge.make] * 20)
    log = ope.collect(copies, Walker(), episodes=400, seed=1)
    for name, (horizon, discount) in ledge.questions.items():
        single = log.returns(horizon, discount)
        assert len(many[name]) == 3001
        error = np.hypot(single.std() / 20, many[name].std() / np.sqrt(3001))
        assert 0 < abs(many[name].mean() - single.mean()) < 4.0 * error


def test_a_log_of_many_masses_has_whole_episodes(ledge):
    log = ope.collect(ledge.make_vector(10), Walker(), episodes=50, seed=0)
    assert log.num_episodes == 50
    assert log.lengths.max() == EPISODE
    first = log.initial_states
    assert (first[:, 0] <= -0.5).all()
    assert not first[:, 2:].any()
    again = ope.collect(ledge.make_vector(10), Walker(), episodes=50, seed=0)
    np.testing.assert_array_equal(again.states, log.states)


def test_first_states_are_at_rest_in_the_calm_half():
    state = start(np.random.default_rng(0), 1000)
    assert state.dtype == np.float32
    assert (state[:, 0] < 0).all()
    assert not state[:, 2:].any()

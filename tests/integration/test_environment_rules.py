"""Rules against the real simulators, at every step of random and of good play."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lfiw_envs import NEVER, rules_for
from lfiw_envs.rules.lookup import KNOWN, STOCHASTIC
from lfiw_envs.rules.rewards import ForwardReward
from players import good_player, make, play, random_player, reward_error, weak_player

POSITIONS = {"exclude_current_positions_from_observation": False}
GOES_ON = {"terminate_when_unhealthy": False}
PLAYED = [env_id for env_id in KNOWN if not env_id.endswith(("-v2", "-v3"))]
VARIANTS = [
    ("Ant-v4", {"use_contact_forces": True, "healthy_z_range": (0.4, 0.9)}),
    ("Ant-v4", {**GOES_ON, **POSITIONS}),
    ("Ant-v5", {"healthy_z_range": (0.4, 0.9), **POSITIONS}),
    ("Ant-v5", {"include_cfrc_ext_in_observation": False, "main_body": 2, "frame_skip": 3}),
    ("CartPole-v1", {"sutton_barto_reward": True}),
    ("HalfCheetah-v4", {**POSITIONS, "forward_reward_weight": 2.0}),
    ("HalfCheetah-v5", {**POSITIONS, "ctrl_cost_weight": 0.3, "frame_skip": 3}),
    ("Hopper-v4", POSITIONS),
    ("Hopper-v4", {**POSITIONS, **GOES_ON, "healthy_reward": 2.0}),
    ("Hopper-v5", {**POSITIONS, "frame_skip": 5, "ctrl_cost_weight": 0.1}),
    ("Hopper-v5", {**POSITIONS, **GOES_ON, "healthy_reward": 2.0, "forward_reward_weight": 0.5}),
    ("Hopper-v5", {"healthy_z_range": (1.0, 1.3), "healthy_angle_range": (-0.1, math.inf)}),
    ("Hopper-v5", {"healthy_state_range": (-9.0, 5.0), "healthy_angle_range": (-1.0, 1.0)}),
    ("Hopper-v5", GOES_ON),
    ("Humanoid-v4", {**POSITIONS, "healthy_z_range": (1.2, 1.9)}),
    ("Humanoid-v5", {"include_cinert_in_observation": False, "contact_cost_weight": 0.0}),
    ("Humanoid-v5", {**POSITIONS, "include_cvel_in_observation": False, "reset_noise_scale": 0.1}),
    ("Humanoid-v5", {"include_qfrc_actuator_in_observation": False, **GOES_ON}),
    ("HumanoidStandup-v5", {**POSITIONS, "include_cinert_in_observation": False, "frame_skip": 3}),
    ("HumanoidStandup-v5", {"impact_cost_weight": 1e-3, "impact_cost_range": (0.5, 20.0)}),
    ("HumanoidStandup-v5", {"include_cfrc_ext_in_observation": False, "impact_cost_weight": 0.0}),
    ("HumanoidStandup-v5", {"include_cfrc_ext_in_observation": False, "ctrl_cost_weight": 1.0}),
    ("InvertedDoublePendulum-v5", {"healthy_reward": 1.0, "frame_skip": 2}),
    ("InvertedPendulum-v5", {"frame_skip": 1}),
    ("MountainCar-v0", {"goal_velocity": 0.04}),
    ("MountainCarContinuous-v0", {"goal_velocity": 0.05}),
    ("Pendulum-v1", {"g": 5.0}),
    ("Pusher-v5", {"reward_near_weight": 2.0, "reward_dist_weight": 0.3}),
    ("Pusher-v5", {"reward_control_weight": 1.0}),
    ("Reacher-v5", {"reward_dist_weight": 3.0, "reward_control_weight": 0.2}),
    ("Swimmer-v4", {**POSITIONS, "ctrl_cost_weight": 0.1}),
    ("Swimmer-v5", {**POSITIONS, "forward_reward_weight": 3.0, "frame_skip": 2}),
    (f"{STOCHASTIC}Ledge-v0", {"gust_probability": 0.5, "gust_size": 2.0}),
    (f"{STOCHASTIC}PushedHalfCheetah-v0", {**POSITIONS, "push_probability": 0.5}),
    (f"{STOCHASTIC}PushedHopper-v0", {**POSITIONS, "push_probability": 0.5}),
    ("Walker2d-v4", POSITIONS),
    ("Walker2d-v4", {**POSITIONS, **GOES_ON}),
    ("Walker2d-v5", {**POSITIONS, "frame_skip": 2, "healthy_reward": 3.0}),
    ("Walker2d-v5", {**POSITIONS, **GOES_ON, "ctrl_cost_weight": 0.1}),
    ("Walker2d-v5", {"healthy_z_range": (1.1, 1.3), "healthy_angle_range": (-0.2, 0.3)}),
]
CASES = [(env_id, {}) for env_id in PLAYED] + VARIANTS
STEPS = 250
"""By each player, in each case."""


@pytest.fixture
def played(monkeypatch):
    # Pusher-v4 refuses MuJoCo 3 for its physics; its observation and reward are as they were.
    monkeypatch.setattr("mujoco.__version__", "2.3.7")

    def logs(env_id, kwargs, steps=STEPS):
        env = make(env_id, kwargs)
        players = random_player(env), weak_player(env), good_player(env, env_id, kwargs)
        found = [
            play(env, player, steps=steps, seed=i, most=400)
            for i, player in enumerate(players)
            if player is not None
        ]
        env.close()
        return type(found[0])(*(np.concatenate(column) for column in zip(*found, strict=True)))

    return logs


@pytest.mark.parametrize(("env_id", "kwargs"), CASES, ids=str)
def test_rules_agree_with_the_simulator(played, env_id, kwargs):
    log = played(env_id, kwargs)
    rules = rules_for(env_id, kwargs, state_size=log.state.shape[1])
    for dtype in (torch.float64, torch.float32):
        ended = rules.termination(*log.tensors(dtype))
        assert ended.dtype == torch.bool
        np.testing.assert_array_equal(ended.numpy(), log.terminated)
    assert log.terminated.any() == (rules.termination != NEVER)
    assert not log.terminated.all()
    if rules.reward is None:
        assert rules.reward_note
        return
    assert reward_error(rules, log).max() <= 1e-6
    # In float32 a position x is off by 6e-8 |x|, twice in a difference that is divided by Δt;
    # the rest of a reward is off by a few roundings.
    bound = 1e-6
    if isinstance(rules.reward, ForwardReward):
        rounding = 2 * 2.0**-24 * np.abs(log.next_state[:, 0]).max()
        bound += rounding * rules.reward.forward_weight / rules.reward.time
    assert reward_error(rules, log, torch.float32).max() <= bound


FIELDS = [
    ("CartPole-v1", {}, "value"),
    ("CartPole-v1", {"sutton_barto_reward": True}, "ending"),
    ("Acrobot-v1", {}, "going"),
    ("InvertedPendulum-v5", {}, "ending"),
    *(("Hopper-v5", POSITIONS, name) for name in ("time", "forward_weight", "healthy_reward")),
    ("HalfCheetah-v5", POSITIONS, "control_weight"),
    *(("HumanoidStandup-v5", {}, name) for name in ("control_weight", "impact_weight")),
    (f"{STOCHASTIC}Ledge-v0", {}, "control_weight"),
    *(("Reacher-v5", {}, name) for name in ("distance_weight", "control_weight")),
    *(("Pusher-v5", {}, name) for name in ("goal_weight", "near_weight", "control_weight")),
]


@pytest.mark.parametrize(("env_id", "kwargs", "name"), FIELDS, ids=str)
def test_the_check_sees_a_reward_one_per_cent_off(played, env_id, kwargs, name):
    log, rules = played(env_id, kwargs, 200), rules_for(env_id, kwargs)
    value = getattr(rules.reward, name)
    wrong = replace(rules, reward=replace(rules.reward, **{name: 1.01 * value or 0.01}))
    assert reward_error(rules, log).max() <= 1e-6 < reward_error(wrong, log).max()


@pytest.mark.parametrize(
    ("env_id", "kwargs", "other"),
    [
        ("InvertedPendulum-v4", {}, "InvertedPendulum-v5"),
        ("Hopper-v4", POSITIONS, "Hopper-v5"),
        ("Walker2d-v5", POSITIONS, "Walker2d-v4"),
        ("Pusher-v5", {}, "Pusher-v4"),
        ("Reacher-v4", {}, "Reacher-v5"),
    ],
)
def test_the_check_tells_versions_apart(played, env_id, kwargs, other):
    log = played(env_id, kwargs, 200)
    assert reward_error(rules_for(env_id, kwargs), log).max() <= 1e-6
    assert reward_error(rules_for(other, kwargs), log).max() > 1e-6


@pytest.mark.parametrize(
    ("env_id", "kwargs", "wrong"),
    [
        ("Ant-v5", {}, {"healthy_z_range": (0.3, 1.0)}),
        ("Hopper-v5", {"healthy_angle_range": (-1.0, 1.0)}, {"healthy_z_range": (0.8, math.inf)}),
        ("Hopper-v5", {}, {"healthy_angle_range": (-0.25, 0.25)}),
        ("Hopper-v5", {}, {"healthy_state_range": (-9.0, 9.0)}),
        ("Humanoid-v5", {}, {"healthy_z_range": (1.1, 2.0)}),
        ("MountainCar-v0", {}, {"goal_velocity": 0.04}),
        ("Walker2d-v5", {}, {"healthy_z_range": (0.9, 2.0)}),
        ("Walker2d-v5", {}, {"healthy_angle_range": (-0.8, 1.0)}),
    ],
    ids=str,
)
def test_the_check_sees_another_threshold(played, env_id, kwargs, wrong):
    log = played(env_id, kwargs)
    ended = rules_for(env_id, {**kwargs, **wrong}).termination(*log.tensors(torch.float32))
    assert (ended.numpy() != log.terminated).any()

"""Rules by id: what is looked up, what is refused, and what a rule is."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from lfiw_envs import (
    NEVER,
    TASKS,
    EnvironmentRules,
    UnknownEnvironmentError,
    known_rules,
    rules_for,
)

import lfiw_ope as ope

NO_X = {"exclude_current_positions_from_observation": False}
RULES = [*known_rules(), rules_for("Hopper-v5", NO_X), rules_for("CartPole-v1", {})]


def test_an_unknown_id_is_told_what_is_known():
    said = r"'Hopper-v9'; known are Acrobot-v1, Ant-v2/3/4/5, .* be learned, or give them as"
    with pytest.raises(UnknownEnvironmentError, match=said):
        rules_for("Hopper-v9")


@pytest.mark.parametrize(
    ("env_id", "kwargs", "said"),
    [
        ("Hopper-v5", {"xml_file": "mine.xml"}, "made with xml_file, .*the rules heed frame_skip"),
        ("Acrobot-v1", {"torque": 2}, r"made with torque, .* \(they heed none\)"),
        ("Ant-v5", {"healthy_angle_range": (0, 1)}, "made with healthy_angle_range"),
        ("Hopper-v5", {"healthy_z_range": 0.7}, "is 0.7; it must be a low and a high number"),
        ("Hopper-v5", {"healthy_z_range": (2.0, 1.0)}, "it must be a low and a high number"),
        ("Hopper-v5", {"terminate_when_unhealthy": 1}, "is 1; it must be True or False"),
        ("Hopper-v5", {"ctrl_cost_weight": "1"}, "is '1'; it must be a number"),
        ("Hopper-v5", {"frame_skip": 0}, "is 0; it must be a whole number, 1 or more"),
        ("MountainCar-v0", {"goal_velocity": float("nan")}, "is nan; it must be a number"),
    ],
)
def test_an_argument_that_is_not_understood_is_refused(env_id, kwargs, said):
    with pytest.raises(ValueError, match=said):
        rules_for(env_id, kwargs)


def test_arguments_beside_the_rules_change_nothing():
    beside = {"render_mode": "rgb_array", "width": 64, "camera_id": 0, "max_episode_steps": 10}
    assert rules_for("Hopper-v5", {**beside, "reset_noise_scale": 0.1}) == rules_for("Hopper-v5")
    assert rules_for("Ant-v5", {"contact_cost_weight": 1.0}) == rules_for("Ant-v5")
    assert rules_for("Pendulum-v1", {"g": 5.0}) == rules_for("Pendulum-v1")


def test_arguments_from_json_are_those_from_python():
    read = rules_for("Hopper-v5", {"healthy_z_range": [1, 2], "ctrl_cost_weight": np.float32(0.5)})
    assert read == rules_for("Hopper-v5", {"healthy_z_range": (1.0, 2.0), "ctrl_cost_weight": 0.5})


def test_states_of_another_size_are_refused():
    assert rules_for("Hopper-v5", state_size=11).state_size == 11
    with pytest.raises(ValueError, match=r"have 12 entries, and Hopper-v5 made so observes 11"):
        rules_for("Hopper-v5", state_size=12)
    assert rules_for("Hopper-v5", NO_X, state_size=12).reward is not None


def test_notes_say_what_is_missing_and_no_more():
    for rules in known_rules():
        read = rules.env_id[-2:] in ("v2", "v3")
        assert ("mujoco-py" in rules.termination_note) == read
        assert ("mujoco-py" in rules.reward_note) == (read and rules.reward is not None)
        assert bool(rules.reward_note) == (read or rules.reward is None)
    assert "clips velocities" in rules_for("Hopper-v5").termination_note
    seen = {"healthy_state_range": (-10.0, 10.0)}
    assert not rules_for("Hopper-v5", seen).termination_note
    hidden = {"include_cfrc_ext_in_observation": False}
    assert "hides" in rules_for("HumanoidStandup-v5", hidden).reward_note
    assert rules_for("HumanoidStandup-v5", {"uph_cost_weight": 2.0}).reward is None
    said = str(rules_for("Walker2d-v4"))
    assert said.startswith("Walker2d-v4: termination: a rule; reward: not known (the observation ")
    assert str(rules_for("Pendulum-v1")) == "Pendulum-v1: termination: never; reward: exact"


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.env_id)
def test_a_rule_takes_any_leading_axes_and_keeps_the_dtype(rules):
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        state, reached = torch.randn(2, 3, 4, rules.state_size, dtype=dtype, generator=generator)
        action = torch.randn(3, 4, 7, dtype=dtype, generator=generator)
        ended = rules.termination(state, action, reached)
        assert (ended.dtype, ended.shape) == (torch.bool, (3, 4))
        rows = (state[1, 2:3], action[1, 2:3], reached[1, 2:3])
        assert torch.equal(rules.termination(*rows), ended[1, 2:3])
        if rules.reward is not None:
            earned = rules.reward(state, action, reached)
            assert (earned.dtype, earned.shape) == (dtype, (3, 4))
            torch.testing.assert_close(rules.reward(*rows), earned[1, 2:3])


@pytest.mark.gpu
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.env_id)
def test_a_rule_runs_on_the_device_and_does_not_wait_for_it(rules):
    state, reached = torch.randn(
        2, 50, rules.state_size, generator=torch.Generator().manual_seed(0)
    )
    action = torch.rand(50, 7)
    there = [row.cuda() for row in (state, action, reached)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        ended = rules.termination(*there)
        earned = None if rules.reward is None else rules.reward(*there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(ended.cpu(), rules.termination(state, action, reached))
    if earned is not None:
        torch.testing.assert_close(earned.cpu(), rules.reward(state, action, reached))


def test_states_that_are_not_numbers_end_an_episode_where_the_environment_says_so():
    state = torch.full((1, 27), 0.5)
    broken = state.clone()
    broken[0, 20] = float("nan")
    unhealthy = rules_for("Ant-v4").termination
    assert not unhealthy(state, state, state).item()
    assert unhealthy(state, state, broken).item()


def test_rules_travel_and_compare():
    rules = rules_for("Hopper-v5", NO_X)
    assert pickle.loads(pickle.dumps(rules)) == rules != rules_for("Hopper-v5")


def test_rules_are_looked_up_without_gymnasium():
    code = "import sys, lfiw_envs as e; e.known_rules(); print('gymnasium' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_tasks_know_their_rules():
    for task in TASKS.values():
        assert task.rules() == rules_for(task.env_id)
        assert task.rules().termination == NEVER


class AlwaysUp:
    state_size, action_size = 1, 1

    def act(self, state, _):
        return torch.ones(*state.shape[:-1], 1)


def test_an_own_task_is_a_record():
    """A counter that pays its level and ends at 3; its log shows neither a reward nor an end."""
    own = EnvironmentRules(
        env_id="Counter-v0",
        termination=lambda _, __, reached: reached[..., 0] >= 2.5,
        reward=lambda _, __, reached: reached[..., 0],
    )
    steps = np.random.default_rng(0).choice([0.0, 1.0], (30, 5))
    data = ope.Trajectories(
        states=np.concatenate([np.zeros((30, 1)), steps.cumsum(1)], 1).reshape(-1, 1),
        actions=steps.reshape(-1, 1),
        rewards=np.zeros(150),
        lengths=np.full(30, 5),
        terminated=np.zeros(30, bool),
        truncated=np.ones(30, bool),
        action_spec=ope.ActionSpec.continuous([0.0], [1.0]),
    )
    quick = ope.DynamicsConfig(members=2, hidden=(32,), fit=ope.FitConfig(updates=300))
    model = ope.ModelBased(
        ope.Estimand(horizon=10),
        ope.ModelBasedConfig(dynamics=quick, rollouts=50),
        reward=own.reward,
        termination=own.termination,
    )
    value = model.fit(data, seed=0).estimate(AlwaysUp()).value
    assert abs(value - (1.0 + 2.0 + 3.0)) < 0.3
    assert str(own) == "Counter-v0: termination: a rule; reward: exact"

"""Known rules held against logs of the environment, and of one that only carries its name."""

import gymnasium as gym
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TransformReward
from lfiw_envs import rules_for

import lfiw_ope as ope
from lfiw_ope.cli.inputs import find_rules

CARTPOLE = rules_for("CartPole-v1")


def log(wrapper=lambda env: env, env_id="CartPole-v1"):
    spec = ope.ActionSpec.discrete(2)
    env = SyncVectorEnv([lambda: wrapper(gym.make(env_id))] * 4)
    return ope.collect(env, ope.UniformPolicy(4, spec), episodes=40, seed=0)


@pytest.fixture(scope="module")
def bare():
    return log()


@pytest.fixture(scope="module")
def wrapped():
    """Another reward, and CartPole's name."""
    return log(lambda env: TransformReward(env, lambda reward: 3 * reward))


def test_rules_agree_with_their_own_environment(bare):
    found = ope.compare_rules(bare, reward=CARTPOLE.reward, termination=CARTPOLE.termination)
    assert found.transitions == bare.num_transitions
    assert (found.terminations, found.rewards, found.worst) == (0.0, 0.0, 0.0)
    assert "they agree" in str(found)


def test_a_rule_that_never_ends_disagrees_where_episodes_end(bare):
    def never(state, action, next_state):  # noqa: ARG001
        return torch.zeros(state.shape[:-1], dtype=torch.bool)

    found = ope.compare_rules(bare, termination=never)
    assert found.terminations == pytest.approx(bare.num_episodes / bare.num_transitions)
    assert not found.termination_agrees
    assert found.rewards is None
    assert "the termination rule in" in str(found)


def test_what_a_wrapper_changed_is_learned_and_said(wrapped):
    rules = find_rules(None, wrapped)
    assert rules.reward is None
    assert rules.termination == CARTPOLE.termination
    assert "the reward in 100.00%, by up to 2," in rules.said
    with pytest.raises(ope.ConfigError, match=r"are not those of CartPole-v1: the reward in 100"):
        find_rules("CartPole-v1", wrapped)


def test_nan_is_no_agreement(bare):
    def nan(state, action, next_state):  # noqa: ARG001
        return torch.full(state.shape[:-1], torch.nan)

    assert ope.compare_rules(bare, reward=nan).rewards == 1.0


def test_a_record_of_ones_own_may_differ_and_it_is_said(bare, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_task_of_mine.py").write_text(
        "from lfiw_envs import EnvironmentRules\n"
        "TASK = EnvironmentRules(env_id='Mine-v0', reward=lambda s, a, t: t[..., 0] * 0 + 7)\n"
    )
    rules = find_rules("a_task_of_mine:TASK", bare)
    assert rules.reward is not None
    assert "the reward in 100.00%, by up to 6," in rules.said
    assert rules.termination is None

"""Rollout buffers that real PPO runs filled, against what the environments saw."""

import numpy as np
import pytest
import torch
from sb3_play import Leaky, Parts, assert_episode, played, started
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

import lfiw_ope as ope


def ppo(env, steps, n_steps=32, **kwargs):
    model = PPO(
        kwargs.pop("policy", "MlpPolicy"), env, n_steps=n_steps, batch_size=16, n_epochs=1,
        policy_kwargs={"net_arch": [8], **kwargs.pop("policy_kwargs", {})}, seed=0, device="cpu",
        **kwargs,
    )  # fmt: skip
    return model.learn(steps * env.num_envs)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("wrappers", [(), (Parts,)])
def test_ppo_s_buffer_of_a_discrete_policy(trained, wrappers):
    """Training flattens most of a rollout buffer's columns, and leaves the rest as they are."""
    env, seen = played("CartPole-v1", *wrappers)
    model = ppo(env, 32, policy="MultiInputPolicy" if wrappers else "MlpPolicy")
    buffer = model.rollout_buffer
    if not trained:
        _, callback = model._setup_learn(1)  # resets the environments
        for episodes in seen:
            del episodes[:-1]
        model.collect_rollouts(model.env, callback, buffer, 32)
    assert buffer.generator_ready == trained
    with pytest.raises(ope.DataError, match="does not say whether its"):
        ope.from_sb3_buffer(model)
    with pytest.warns(ope.DataWarning, match="the last transition of each"):
        data = ope.from_sb3_buffer(model, drop_terminal=True)
    kept = [one for one in started(seen) if len(one["rewards"]) > 1]
    assert data.num_episodes == len(kept)
    for i, one in enumerate(kept):
        assert_episode(data, i, one, last=len(one["rewards"]) - 1)
    assert data.truncated.all()
    assert data.env_id == "CartPole-v1"
    if not trained and not wrappers:  # the model still has the weights that acted
        rows = data.transitions()
        expected = ope.from_sb3(model).log_prob(torch.tensor(rows.state), torch.tensor(rows.action))
        np.testing.assert_allclose(data.log_prob, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_ppo_s_buffer_of_a_gaussian_policy_keeps_draws_and_clips_actions():
    env, seen = played("Pendulum-v1", Leaky)
    model = ppo(env, 64, n_steps=32)  # the second rollout begins within an episode
    with pytest.warns(ope.DataWarning) as said:
        data = ope.from_sb3_buffer(model, drop_terminal=True)
    assert "2 episodes, with 8 transitions" in str(said[0].message)  # 32 = 2 · 12 + 8, then 4 more
    assert data.num_episodes == 6
    kept = [one for env in seen for one in env[3:6]]
    for i, one in enumerate(kept):
        assert_episode(data, i, one, last=len(one["rewards"]) - 1)
    np.testing.assert_array_equal(data.actions, np.clip(data.proposed_actions, -0.5, 1.5))
    assert (np.abs(data.proposed_actions - data.actions) > 0).any()
    with pytest.warns(ope.DataWarning):
        partial = ope.from_sb3_buffer(model, drop_terminal=True, keep_partial=True)
    assert partial.num_episodes == 8


def test_rollouts_that_are_in_no_environment_s_units_are_refused():
    env, _ = played("Pendulum-v1")
    with pytest.raises(ope.DataError, match="under VecNormalize"):
        ope.from_sb3_buffer(ppo(VecNormalize(env), 32), drop_terminal=True)
    env, _ = played("Pendulum-v1")
    squashed = ppo(env, 32, use_sde=True, policy_kwargs={"squash_output": True})
    with pytest.raises(ope.DataError, match="squashes its output"):
        ope.from_sb3_buffer(squashed, drop_terminal=True)

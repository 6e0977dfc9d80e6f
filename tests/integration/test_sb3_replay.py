"""Replay buffers that real SAC and DQN runs filled, against what the environments saw."""

import itertools
import warnings

import numpy as np
import pytest
from gymnasium import spaces
from sb3_play import (
    LIMIT,
    Leaky,
    Parts,
    Seen,
    assert_all,
    assert_episode,
    off_policy,
    played,
    started,
)
from stable_baselines3 import DQN, SAC, HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import lfiw_ope as ope


@pytest.mark.parametrize("envs", [1, 2])
def test_sac_s_buffer_gives_the_environments_own_actions(envs):
    env, seen = played("Pendulum-v1", Leaky, envs=envs)
    model = off_policy(SAC, env, 5 * LIMIT + 4)
    assert np.abs(model.replay_buffer.actions).max() <= 1
    data = ope.from_sb3_buffer(model.replay_buffer)
    assert_all(data, started(seen))
    assert data.num_episodes == 6 * envs
    assert data.action_spec == ope.ActionSpec.continuous([-0.5], [1.5])
    assert data.actions.max() > 1.2
    assert data.lengths.tolist() == ([LIMIT] * 5 + [4]) * envs
    # From the model, the environment is known as well.
    named = ope.from_sb3_buffer(model, episodes=2)
    assert (named.env_id, named.num_episodes) == ("Pendulum-v1", 2)
    np.testing.assert_array_equal(named.states, data.select([0, 1]).states)


def test_dqn_s_buffer_tells_a_fall_from_the_time_limit():
    env, seen = played("CartPole-v1")
    data = ope.from_sb3_buffer(off_policy(DQN, env, 100).replay_buffer)
    assert_all(data, started(seen))
    assert data.terminated.any()
    assert (data.lengths[data.truncated] == LIMIT).any()


@pytest.mark.parametrize("keep_partial", [False, True])
def test_a_ring_that_wrapped_around_gives_what_is_left_in_time_order(keep_partial):
    env, seen = played("CartPole-v1")
    model = off_policy(DQN, env, 132, buffer=100)  # 50 rows of each environment
    buffer = model.replay_buffer
    assert buffer.full
    assert 0 < buffer.pos < 50
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = ope.from_sb3_buffer(buffer, keep_partial=keep_partial)
    assert ["2 episodes, with" in str(one.message) for one in said] == [True] * (not keep_partial)
    kept = []
    for episodes in seen:
        steps, own = 0, []
        for episode in reversed(started([episodes])):
            room = 50 - steps
            first = max(0, len(episode["rewards"]) - room)
            own.insert(0, (episode, first))
            steps += len(episode["rewards"])
            if steps >= 50:
                break
        kept += own if keep_partial else own[1:]
    assert data.num_episodes == len(kept)
    for i, (episode, first) in enumerate(kept):
        assert_episode(data, i, episode, first=first)
        assert data.terminated[i] == episode["terminated"]
    assert data.num_transitions == 100 or not keep_partial


def test_without_timeout_handling_every_end_is_terminal_unless_the_limit_is_said():
    env, seen = played("CartPole-v1")
    model = off_policy(DQN, env, 100, replay_buffer_kwargs={"handle_timeout_termination": False})
    episodes = started(seen)
    with pytest.warns(ope.DataWarning, match="handle_timeout_termination=False, so all its"):
        blind = ope.from_sb3_buffer(model.replay_buffer)
    ended = [one["terminated"] or one["truncated"] for one in episodes]
    assert blind.terminated.tolist() == ended
    told = ope.from_sb3_buffer(model.replay_buffer, max_episode_steps=LIMIT)
    assert any(one["truncated"] and not one["terminated"] for one in episodes)
    for data in (told, ope.from_sb3_buffer(model)):  # the model's environment says its limit
        for i, one in enumerate(episodes):
            assert_episode(data, i, one)
            # Falling in the very last step looks like the limit, where only the limit is known.
            fell = one["terminated"] and len(one["rewards"]) < LIMIT
            assert data.terminated[i] == fell
            assert data.truncated[i] == (not fell)


def test_without_its_beginning_the_length_of_an_episode_says_nothing_of_its_end():
    env, _ = played("CartPole-v1")
    kwargs = {"handle_timeout_termination": False}
    model = off_policy(DQN, env, 132, buffer=100, replay_buffer_kwargs=kwargs)
    with pytest.raises(ope.DataError, match="the end of 2 episodes without their beginning"):
        ope.from_sb3_buffer(model, keep_partial=True)
    with pytest.warns(ope.DataWarning, match="2 episodes, with"):
        assert ope.from_sb3_buffer(model).num_episodes > 2


@pytest.mark.filterwarnings("ignore:.*(their beginning is not in it|the last transition of each)")
@pytest.mark.parametrize("steps", [40, 76])
def test_the_memory_efficient_buffer_lost_each_episode_s_last_state(steps):
    env, seen = played("CartPole-v1")
    kwargs = {"handle_timeout_termination": False}
    model = off_policy(
        DQN, env, steps, buffer=100, optimize_memory_usage=True, replay_buffer_kwargs=kwargs
    )
    assert model.replay_buffer.full == (steps == 76)
    with pytest.raises(ope.DataError, match="drop_terminal=True"):
        ope.from_sb3_buffer(model.replay_buffer, max_episode_steps=LIMIT)
    with pytest.warns(ope.DataWarning, match="the last transition of each"):
        data = ope.from_sb3_buffer(model.replay_buffer, max_episode_steps=LIMIT, drop_terminal=True)
    whole = started(seen)
    by_start = {one["states"][0].tobytes(): one for one in whole}
    assert data.num_episodes >= 4
    for i in range(data.num_episodes):
        one = by_start[data.initial_states[i].tobytes()]
        length = len(one["rewards"])
        assert_episode(data, i, one, last=length - 1)
    assert data.truncated.all()
    assert not data.terminated.any()
    partial = ope.from_sb3_buffer(
        model.replay_buffer, max_episode_steps=LIMIT, drop_terminal=True, keep_partial=True
    )
    # Every row is two consecutive states of one episode: none holds the one that was overwritten.
    pairs = {
        (before.tobytes(), after.tobytes())
        for one in whole
        for before, after in itertools.pairwise(one["states"])
    }
    rows = partial.transitions()
    kept = [(s.tobytes(), n.tobytes()) for s, n in zip(rows.state, rows.next_state, strict=True)]
    assert set(kept) <= pairs
    assert (partial.num_transitions > data.num_transitions) == model.replay_buffer.full


def test_a_second_call_of_learn_cuts_an_episode_without_a_word():
    env, seen = played("Pendulum-v1", envs=1)
    model = off_policy(SAC, env, 20)
    model.learn(20)
    data = ope.from_sb3_buffer(model.replay_buffer)
    assert_all(data, started(seen))
    assert data.lengths.tolist() == [12, 8, 12, 8]
    assert data.truncated.all()


def test_what_vecnormalize_hides_is_stored_as_the_environment_said_it():
    env, seen = played("Pendulum-v1")
    model = off_policy(SAC, VecNormalize(env), 3 * LIMIT)
    data = ope.from_sb3_buffer(model)
    for i, one in enumerate(started(seen)):
        rows = slice(data.offsets[i], data.offsets[i + 1])
        np.testing.assert_allclose(data.rewards[rows], np.float32(one["rewards"]), rtol=1e-6)
        states = data.states[data.state_offsets[i] : data.state_offsets[i + 1]]
        np.testing.assert_array_equal(states[:-1], np.stack(one["states"])[:-1])
        # The last one went through the normaliser and back, in stable-baselines3.
        np.testing.assert_allclose(states[-1], one["states"][-1], atol=1e-4)


def test_dict_observations_are_flattened_as_gymnasium_does():
    env, seen = played("CartPole-v1", Parts)
    data = ope.from_sb3_buffer(off_policy(DQN, env, 60, policy="MultiInputPolicy"))
    assert_all(data, started(seen))
    assert data.state_size == 4


def test_discrete_observations_are_one_hot():
    env, seen = played("FrozenLake-v1")
    data = ope.from_sb3_buffer(off_policy(DQN, env, 60))
    assert_all(data, started(seen))
    assert data.state_size == 16


def test_hindsight_s_buffer_gives_what_happened():
    """Its relabelled goals and rewards are made when it is sampled; what is stored is the log."""
    seen = [[]]
    env = DummyVecEnv([lambda: Seen(BitFlippingEnv(n_bits=4, max_steps=6), seen[0])])
    model = off_policy(DQN, env, 60, policy="MultiInputPolicy", replay_buffer_class=HerReplayBuffer)
    data = ope.from_sb3_buffer(model)
    assert_all(data, started(seen))
    assert data.state_size == 12


def test_a_saved_buffer_is_a_pickle_and_needs_trust(tmp_path):
    env, seen = played("Pendulum-v1")
    model = off_policy(SAC, env, 20)
    path = tmp_path / "buffer.pkl"
    model.save_replay_buffer(path)
    with pytest.raises(ope.UntrustedFileError, match="trust=True"):
        ope.load_sb3_buffer(path)
    with pytest.raises(ope.DataError, match=r"load_sb3_buffer, with trust=True"):
        ope.load_data(path)
    assert_all(ope.load_sb3_buffer(path, trust=True), started(seen))
    with pytest.raises(ope.DataError, match="no replay buffer"):
        ope.load_sb3_buffer(tmp_path / "other.pkl", trust=True)
    path.write_bytes(b"not a pickle")
    with pytest.raises(ope.DataError, match="cannot be unpickled"):
        ope.load_sb3_buffer(path, trust=True)


def test_what_is_no_buffer_is_refused():
    env, _ = played("Pendulum-v1")
    model = SAC("MlpPolicy", env, buffer_size=50, device="cpu")
    with pytest.raises(ope.DataError, match="is empty"):
        ope.from_sb3_buffer(model)
    with pytest.raises(ope.DataError, match="dict is or has no ReplayBuffer"):
        ope.from_sb3_buffer({})
    with pytest.raises(ope.ConfigError, match="episodes is 0"):
        ope.from_sb3_buffer(model, episodes=0)
    box = spaces.Box(-1, 1, (2,), np.float32)
    buffer = ReplayBuffer(10, box, spaces.MultiDiscrete([3, 2]), n_envs=1)
    buffer.add(np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(1), np.zeros(1), [{}])
    with pytest.raises(ope.DataError, match="number its 6 combinations"):
        ope.from_sb3_buffer(buffer)


def test_a_buffer_filled_by_hand_may_hold_actions_as_they_are():
    space = spaces.Box(-2, 2, (1,), np.float32)
    buffer = ReplayBuffer(10, spaces.Box(-1, 1, (2,), np.float32), space, n_envs=1)
    for i in range(4):
        infos = [{"TimeLimit.truncated": i == 3}]
        state = np.full((1, 2), i / 10)
        buffer.add(state, state + 0.1, np.array([[1.5]]), np.ones(1), np.array([i == 3]), infos)
    with pytest.raises(ope.DataError, match="scaled_actions=False"):
        ope.from_sb3_buffer(buffer)
    data = ope.from_sb3_buffer(buffer, scaled_actions=False, env_id="Own-v0", env_kwargs={"k": 1})
    assert data.actions.tolist() == [[1.5]] * 4
    assert (data.env_id, dict(data.env_kwargs)) == ("Own-v0", {"k": 1})

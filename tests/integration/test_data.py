"""Collecting from real vector environments, and Minari data sets."""

import tracemalloc

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from minari import DataCollector

import lfiw_ope as ope
from lfiw_ope.core import ActionSpec, derive, torch_generator
from lfiw_ope.data import Recorder
from lfiw_ope.policies import CategoricalHead, GaussianHead, MLPPolicy


def linear_policy(state_size, head, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    actions = head.log_std.shape[1] if isinstance(head, GaussianHead) else 2
    weight = scale * torch.randn((state_size, actions), generator=generator)
    return MLPPolicy.from_layers([weight], [torch.zeros(actions)], head, activation="tanh")


def gaussian(size, bound):
    limit = torch.full((1, size), bound)
    return GaussianHead(torch.zeros(1, size), -limit, limit)


@pytest.fixture
def cartpole():
    """Leans towards where the pole falls, at random: some episodes fall early and some late."""
    weight = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.5], [0.0, 0.5]])
    return MLPPolicy.from_layers([weight], [torch.zeros(2)], CategoricalHead(), activation="tanh")


def played_by_hand(env, policy, episodes, seed):
    """One environment after the other, one episode after the other: what collecting must equal."""
    generator = torch_generator(seed, "collect", "actions")
    env.reset(seed=derive(seed, "collect", "reset", "0") % 2**31)
    found = []
    for i in range(episodes):
        if i == 0:
            observation, _ = env.reset(seed=derive(seed, "collect", "reset", "0") % 2**31)
        else:
            observation, _ = env.reset()
        states, rewards, ended = [observation], [], False
        while not ended:
            state = torch.tensor(np.float32(observation))[None]
            action = policy.act(state, generator)
            chosen = action[0].numpy() if action.shape[1] == 1 else int(action[0].argmax())
            observation, reward, terminated, truncated, _ = env.step(chosen)
            states.append(observation)
            rewards.append(reward)
            ended = terminated or truncated
        found.append((np.float32(states), np.float32(rewards), terminated, truncated))
    return found


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_collected_episodes_are_those_of_the_environment(cartpole, mode):
    """CartPole, short enough that some episodes are cut and some fall: ragged, both endings."""

    def make():
        return gym.make("CartPole-v1", max_episode_steps=40)

    env = SyncVectorEnv([make], autoreset_mode=mode)
    data = ope.collect(env, cartpole, episodes=12, seed=4)
    # NEXT_STEP draws an action at the reset step too and throws it away, so actions differ there.
    if mode == AutoresetMode.SAME_STEP:
        for i, (states, rewards, terminated, truncated) in enumerate(
            played_by_hand(make(), cartpole, 12, seed=4)
        ):
            here = slice(data.state_offsets[i], data.state_offsets[i + 1])
            np.testing.assert_array_equal(data.states[here], states)
            rows = slice(data.offsets[i], data.offsets[i + 1])
            np.testing.assert_array_equal(data.rewards[rows], rewards)
            assert (data.terminated[i], data.truncated[i]) == (terminated, truncated)
    assert data.terminated.any()
    assert data.truncated.any()
    assert (data.lengths[data.truncated] == 40).all()
    assert (data.lengths[data.terminated & ~data.truncated] < 40).all()
    rows = data.transitions()
    # CartPole is deterministic: each logged transition is the environment's own.
    env = gym.make("CartPole-v1").unwrapped
    env.reset()
    for i in range(len(rows.reward)):
        env.state, env.steps_beyond_terminated = rows.state[i].astype(float), None
        reached, _, terminated, _, _ = env.step(int(rows.action[i].argmax()))
        np.testing.assert_allclose(reached, rows.next_state[i], atol=1e-5)
        assert terminated == rows.terminated[i]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_many_environments_do_not_favour_short_episodes(cartpole, mode):
    """Keeping the episodes that end first would; 4 standard errors of two means of 100."""
    lengths = {}
    for envs in (1, 40):
        env = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * envs, autoreset_mode=mode)
        data = ope.collect(env, cartpole, episodes=100, seed=envs)
        assert data.num_episodes == 100
        lengths[envs] = data.lengths
    spread = np.sqrt(sum(one.var(ddof=1) / 100 for one in lengths.values()))
    assert abs(lengths[1].mean() - lengths[40].mean()) < 4 * spread


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_number_of_transitions_is_the_whole_of_what_each_copy_played(cartpole, mode):
    """243 of 4 copies: 61, 61, 61 and 60, in episodes of which each copy's last one is cut."""
    envs = [lambda: gym.make("CartPole-v1", max_episode_steps=40)] * 4
    data = ope.collect(SyncVectorEnv(envs, autoreset_mode=mode), cartpole, transitions=243, seed=2)
    assert data.num_transitions == 243
    # The same play, asked for by episodes, has them all, and lets those go on that were cut.
    env = SyncVectorEnv(envs, autoreset_mode=mode)
    longer = ope.collect(env, cartpole, episodes=data.num_episodes, seed=2)
    cut = data.lengths < longer.lengths
    assert (data.lengths <= longer.lengths).all()
    assert 1 <= cut.sum() <= 4
    assert data.truncated[cut].all()
    assert not data.terminated[cut].any()
    np.testing.assert_array_equal(data.terminated[~cut], longer.terminated[~cut])
    np.testing.assert_array_equal(data.truncated[~cut], longer.truncated[~cut])
    assert data.terminated.any()
    for i in range(data.num_episodes):
        one, same = data.select([i]), longer.select([i])
        steps = one.num_transitions
        np.testing.assert_array_equal(one.states, same.states[: steps + 1])
        np.testing.assert_array_equal(one.actions, same.actions[:steps])
        np.testing.assert_array_equal(one.log_prob, same.log_prob[:steps])


def test_copies_play_alike_however_their_episodes_end():
    """Without an end, 26, 26, 26 and 25 steps; and with fewer transitions than copies, one each."""
    policy = linear_policy(3, gaussian(1, 2.0))

    def lengths(transitions):
        env = SyncVectorEnv([lambda: gym.make("Pendulum-v1", max_episode_steps=50)] * 4)
        data = ope.collect(env, policy, transitions=transitions, seed=0)
        assert data.truncated.all()
        assert data.proposed_actions.shape == (transitions, 1)
        return data.lengths.tolist()

    assert lengths(103) == [26, 26, 26, 25]
    assert lengths(400) == [50] * 8
    assert lengths(3) == [1, 1, 1]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_transitions_do_not_favour_short_episodes(cartpole, mode):
    """Of 40 copies that each play 60, the first episode is cut only where it is longer: its length
    is that of a whole episode, or 60. 4 standard errors of the difference of two means of 40."""
    env = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 40, autoreset_mode=mode)
    first = ope.collect(env, cartpole, transitions=40 * 60, seed=7).first(40).lengths
    whole = np.minimum(ope.collect(env, cartpole, episodes=40, seed=8).lengths, 60)
    assert (first == 60).any()
    spread = np.sqrt((first.var(ddof=1) + whole.var(ddof=1)) / 40)
    assert abs(first.mean() - whole.mean()) < 4 * spread


def test_a_log_is_held_once_while_it_is_recorded(monkeypatch):
    """Blocks go as their rows are put: beside the log there is one left, and not another log."""
    monkeypatch.setattr("lfiw_ope.data.collect.BLOCK", 2**20)
    rows, copies, size = 40_000, 10, 100
    recorder = Recorder(copies, episodes=None, transitions=rows)
    state, over = np.ones((copies, size), np.float32), np.zeros(copies, bool)
    rest = {"actions": state[:, :1], "rewards": state[:, 0]}
    tracemalloc.start()
    recorder.start(np.arange(copies))
    while not recorder.complete:
        recorder.step({"states": state, **rest}, state, over, over)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    data = recorder.trajectories(ActionSpec.continuous([-1], [1]), None, {})
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data.lengths) == copies
    assert data.states.shape == (rows + copies, size)
    assert held < 1.5 * data.states.nbytes
    assert kept < 1.2 * data.states.nbytes


def test_more_transitions_than_fit_are_refused_before_they_are_played(monkeypatch):
    monkeypatch.setattr("lfiw_ope.data.memory.available_memory", lambda: 2**28)
    env = SyncVectorEnv([lambda: gym.make("Pendulum-v1")])
    policy = linear_policy(3, gaussian(1, 2.0))
    with pytest.raises(ope.InsufficientMemoryError, match=r"100000000 rows need .* take fewer"):
        ope.collect(env, policy, transitions=10**8, seed=0)


def test_log_probabilities_are_those_of_the_unclipped_draw():
    policy = linear_policy(3, gaussian(1, 2.0), scale=2.0)
    env = SyncVectorEnv([lambda: gym.make("Pendulum-v1", max_episode_steps=50)] * 4)
    data = ope.collect(env, policy, episodes=8, seed=0)
    assert (np.abs(data.proposed_actions) > 2).mean() > 0.1
    np.testing.assert_array_equal(data.actions, np.clip(data.proposed_actions, -2, 2))
    rows = data.transitions()
    proposed = torch.tensor(data.proposed_actions)
    expected = policy.proposal_log_prob(torch.tensor(rows.state), proposed)
    np.testing.assert_allclose(data.log_prob, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert data.truncated.all()
    assert not data.terminated.any()
    assert data.env_id == "Pendulum-v1"


def test_policies_without_a_density_are_collected_without_one():
    head = gaussian(1, 2.0)
    weight = torch.ones(3, 1)
    policy = MLPPolicy.from_layers(
        [weight], [torch.zeros(1)], head, activation="tanh", deterministic=True
    )
    env = SyncVectorEnv([lambda: gym.make("Pendulum-v1", max_episode_steps=5)] * 2)
    data = ope.collect(env, policy, episodes=3, seed=0)
    assert data.log_prob is None
    assert data.proposed_actions is None


def test_one_seed_collects_the_same_data(cartpole):
    def once(seed):
        env = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 5)
        return ope.collect(env, cartpole, episodes=7, seed=seed)

    np.testing.assert_array_equal(once(0).states, once(0).states)
    assert once(0).num_transitions != once(1).num_transitions


def test_a_vector_class_of_an_environment_s_own_is_collected_from_one_seed():
    policy = ope.UniformPolicy(4, ope.ActionSpec.discrete(2))
    first, again, other = (
        ope.collect(gym.make_vec("CartPole-v1", num_envs=2), policy, episodes=5, seed=seed)
        for seed in (3, 3, 4)
    )
    assert first.env_id == "CartPole-v1"
    assert first.num_episodes == 5
    np.testing.assert_array_equal(first.states, again.states)
    np.testing.assert_array_equal(first.actions, again.actions)
    assert not np.array_equal(first.initial_states, other.initial_states)


def test_what_cannot_be_collected_is_refused(cartpole):
    env = SyncVectorEnv([lambda: gym.make("CartPole-v1")])
    with pytest.raises(ope.ConfigError, match="episodes is 0"):
        ope.collect(env, cartpole, episodes=0, seed=0)
    with pytest.raises(ope.ConfigError, match="transitions is 0"):
        ope.collect(env, cartpole, transitions=0, seed=0)
    for neither_or_both in ({}, {"episodes": 1, "transitions": 5}):
        with pytest.raises(ope.ConfigError, match="give exactly one of them"):
            ope.collect(env, cartpole, seed=0, **neither_or_both)
    with pytest.raises(ope.PolicyError, match="takes 3 state entries"):
        ope.collect(env, linear_policy(3, gaussian(1, 2.0)), episodes=1, seed=0)
    with pytest.raises(ope.ConfigError, match="TimeLimit is no vector environment"):
        ope.collect(gym.make("CartPole-v1"), cartpole, episodes=1, seed=0)
    manual = SyncVectorEnv([lambda: gym.make("CartPole-v1")], autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ope.ConfigError, match="NEXT_STEP or SAME_STEP"):
        ope.collect(manual, cartpole, episodes=1, seed=0)
    unbounded = linear_policy(3, gaussian(1, float("inf")), scale=50.0)
    pendulum = SyncVectorEnv([lambda: gym.make("Pendulum-v1")])
    with pytest.raises(ope.DataError, match="outside the action space"):
        ope.collect(pendulum, unbounded, episodes=1, seed=0)


@pytest.fixture
def minari_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@pytest.mark.filterwarnings("ignore:.*is set to None")
@pytest.mark.parametrize("by", ["id", "folder", "data folder"])
def test_minari_s_own_recording_is_read_transition_by_transition(minari_home, by):
    """Recorded with Minari's DataCollector, and noted down by hand on the way."""
    env = DataCollector(gym.make("CartPole-v1", max_episode_steps=15), record_infos=True)
    rng = np.random.default_rng(0)
    noted = []
    for i in range(20):
        observation, _ = env.reset(seed=i)
        ended = False
        while not ended:
            action = int(rng.integers(2)) if i % 2 else int(observation[2] + observation[3] > 0)
            reached, reward, terminated, truncated, _ = env.step(action)
            noted.append((observation, action, reward, reached, terminated, i, truncated))
            observation, ended = reached, terminated or truncated
    env.create_dataset("cartpole/test-v0", algorithm_name="test")
    env.close()
    source = {
        "id": "cartpole/test-v0",
        "folder": minari_home / "cartpole" / "test-v0",
        "data folder": minari_home / "cartpole" / "test-v0" / "data",
    }[by]
    data = ope.load_minari(source)
    rows = data.transitions()
    assert data.env_id == "CartPole-v1"
    assert data.log_prob is None
    assert len(noted) == data.num_transitions
    for i, (state, action, reward, reached, terminated, episode, truncated) in enumerate(noted):
        np.testing.assert_array_equal(rows.state[i], np.float32(state))
        assert rows.action[i].tolist() == np.eye(2)[action].tolist()
        assert rows.reward[i] == reward
        np.testing.assert_array_equal(rows.next_state[i], np.float32(reached))
        assert rows.terminated[i] == terminated
        assert rows.episode[i] == episode
        if truncated:
            assert data.truncated[episode]
    assert data.terminated.any()
    assert (data.truncated & ~data.terminated).any()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_data_survive_minari(env_id, cartpole, tmp_path):
    policy = cartpole if env_id == "CartPole-v1" else linear_policy(3, gaussian(1, 2.0))
    env = SyncVectorEnv([lambda: gym.make(env_id, max_episode_steps=12)] * 3)
    before = ope.collect(env, policy, episodes=9, seed=1)
    folder = ope.save_minari(before, tmp_path / "deep" / "log", dataset_id="own/log-v0")
    after = ope.load_minari(folder)
    for name in (
        "states", "actions", "rewards", "lengths", "terminated", "truncated",
        "log_prob", "proposed_actions",
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
    assert after.action_spec == before.action_spec
    assert after.env_id == env_id
    # Minari itself reads it, and its own view agrees.
    theirs = minari.MinariDataset(folder / "data")
    assert (theirs.total_episodes, theirs.total_steps) == (9, before.num_transitions)
    assert theirs[2].rewards.tolist() == before.select([2]).rewards.tolist()
    assert [p.name for p in folder.parent.iterdir()] == ["log"]
    with pytest.raises(ope.DataError, match="exists; name a new folder"):
        ope.save_minari(before, folder, dataset_id="own/log-v0")


def test_what_is_no_data_set_is_refused(tmp_path, minari_home):  # noqa: ARG001
    (tmp_path / "empty").mkdir()
    with pytest.raises(ope.DataError, match="is no Minari data set that can be loaded"):
        ope.load_minari(tmp_path / "empty")
    for source in ("empti", "empti/log"):  # no folder, and no version: no id either
        with pytest.raises(ope.DataError, match=f"no file or folder {source}, and a Minari id"):
            ope.load_minari(source)


def test_a_relative_folder_and_one_that_fails_leave_nothing_behind(cartpole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = SyncVectorEnv([lambda: gym.make("CartPole-v1", max_episode_steps=5)])
    data = ope.collect(env, cartpole, episodes=2, seed=0)
    ope.save_minari(data, "log", dataset_id="own/log-v0")
    assert ope.load_minari("log").num_transitions == data.num_transitions

    def full(*args, **kwargs):  # noqa: ARG001
        raise OSError("No space left on device")

    monkeypatch.setattr("minari.dataset.minari_storage.MinariStorage.update_metadata", full)
    with pytest.raises(OSError, match="No space"):
        ope.save_minari(data, "other", dataset_id="own/other-v0")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]

"""The benchmark's data sets: played by real policies in real environments, kept and found again."""

import multiprocessing
import os
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from lfiw_envs import get_ladder
from lfiw_envs.ladder import Ladder, Question

import lfiw_ope as ope
from lfiw_ope.benchmark import copies_for, dataset, datasets, find_or_play, shares_of, shuffled
from lfiw_ope.benchmark import datasets as cache
from lfiw_ope.policies import CategoricalHead, GaussianHead, MLPPolicy

ARRAYS = (
    *("states", "actions", "rewards", "lengths", "terminated", "truncated"),
    *("log_prob", "proposed_actions"),
)


def categorical(lean):
    """Pushes towards where the pole falls, more or less surely; or, leaning back, lets it fall."""
    weight = torch.zeros(4, 2)
    weight[2:, 1] = torch.tensor([3.0, 1.0]) * lean
    return MLPPolicy.from_layers([weight], [torch.zeros(2)], CategoricalHead(), activation="tanh")


def gaussian(mean):
    head = GaussianHead(torch.zeros(1, 1), torch.full((1, 1), -2.0), torch.full((1, 1), 2.0))
    return MLPPolicy.from_layers(
        [torch.zeros(3, 1)], [torch.tensor([mean])], head, activation="tanh"
    )


@pytest.fixture
def cartpole(tmp_path):
    folder = tmp_path / "policies"
    for name, lean in (("bad", -2.0), ("fair", 0.5), ("good", 2.0)):
        ope.save_actor(categorical(lean), folder / f"{name}.safetensors")
    return Ladder(
        name="own",
        env_id="CartPole-v1",
        targets=("good",),
        recipes={"bad": ("bad",), "mixed": ("bad", "good", "fair"), "lost": ("good", "nobody")},
        folder=folder,
        episode=50,
        questions={"T20": Question(20, 1.0)},
    )


@pytest.fixture
def pendulum(tmp_path):
    folder = tmp_path / "policies"
    for mean in (-1.0, 1.0):
        ope.save_actor(gaussian(mean), folder / f"at{mean:g}.safetensors")
    return Ladder(
        name="own",
        env_id="Pendulum-v1",
        targets=(),
        recipes={"both": ("at1", "at-1")},
        folder=folder,
        episode=20,
        questions={"T20": Question(20, 1.0)},
        env_kwargs={"g": 5.0},
    )


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_same(one, other):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("action_spec", "env_id", "env_kwargs"):
        assert getattr(one, name) == getattr(other, name)


def test_each_policy_plays_its_share_and_its_own_log_probabilities_are_carried(cartpole):
    made = find_or_play(cartpole, "mixed", 400, seed=1, cache=None)
    log = made.log
    assert made.policies == ("bad", "good", "fair")
    assert (made.path, made.found) == (None, False)
    played = np.bincount(made.player, weights=log.lengths)
    assert played.tolist() == [134, 133, 133]
    rows = log.transitions()
    of_row = np.repeat(made.player, log.lengths)
    state, action = torch.from_numpy(rows.state), torch.from_numpy(rows.action)
    for i, name in enumerate(made.policies):
        said = ope.load_actor(cartpole.policy_path(name)).log_prob(state, action).numpy()
        here = of_row == i
        np.testing.assert_allclose(log.log_prob[here], said[here], atol=1e-5)
        assert np.abs(log.log_prob[~here] - said[~here]).max() > 0.5
    assert log.lengths.max() <= cartpole.episode
    # Each transition is the environment's own: states, rewards and ends moved together.
    env = gym.make("CartPole-v1").unwrapped
    env.reset()
    for i in range(len(rows.reward)):
        env.state, env.steps_beyond_terminated = rows.state[i].astype(float), None
        reached, reward, terminated, _, _ = env.step(int(rows.action[i].argmax()))
        np.testing.assert_allclose(reached, rows.next_state[i], atol=1e-5)
        assert (reward, terminated) == (rows.reward[i], rows.terminated[i])


def test_first_episodes_are_a_sample_of_the_mixture(cartpole):
    """Half of the episodes of two policies that play alike: a hypergeometric number of each, and
    4 of its standard deviations; one after the other, the first half would be of one alone."""
    alike = replace(cartpole, recipes={"twice": ("bad", "bad")})
    made = find_or_play(alike, "twice", 2000, seed=0, cache=None)
    episodes = made.log.num_episodes
    assert episodes > 150
    half, share = episodes // 2, made.player.mean()
    spread = np.sqrt(half * share * (1 - share) * (episodes - half) / (episodes - 1))
    assert abs(made.player[:half].sum() - half * share) < 4 * spread
    # And though they are one policy, they play other episodes.
    first = [made.log.initial_states[made.player == i] for i in range(2)]
    assert not np.isin(first[0], first[1]).any()


def test_one_seed_gives_one_data_set(cartpole, pendulum):
    for ladder, data in ((cartpole, "mixed"), (pendulum, "both")):
        once, again, other = (dataset(ladder, data, 90, seed, cache=None) for seed in (3, 3, 4))
        assert_same(once, again)
        assert not np.array_equal(once.initial_states[:2], other.initial_states[:2])


def test_what_was_kept_is_found_as_it_was_made(pendulum, tmp_path, monkeypatch):
    made = find_or_play(pendulum, "both", 90, seed=0, cache=tmp_path / "kept")
    assert not made.found
    assert made.log.env_kwargs == {"g": 5.0}
    monkeypatch.setattr(datasets, "collect", None)  # nothing is played any more
    found = find_or_play(pendulum, "both", 90, seed=0, cache=str(tmp_path / "kept"))
    assert found.found
    assert found.path == made.path
    assert_same(found.log, made.log)
    np.testing.assert_array_equal(found.player, made.player)
    assert [path.name for path in (tmp_path / "kept" / "data").iterdir()] == [made.path.name]
    assert made.path.name.startswith("own-both-90-0-")


def test_another_thing_that_makes_the_arrays_makes_another_file(cartpole, tmp_path, monkeypatch):
    def path(ladder=cartpole, data="mixed", transitions=60, seed=0):
        return find_or_play(ladder, data, transitions, seed, cache=tmp_path / "kept").path

    paths = [path(), path(seed=1), path(transitions=61), path(data="bad")]
    paths += [path(replace(cartpole, episode=40))]
    paths += [path(replace(cartpole, env_kwargs={"sutton_barto_reward": True}))]
    ope.save_actor(categorical(1.0), cartpole.policy_path("fair"))
    paths += [path()]
    monkeypatch.setattr(datasets, "_version", lambda _: "99")
    paths += [path()]
    assert len(set(paths)) == len(paths)
    assert all(one.is_file() for one in paths)


@pytest.mark.parametrize("damage", ["cut", "bit", "other", "empty", "method", "locked"])
def test_a_damaged_file_is_made_anew_and_said(cartpole, tmp_path, damage):
    made = find_or_play(cartpole, "bad", 200, seed=0, cache=tmp_path)
    content = bytearray(made.path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "bit":
        content[len(content) // 3] ^= 1
    elif damage == "empty":
        content = b""
    elif damage in ("method", "locked"):  # of the first file, as the directory at the end says
        at = content.index(b"PK\x01\x02") + {"method": 10, "locked": 8}[damage]
        content[at] ^= {"method": 2, "locked": 1}[damage]
    else:  # under this name stands what another seed made
        content = find_or_play(cartpole, "bad", 200, seed=1, cache=tmp_path).path.read_bytes()
    made.path.write_bytes(content)
    with pytest.warns(ope.DataWarning, match="is damaged .* it is made anew"):
        again = find_or_play(cartpole, "bad", 200, seed=0, cache=tmp_path)
    assert not again.found
    assert_same(again.log, made.log)
    assert find_or_play(cartpole, "bad", 200, seed=0, cache=tmp_path).found


def _play_at_once(ladder, folder, barrier, seen):
    torch.set_num_threads(1)
    barrier.wait(60)
    seen.put(dataset(ladder, "mixed", 300, 0, cache=folder).rewards.sum())


@pytest.mark.skipif(os.name != "posix", reason="processes are forked, with what is in this file")
def test_two_processes_at_once_do_not_break_each_other(cartpole, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, seen = context.Barrier(2), context.Queue()
    arguments = (cartpole, tmp_path / "kept", barrier, seen)
    both = [context.Process(target=_play_at_once, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    assert seen.get(timeout=120) == seen.get(timeout=120)
    for process in both:
        process.join(60)
    files = list((tmp_path / "kept" / "data").iterdir())
    assert len(files) == 1
    assert find_or_play(cartpole, "mixed", 300, 0, cache=tmp_path / "kept").found


def test_a_folder_that_cannot_be_written_to_costs_the_file_alone(cartpole, tmp_path):
    (tmp_path / "kept").write_text("a file")
    with pytest.warns(ope.DataWarning, match="could not be kept"):
        made = find_or_play(cartpole, "bad", 50, seed=0, cache=tmp_path / "kept")
    assert made.path is None
    assert made.log.num_transitions == 50


@pytest.mark.usefixtures("threads")
def test_how_many_threads_torch_has_changes_no_bit():
    """With two, sums of these networks are put together in another order."""
    logs = []
    for count in (1, 2):
        torch.set_num_threads(count)
        logs.append(dataset(get_ladder("cartpole"), "replay", 1000, 0, cache=None))
        assert torch.get_num_threads() == count
    assert_same(*logs)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("LFIW_OPE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "lfiw_ope"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_folder() == tmp_path / "home" / ".cache" / "lfiw_ope"
    monkeypatch.setenv("LFIW_OPE_CACHE", str(tmp_path / "own"))
    assert cache.cache_folder() == tmp_path / "own"


def test_episodes_stay_whole_where_they_can():
    assert copies_for(100_000, 1000) == 10
    assert copies_for(20_000, 1000) == 10
    assert copies_for(2_000, 1000) == 2
    assert copies_for(7_000, 1000) == 7
    assert copies_for(13_500, 1000) == 1
    assert copies_for(500, 1000) == 1
    for ladder in (get_ladder("swimmer"), get_ladder("paper_swimmer")):
        for data in ladder.recipes:
            for transitions in (10_000, 100_000, 1_000_000):
                for _, count in shares_of(ladder, data, transitions):
                    each = count / copies_for(count, ladder.episode)
                    assert each % ladder.episode == 0


def test_what_is_no_data_set_is_refused_in_a_sentence(cartpole):
    def refused(error, match, ladder=cartpole, data="bad", transitions=10, seed=0, **options):
        with pytest.raises(error, match=match):
            dataset(ladder, data, transitions, seed, **options)

    refused(ope.ConfigError, "own has no data set 'best'; choose one of bad, mixed", data="best")
    refused(ope.ConfigError, "transitions is 2; .* 3 or more", data="mixed", transitions=2)
    refused(ope.ConfigError, "The seed is -1", seed=-1)
    refused(ope.DataError, "no policy file .*nobody.safetensors", data="lost", cache=None)
    unknown = replace(cartpole, env_id="NoSuchThing-v0")
    refused(ope.ConfigError, "NoSuchThing-v0 cannot be made", ladder=unknown)
    strange = replace(cartpole, env_kwargs={"render_mode": {1, 2}})
    refused(ope.ConfigError, "cannot be written down", ladder=strange)


def test_a_policy_without_a_density_leaves_the_mixture_without_one():
    def log(**changes):
        rows = {"log_prob": np.zeros(4), **changes}
        return ope.Trajectories(
            states=np.zeros((5, 1)),
            actions=np.zeros((4, 1)),
            rewards=np.arange(4),
            lengths=[4],
            terminated=[False],
            truncated=[True],
            action_spec=ope.ActionSpec.continuous([-1], [1]),
            **rows,
        )

    with pytest.warns(ope.DataWarning, match="Log-probabilities are left out"):
        both, _ = shuffled([log(), log(log_prob=None)], np.random.default_rng(0))
    assert both.log_prob is None
    assert both.rewards.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize("which", ["cartpole", "pendulum"])
def test_data_survive_an_npz_file(which, request, tmp_path):
    ladder = request.getfixturevalue(which)
    data = next(iter(ladder.recipes))
    before = dataset(ladder, data, 60, 0, cache=None)
    path = ope.save_npz(before, tmp_path / "deep" / "log.npz")
    kwargs = ladder.env_kwargs
    by_env = ope.load_npz(path, env_id=ladder.env_id, env_kwargs=kwargs, max_episode_steps=50)
    by_spec = ope.load_npz(
        path, action_space=before.action_spec, env_id=ladder.env_id, env_kwargs=kwargs
    )
    assert_same(by_env, before)
    assert_same(by_spec, before)
    assert [file.name for file in path.parent.iterdir()] == ["log.npz"]
    with pytest.raises(ope.ConfigError, match=r"ends in \.np[yx]; name an \.npz file"):
        ope.save_npz(before, tmp_path / "log.npy")

"""Arrays, D4RL files and archives of one real log, read in chunks of every size."""

import contextlib
import itertools

import gymnasium as gym
import h5py
import numpy as np
import pytest
from cartpole_log import LIMIT, recorded

import lfiw_ope as ope
from lfiw_ope.data import trajectories as chunks


def episodes_of(columns):
    """Row ranges between ends."""
    ends = np.flatnonzero(columns["terminals"] | columns["timeouts"]) + 1
    bounds = [0, *ends.tolist()]
    if bounds[-1] != len(columns["rewards"]):
        bounds.append(len(columns["rewards"]))
    return list(itertools.pairwise(bounds))


@pytest.fixture(params=["arrays", "lists", "d4rl", "npz", "compressed"])
def door(request, tmp_path):
    """Reads columns through one of the doors."""

    def read(columns, **options):
        if request.param == "arrays":
            return ope.from_arrays(columns, **options)
        if request.param == "lists":
            return ope.from_arrays({k: v.tolist() for k, v in columns.items()}, **options)
        if request.param == "d4rl":
            path = tmp_path / "log.hdf5"
            with h5py.File(path, "w") as file:
                for name, values in columns.items():
                    file["infos/action_log_probs" if name == "log_prob" else name] = values
                file["infos/qpos"] = np.zeros(3)
                file["metadata/algorithm"] = "random"
            return ope.load_data(path, **options)
        path = tmp_path / "log.npz"
        (np.savez if request.param == "npz" else np.savez_compressed)(path, **columns)
        return ope.load_data(path, **options)

    return read


@pytest.fixture(params=[1, 100, 2**22])
def chunk(request, monkeypatch):
    """A row at a time, six, or all at once."""
    monkeypatch.setattr(chunks, "CHUNK", request.param)


@pytest.mark.usefixtures("chunk")
def test_every_transition_is_the_logged_one(door):
    columns = recorded()
    data = door(columns)
    rows = data.transitions()
    np.testing.assert_array_equal(rows.state, np.float32(columns["observations"]))
    np.testing.assert_array_equal(rows.next_state, np.float32(columns["next_observations"]))
    np.testing.assert_array_equal(rows.action, np.float32(columns["actions"]))
    np.testing.assert_array_equal(rows.reward, np.float32(columns["rewards"]))
    np.testing.assert_array_equal(rows.terminated, columns["terminals"])
    np.testing.assert_array_equal(data.log_prob, np.float32(columns["log_prob"]))
    spans = episodes_of(columns)
    assert data.lengths.tolist() == [stop - start for start, stop in spans]
    last = [stop - 1 for _, stop in spans]
    assert data.terminated.tolist() == columns["terminals"][last].tolist()
    truncated = columns["timeouts"][last]
    truncated[-1] = True  # where the log stops
    assert data.truncated.tolist() == truncated.tolist()
    assert data.action_spec == ope.ActionSpec.continuous([-np.inf], [np.inf])


@pytest.mark.usefixtures("chunk")
def test_without_next_observations_no_state_is_made_up(door):
    columns = {k: v for k, v in recorded().items() if k != "next_observations"}
    terminal = int(columns["terminals"].sum())
    with pytest.raises(ope.DataError, match=f"states that {terminal} terminal transitions led to"):
        door(columns)
    spans = episodes_of(columns)
    said = f"of its 30 episodes was left out, {terminal} of"
    with pytest.warns(ope.DataWarning, match=said) as warned:
        data = door(columns, drop_terminal=True)
    assert warned[0].filename == __file__  # where the package was called
    assert data.lengths.tolist() == [stop - start - 1 for start, stop in spans]
    for i, (start, stop) in enumerate(spans):
        states = data.states[data.state_offsets[i] : data.state_offsets[i + 1]]
        np.testing.assert_array_equal(states, np.float32(columns["observations"][start:stop]))
        kept = slice(data.offsets[i], data.offsets[i + 1])
        for name in ("rewards", "actions", "log_prob"):
            values = np.float32(columns[name][start : stop - 1])
            np.testing.assert_array_equal(getattr(data, name)[kept], values)
    assert data.truncated.all()
    assert not data.terminated.any()


def test_an_episode_of_one_row_without_its_next_state_is_left_out():
    observations = np.arange(5.0)[:, None]
    ends = np.array([False, True, True, False, True])
    arrays = {
        "observations": observations, "actions": observations, "rewards": np.ones(5),
        "terminated": np.zeros(5), "truncated": ends,
    }  # fmt: skip
    with pytest.warns(ope.DataWarning, match="each of its 3 episodes.*; 1 episodes had no other"):
        data = ope.from_arrays(arrays)
    assert data.states.ravel().tolist() == [0, 1, 3, 4]
    assert data.rewards.tolist() == [1, 1]
    arrays["truncated"] = np.ones(5)
    with pytest.raises(ope.DataError, match="none of its 5 episodes has the two rows"):
        ope.from_arrays(arrays)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("following", [True, False])
def test_the_first_episodes_are_a_part_of_all(door, following):
    columns = dict(recorded())
    if not following:
        del columns["next_observations"]
    options = {"drop_terminal": not following}
    with contextlib.nullcontext() if following else pytest.warns(ope.DataWarning):
        part, whole = door(columns, episodes=7, **options), door(columns, **options)
    assert part.num_episodes == 7
    expected = whole.select(range(7))
    for name in ("states", "actions", "rewards", "lengths", "terminated", "truncated", "log_prob"):
        np.testing.assert_array_equal(getattr(part, name), getattr(expected, name))


def test_ends_that_are_not_marked_are_asked_for_never_guessed(door):
    columns = {k: v for k, v in recorded().items() if k != "timeouts"}
    with pytest.raises(ope.DataError, match="pass max_episode_steps="):
        door(columns)
    told = door(columns, max_episode_steps=LIMIT)
    marked = door(recorded())
    np.testing.assert_array_equal(told.lengths, marked.lengths)
    np.testing.assert_array_equal(told.terminated, marked.terminated)
    # The last step of a limit that was also terminal: both, as in the log.
    np.testing.assert_array_equal(told.truncated, marked.truncated)
    # A limit that is wrong shows in the next observations.
    with pytest.raises(ope.DataError, match="the next observation is not the observation of"):
        door(columns, max_episode_steps=500)
    del columns["terminals"]
    with pytest.raises(ope.DataError, match="has no terminated"):
        door(columns)


def test_an_episode_longer_than_the_time_limit_has_ends_that_are_not_marked(door):
    columns = {k: v for k, v in recorded().items() if k != "next_observations"}
    columns["timeouts"] = np.zeros_like(columns["timeouts"])
    columns["terminals"] = np.zeros_like(columns["timeouts"])
    with pytest.raises(ope.DataError, match=f"more than the time limit of {LIMIT}, so ends are"):
        door(columns, max_episode_steps=LIMIT)
    with pytest.raises(ope.ConfigError, match="max_episode_steps is 0"):
        door(recorded(), max_episode_steps=0)
    kept = door(recorded(), max_episode_steps=LIMIT)  # the longest that it allows
    assert kept.lengths.max() == LIMIT
    columns = {
        "observations": kept.states,
        "lengths": kept.lengths,
        **{name: getattr(kept, name) for name in ("actions", "rewards", "terminated")},
    }
    assert ope.from_arrays(columns, max_episode_steps=LIMIT).num_episodes == kept.num_episodes
    with pytest.raises(ope.DataError, match=f"of {LIMIT} steps, more than the time limit of 8"):
        ope.from_arrays(columns, max_episode_steps=LIMIT - 1)


def test_a_file_of_numbered_states_and_actions_is_read_with_its_spaces(tmp_path):
    env = gym.make("FrozenLake-v1")
    state, _ = env.reset(seed=0)
    names = ("observations", "actions", "rewards", "next_observations", "terminals")
    rows = []
    for action in (0, 3, 1, 2, 0, 3):
        reached, reward, terminated, _, _ = env.step(action)
        rows.append((state, action, reward, reached, terminated))
        state = env.reset()[0] if terminated else reached
    with h5py.File(tmp_path / "log.h5", "w") as file:
        for name, values in zip(names, map(np.array, zip(*rows, strict=True)), strict=True):
            file[name] = values
    with pytest.raises(ope.DataError, match="pass observation_space="):
        ope.load_data(tmp_path / "log.h5", action_space=env.action_space, max_episode_steps=100)
    for spec in (env.action_space, ope.ActionSpec.discrete(4)):
        data = ope.load_d4rl(
            tmp_path / "log.h5",
            observation_space=env.observation_space,
            action_space=spec,
            max_episode_steps=100,
        )
        assert data.state_size == 16
        np.testing.assert_array_equal(data.actions.argmax(1), [0, 3, 1, 2, 0, 3])


def test_actions_of_a_file_are_what_the_caller_says(tmp_path):
    columns = {k: v for k, v in recorded().items() if k != "log_prob"}
    columns["actions"] = np.int64(columns["actions"][:, 0] > 0)
    np.savez(tmp_path / "log.npz", **columns)
    data = ope.load_data(tmp_path / "log.npz", action_space=ope.ActionSpec.discrete(2))
    np.testing.assert_array_equal(data.actions, np.eye(2)[columns["actions"]])


def test_shuffled_rows_are_no_episodes(door):
    order = np.random.default_rng(0).permutation(len(recorded()["rewards"]))
    with pytest.raises(ope.DataError, match="shuffled rows are no episodes"):
        door({name: values[order] for name, values in recorded().items()})


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_ends_are_missed_nowhere_however_far_from_zero_states_lie(offset):
    columns = {k: v for k, v in recorded().items() if k != "log_prob"}
    for name in ("observations", "next_observations"):
        columns[name] = 2 * columns[name].astype(np.float64) + offset
    assert ope.from_arrays(columns).num_episodes == len(episodes_of(columns))
    columns["terminals"] = columns["timeouts"] = np.zeros(len(columns["rewards"]), bool)
    with pytest.raises(ope.DataError, match="the next observation is not the observation of"):
        ope.from_arrays(columns)


def test_an_environment_that_gymnasium_knows_gives_spaces_and_limit(door):
    columns = {k: v for k, v in recorded().items() if k not in ("timeouts", "log_prob")}
    columns["actions"] = np.int64(columns["actions"][:, 0] > 0)
    with pytest.raises(ope.DataError, match=r"ActionSpec.discrete\(4\)"):
        door(columns, max_episode_steps=LIMIT)
    data = door(columns, env_id="CartPole-v1", max_episode_steps=LIMIT)
    assert data.action_spec == ope.ActionSpec.discrete(2)
    assert data.env_id == "CartPole-v1"
    np.testing.assert_array_equal(data.actions, np.eye(2)[columns["actions"]])
    with pytest.raises(ope.DataError, match="the next observation is not"):
        door(columns, env_id="CartPole-v1")  # whose limit is 500
    with pytest.raises(ope.ConfigError, match="knows no environment 'Cartpole-v9'"):
        door(columns, env_id="Cartpole-v9")
    with pytest.raises(ope.DataError, match=r"have shape \(4,\); the space Box"):
        door(columns, env_id="Pendulum-v1", max_episode_steps=LIMIT)


def test_bounds_come_from_a_space_and_actions_at_them_stay():
    space = gym.spaces.Box(np.float32([-0.4]), np.float32([0.7]))
    columns = dict(recorded())
    columns["actions"] = np.clip(columns["actions"], -0.4, 0.7)
    data = ope.from_arrays(columns, action_space=space, env_id="Anything-v3", env_kwargs={"k": 2})
    assert data.action_spec == ope.ActionSpec.continuous(space.low, space.high)
    assert data.actions.min() == space.low[0]
    assert data.actions.max() == space.high[0]
    assert (data.env_id, dict(data.env_kwargs)) == ("Anything-v3", {"k": 2})
    discrete = {**columns, "actions": np.eye(3)[np.arange(len(columns["rewards"])) % 3]}
    data = ope.from_arrays(discrete, action_space=ope.ActionSpec.discrete(3))
    np.testing.assert_array_equal(data.actions, discrete["actions"])


def test_actions_outside_their_bounds_are_refused(tmp_path):
    columns = dict(recorded())
    columns["actions"] = columns["actions"] / np.abs(columns["actions"]).max() * (1 + 1e-6)
    space = gym.spaces.Box(-1.0, 1.0, (1,))  # which float32 may round past by so little
    data = ope.from_arrays(columns, action_space=space)
    assert data.num_transitions == len(columns["rewards"])
    share = np.mean(np.abs(columns["actions"]) > 0.1)
    assert 0.1 < share < 0.9
    space = gym.spaces.Box(-0.1, 0.1, (1,))
    with pytest.raises(ope.DataError, match=f"^{share:.1%} of the action entries of The log lie"):
        ope.from_arrays(columns, action_space=space)
    clipped = ope.from_arrays({**columns, "actions": np.clip(columns["actions"], -1, 1)})
    ope.save_minari(clipped, tmp_path / "set", dataset_id="own/outside-v0")
    said = tmp_path / "set" / "data" / "metadata.json"
    assert "-Infinity" in said.read_text()
    said.write_text(said.read_text().replace("-Infinity", "-0.1"))
    with pytest.raises(ope.DataError, match=r"as far as -[\d.]+\. Draws that were not clipped"):
        ope.load_minari(tmp_path / "set")


@pytest.mark.parametrize("door", ["arrays", "lists", "npz", "compressed"], indirect=True)
def test_the_layout_with_lengths_is_that_of_trajectories(door):
    one = door(recorded())
    arrays = {
        "observations": one.states, "actions": one.actions, "rewards": one.rewards,
        "lengths": one.lengths, "terminated": one.terminated, "truncated": one.truncated,
        "log_prob": one.log_prob, "proposed_actions": 2 * one.actions,
    }  # fmt: skip
    two = door(arrays)
    for name in set(arrays) - {"observations", "proposed_actions"}:
        np.testing.assert_array_equal(getattr(two, name), arrays[name])
    np.testing.assert_array_equal(two.states, one.states)
    np.testing.assert_array_equal(two.proposed_actions, 2 * one.actions)
    np.testing.assert_array_equal(door(arrays, episodes=3).states, two.select(range(3)).states)
    del arrays["truncated"]
    assert door(arrays).truncated.tolist() == (~one.terminated).tolist()
    with pytest.raises(ope.DataError, match="lengths and next_observations"):
        door({**arrays, "next_observations": one.states})
    with pytest.raises(ope.DataError, match="no whole numbers of 1 or more"):
        door({**arrays, "lengths": one.lengths * 0})
    with pytest.raises(ope.DataError, match=r"of shape .*; its other columns need"):
        door({**arrays, "lengths": one.lengths - (np.arange(30) == 3)})


def test_observations_in_parts_need_their_space():
    columns = dict(recorded())
    cart, pole = columns["observations"][:, :2], columns["observations"][:, 2:]
    columns["observations"] = {"cart": cart, "pole": pole}
    del columns["next_observations"]
    with pytest.raises(ope.DataError, match="have parts; pass their observation_space="):
        ope.from_arrays(columns, drop_terminal=True)
    box = gym.spaces.Box(-np.inf, np.inf, (2,))
    space = gym.spaces.Dict([("pole", box), ("cart", box)])
    with pytest.warns(ope.DataWarning):
        data = ope.from_arrays(columns, observation_space=space, drop_terminal=True)
    expected = gym.spaces.flatten(space, {"cart": cart[0], "pole": pole[0]})
    np.testing.assert_array_equal(data.initial_states[0], expected.astype(np.float32))

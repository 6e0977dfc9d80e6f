"""Every kind of storage and space that Minari records, read as Gymnasium flattens it."""

import warnings

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from minari import DataCollector

import lfiw_ope as ope
from lfiw_ope.data import memory

OBSERVATIONS = {
    "image": spaces.Box(0, 255, (4, 3, 2), np.uint8),
    "float64": spaces.Box(-np.inf, np.inf, (3,), np.float64),
    "discrete": spaces.Discrete(4, start=-1),
    "dict": spaces.Dict(
        [
            ("z", spaces.Discrete(3, start=2)),
            ("a", spaces.Box(-1, 1, (2, 2), np.float32)),
            ("nested", spaces.Dict({"flags": spaces.MultiBinary(3)})),
        ]
    ),
    "tuple": spaces.Tuple((spaces.Box(-1, 1, (2,), np.float64), spaces.Discrete(2))),
}
ACTIONS = {
    "unbounded": spaces.Box(-np.inf, np.inf, (2, 2), np.float32),
    "bounded": spaces.Box(np.float64([-0.1, 0]), np.float64([0.3, 9]), dtype=np.float64),
    "discrete": spaces.Discrete(3, start=7),
}


class Sampled(gym.Env):
    """Any observation, any reward; ends after 3 to 6 steps, terminated every other time."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):  # noqa: ARG002
        if seed is not None:
            self.observation_space.seed(seed)
            self.length = 3 + seed % 4
            self.terminates = seed % 2 == 0
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        ended = self.steps == self.length
        terminated = ended and self.terminates
        truncated = ended and not self.terminates
        return self.observation_space.sample(), 0.5 * self.steps, terminated, truncated, {}


@pytest.fixture(autouse=True)
def minari_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def record(observation_space, action_space, data_format, episodes=12, name="test-v0"):
    """A data set, and what was noted on the way: states, actions, rewards, terminated."""
    env = DataCollector(Sampled(observation_space, action_space), data_format=data_format)
    action_space.seed(0)
    noted = []
    for i in range(episodes):
        observation, _ = env.reset(seed=i)
        states, actions, rewards, ended = [observation], [], [], False
        while not ended:
            actions.append(action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            states.append(observation)
            rewards.append(reward)
            ended = terminated or truncated
        noted.append((states, actions, rewards, terminated))
    data_set = env.create_dataset(f"kinds/{name}", algorithm_name="test")
    env.close()
    return data_set, noted


def flat(space, samples):
    return np.stack([spaces.flatten(space, one) for one in samples]).astype(np.float32)


@pytest.mark.filterwarnings("ignore:.*is set to None", "ignore:.*env_spec")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_recordings_are_read_as_gymnasium_flattens(observation, action, data_format):
    observation_space, action_space = OBSERVATIONS[observation], ACTIONS[action]
    data_set, noted = record(observation_space, action_space, data_format)
    data = ope.load_minari("kinds/test-v0")
    assert data.num_episodes == len(noted) == 12
    for i, (states, actions, rewards, terminated) in enumerate(noted):
        rows = slice(data.offsets[i], data.offsets[i + 1])
        ours = data.states[data.state_offsets[i] : data.state_offsets[i + 1]]
        if observation == "image":  # Minari keeps them as JPEG, which is not the same
            states = data_set[i].observations
        # Minari's file names the parts of a Dict in alphabetical order.
        np.testing.assert_array_equal(ours, flat(data_set.observation_space, states))
        np.testing.assert_array_equal(data.actions[rows], flat(action_space, actions))
        np.testing.assert_array_equal(data.rewards[rows], rewards)
        assert (data.terminated[i], data.truncated[i]) == (terminated, not terminated)


@pytest.mark.filterwarnings("ignore:.*is set to None", "ignore:.*env_spec")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_parts_of_a_data_set(data_format):
    data_set, _ = record(OBSERVATIONS["dict"], ACTIONS["discrete"], data_format, episodes=40)
    whole, part = ope.load_minari(data_set), ope.load_minari(data_set, episodes=17)
    np.testing.assert_array_equal(part.states, whole.select(range(17)).states)
    np.testing.assert_array_equal(part.actions, whole.select(range(17)).actions)
    ended = data_set.filter_episodes(lambda episode: bool(episode.terminations[-1]))
    filtered = ope.load_minari(ended)
    assert filtered.num_episodes == 20
    np.testing.assert_array_equal(filtered.states, whole.select(whole.terminated).states)
    with pytest.raises(ope.ConfigError, match="episodes is 0"):
        ope.load_minari(data_set, episodes=0)
    with pytest.raises(ope.ConfigError, match="leave env_id"):
        ope.load_data("kinds/test-v0", env_id="CartPole-v1")
    with pytest.raises(ope.ConfigError, match="leave env_id, action_space"):
        ope.load_data("kinds/test-v0", action_space=ope.ActionSpec.discrete(3))
    assert ope.load_data("kinds/test-v0", episodes=2).num_episodes == 2


DECLARED = spaces.Dict([("z", spaces.Box(-1, 1, (2,))), ("a", spaces.Box(-1, 1, (2,)))])


class Declared(Sampled):
    """What Gymnasium makes by id, and Minari's file can name."""

    def __init__(self):
        super().__init__(DECLARED, ACTIONS["discrete"])


@pytest.mark.filterwarnings("ignore:.*is set to None", "ignore:.*env_spec")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_parts_of_a_dict_come_in_the_order_that_the_environment_declares(data_format, request):
    gym.register("Declared-v0", f"{__name__}:Declared")
    request.addfinalizer(lambda: gym.registry.pop("Declared-v0", None))
    env = DataCollector(gym.make("Declared-v0", disable_env_checker=True), data_format=data_format)
    observation, _ = env.reset(seed=1)
    states, ended = [observation], False
    while not ended:
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        states.append(observation)
        ended = terminated or truncated
    data_set = env.create_dataset("kinds/order-v0", algorithm_name="test")
    expected = flat(DECLARED, states)
    assert list(data_set.observation_space) == ["a", "z"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ope.DataWarning)
        np.testing.assert_array_equal(ope.load_minari(data_set).states, expected)
    gym.registry.pop("Declared-v0")
    with pytest.warns(ope.DataWarning, match="they are taken in alphabetical order"):
        data = ope.load_minari(data_set)
    np.testing.assert_array_equal(data.states, expected[:, [2, 3, 0, 1]])


class Told(gym.Wrapper):
    """Says in the infos what drew each action, and at the reset something of no meaning."""

    def reset(self, **kwargs):
        observation, _ = self.env.reset(**kwargs)
        return observation, self.infos(-1.0)

    def step(self, action):
        return *self.env.step(action)[:4], self.infos(float(action[0]))

    def infos(self, drawn):
        drew = np.array([drawn, 2 * drawn], np.float32)
        return {"behaviour_log_prob": np.float32(drawn / 4), "behaviour_proposed_action": drew}


@pytest.mark.filterwarnings("ignore:.*is set to None", "ignore:.*env_spec")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_what_the_behaviour_drew_is_read_from_the_infos(data_format):
    env = Told(Sampled(OBSERVATIONS["float64"], ACTIONS["bounded"]))
    env = DataCollector(env, data_format=data_format, record_infos=True)
    ACTIONS["bounded"].seed(0)
    for i in range(4):
        env.reset(seed=i)
        ended = False
        while not ended:
            _, _, terminated, truncated, _ = env.step(ACTIONS["bounded"].sample())
            ended = terminated or truncated
    env.create_dataset("kinds/told-v0", algorithm_name="test")
    data = ope.load_minari("kinds/told-v0")
    np.testing.assert_array_equal(data.log_prob, data.actions[:, 0] / 4)
    np.testing.assert_array_equal(data.proposed_actions, data.actions[:, :1] * np.float32([1, 2]))


@pytest.mark.filterwarnings("ignore:.*is set to None", "ignore:.*env_spec")
def test_what_does_not_fit_is_refused(monkeypatch):
    data_set, noted = record(OBSERVATIONS["float64"], ACTIONS["bounded"], "hdf5")
    sizes = [4 * ((len(one[2]) + 1) * 3 + len(one[2]) * 3) for one in noted]
    room = memory.READING + sum(sizes[:5])
    monkeypatch.setattr(memory, "available_memory", lambda: room - 1)
    with pytest.raises(ope.InsufficientMemoryError, match="the first 4 would fit, with episodes=4"):
        ope.load_minari(data_set)
    monkeypatch.setattr(memory, "available_memory", lambda: room)
    with pytest.raises(ope.InsufficientMemoryError, match="the first 5 would fit, with episodes=5"):
        ope.load_minari(data_set)
    assert ope.load_minari(data_set, episodes=5).num_episodes == 5
    data_set, _ = record(OBSERVATIONS["float64"], ACTIONS["bounded"], "arrow", name="whole-v0")
    with pytest.raises(ope.InsufficientMemoryError, match="not even the first"):
        ope.load_minari(data_set, episodes=5)  # each is held whole while it is read


@pytest.mark.parametrize(
    ("trouble", "error", "message"),
    [
        (ImportError("no hub"), ope.MissingDependencyError, r"\(no hub\): pip install 'lfiw-ope"),
        (OSError("no network"), ope.DataError, r"here or by download \(OSError: no netw"),
    ],
)
def test_what_is_not_here_is_asked_for_from_afar(monkeypatch, trouble, error, message):
    """As it goes without what downloads, or without a network; no test may depend on either."""
    asked = []

    def download(dataset_id):
        asked.append(dataset_id)
        raise trouble

    monkeypatch.setattr("minari.storage.hosting.download_dataset", download)
    with pytest.raises(error, match=message):
        ope.load_data("kinds/elsewhere-v0")
    assert asked == ["kinds/elsewhere-v0"]


@pytest.mark.filterwarnings("ignore:.*is set to None", "ignore:.*env_spec")
def test_action_spaces_that_are_not_supported_are_refused():
    data_set, _ = record(OBSERVATIONS["float64"], spaces.MultiDiscrete([3, 2]), "hdf5")
    with pytest.raises(ope.DataError, match="number its 6 combinations"):
        ope.load_minari(data_set)


def test_what_the_environment_was_made_with_survives(tmp_path):
    env = gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync", g=5.0)

    class Still:
        state_size, action_size = 3, 1

        def act(self, state, generator):  # noqa: ARG002
            return 0 * state[..., :1]

    before = ope.collect(env, Still(), episodes=2, seed=0)
    assert dict(before.env_kwargs) == {"g": 5.0}
    folder = ope.save_minari(before, tmp_path / "log", dataset_id="own/log-v0")
    after = ope.load_minari(folder)
    assert (after.env_id, dict(after.env_kwargs)) == ("Pendulum-v1", {"g": 5.0})
    made = minari.MinariDataset(folder / "data").recover_environment()
    assert made.unwrapped.g == 5.0


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("observation", ["dict", "tuple", "discrete"])
def test_observations_in_parts_are_collected_flat(observation, mode):
    space = OBSERVATIONS[observation]
    said = [[] for _ in range(3)]

    class Noting(gym.ObservationWrapper):
        def __init__(self, notes):
            super().__init__(gym.wrappers.TimeLimit(Sampled(space, ACTIONS["bounded"]), 5))
            self.notes = notes

        def observation(self, observation):
            self.notes.append(spaces.flatten(space, observation).astype(np.float32))
            return observation

    class Constant:
        state_size, action_size = spaces.flatdim(space), 2

        def act(self, state, generator):  # noqa: ARG002
            return 0 * state[..., :2] + 0.1

    env = gym.vector.SyncVectorEnv(
        [lambda notes=notes: Noting(notes) for notes in said], autoreset_mode=mode
    )
    data = ope.collect(env, Constant(), episodes=3, seed=0)
    for i, notes in enumerate(said):  # each environment's first episode
        states = data.states[data.state_offsets[i] : data.state_offsets[i + 1]]
        np.testing.assert_array_equal(states, np.stack(notes[: len(states)]))

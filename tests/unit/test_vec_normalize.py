"""The restricted reader of VecNormalize's pickle: what it reads, and what it refuses."""

import os
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import lfiw_ope as ope


def moved():
    """A VecNormalize whose statistics have moved."""
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), clip_obs=1.5, epsilon=1e-3)
    env.reset()
    for _ in range(50):
        env.step([env.action_space.sample()])
    return env


def saved(wrapper, path, protocol=pickle.HIGHEST_PROTOCOL):
    path.write_bytes(pickle.dumps(wrapper, protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("numpy_1", [False, True])
def test_statistics_normalise_as_vec_normalize_does(protocol, numpy_1, tmp_path):
    wrapper = moved()
    path = saved(wrapper, tmp_path / "statistics.pkl", protocol)
    if numpy_1 and protocol == 3:  # names are lines of text: as NumPy 1 would have written them
        path.write_bytes(path.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core."))
    raw = np.random.default_rng(0).normal(0, 3, (100, 3)).astype(np.float32)
    expected = wrapper.normalize_obs(raw)
    assert (np.abs(expected) == 1.5).any()
    found = ope.load_vec_normalize(path)(torch.from_numpy(raw))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-7)


def test_fortran_order_and_other_dtypes_are_decoded(tmp_path):
    """Statistics of a two-dimensional Box, kept transposed and in float32 and big-endian."""
    other = moved()
    other.obs_rms.mean = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    other.obs_rms.var = np.arange(1, 7).reshape(2, 3).astype(">f8")
    found = ope.load_vec_normalize(saved(other, tmp_path / "statistics.pkl"))
    assert found.mean.tolist() == [[0, 1, 2, 3, 4, 5]]
    np.testing.assert_allclose(found.std.numpy()[0], np.sqrt(np.arange(1, 7) + 1e-3))


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Builds:
    """Pickles as an array whose state is `state`."""

    def __init__(self, *state):
        self.state = state

    def __reduce__(self):
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state


TARGET = "executed"
ATTACKS = {
    "os.system": lambda: Calls(os.system, f"touch {TARGET}"),
    "eval": lambda: Calls(eval, f"open('{TARGET}', 'w')"),
    "getattr chain": lambda: Calls(getattr, Calls(__import__, "os"), "system"),
    "numpy.load": lambda: Calls(np.load, TARGET, None, True),
    "numpy.memmap": lambda: Calls(np.memmap, TARGET, "u1", "w+", 0, (8,)),
    "numpy.fromfile": lambda: Calls(np.fromfile, TARGET),
    "numpy.save": lambda: Calls(np.save, TARGET, [1]),
    "numpy.vectorize": lambda: Calls(np.vectorize, len),
    "a real VecNormalize's method": lambda: Calls(VecNormalize.load, TARGET, None),
    "functools.partial": lambda: Calls(__import__("functools").partial, os.system, "true"),
    "copyreg": lambda: Calls(__import__("copyreg").add_extension, "os", "system", 240),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("where", ["whole", "mean", "space", "dtype"])
def test_a_malicious_pickle_is_refused_unexecuted(attack, where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    payload = ATTACKS[attack]()
    (tmp_path / "statistics.pkl").write_bytes(hidden(payload, where))
    before = set(os.listdir())
    with pytest.raises(ope.UntrustedFileError, match=r"asks for .*it was not executed"):
        ope.load_vec_normalize("statistics.pkl")
    assert set(os.listdir()) == before


def hidden(payload, where):
    """A whole VecNormalize with the payload somewhere in it."""
    if where == "whole":
        return pickle.dumps(payload)
    other = moved()
    if where == "space":
        other.observation_space = payload
    else:
        state = (1, (3,), payload, False, bytes(24))
        other.obs_rms.mean = payload if where == "mean" else Builds(*state)
    return pickle.dumps(other)


HARMLESS = {
    "objects": lambda: np.array([1.0, None, []], dtype=object),
    "objects as bytes": lambda: Builds(1, (1,), Calls(np.dtype, "O8"), False, bytes(8)),
    "too few bytes": lambda: Builds(1, (1000,), np.dtype("f8"), False, bytes(8)),
    "a huge shape": lambda: Builds(1, (2**62,), np.dtype("f8"), False, bytes(8)),
    "structured": lambda: np.zeros(3, dtype=[("x", "f8")]),
    "text": lambda: np.array(["1", "2"]),
    "no array": lambda: "1",
    "a dictionary": lambda: {"mean": 1},
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_arrays_that_are_no_plain_numbers_are_refused(kind, tmp_path):
    (tmp_path / "statistics.pkl").write_bytes(hidden(HARMLESS[kind](), "mean"))
    with pytest.raises(ope.DataError, match=r"statistics\.pkl"):
        ope.load_vec_normalize(tmp_path / "statistics.pkl")


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", pickle.dumps([1, 2]), b"\x80\x04\x95", b"]" * 10]
)
def test_what_is_no_vec_normalize_is_refused(content, tmp_path):
    path = tmp_path / "statistics.pkl"
    with pytest.raises(ope.DataError, match="There is no file"):
        ope.load_vec_normalize(path)
    path.write_bytes(content)
    with pytest.raises(ope.DataError, match=r"not what VecNormalize\.save writes"):
        ope.load_vec_normalize(path)


def test_observations_that_are_not_normalised_are_said(tmp_path):
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), norm_obs=False)
    path = saved(env, tmp_path / "statistics.pkl")
    with pytest.raises(ope.PolicyError, match=r"norm_obs=False.*leave vec_normalize out"):
        ope.load_vec_normalize(path)


def test_dictionaries_are_said_not_to_work(tmp_path):
    class Two(gym.Env):
        observation_space = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (2,))})
        action_space = gym.spaces.Discrete(2)

    path = saved(VecNormalize(DummyVecEnv([Two])), tmp_path / "statistics.pkl")
    with pytest.raises(ope.PolicyError, match="Dict observations"):
        ope.load_vec_normalize(path)


def test_numbers_that_are_no_statistics_are_refused():
    make = ope.ObservationNormaliser.of
    with pytest.raises(ope.PolicyError, match="not finite or not positive"):
        make([0.0], [np.nan], epsilon=1e-8, clip=10)
    with pytest.raises(ope.PolicyError, match="not finite or not positive"):
        make([0.0], [-1.0], epsilon=1e-8, clip=10)
    with pytest.raises(ope.PolicyError, match="shapes"):
        make([0.0, 1.0], [1.0], epsilon=1e-8, clip=10)

"""Environments are made without a word on the terminal or a file in the working folder."""

import warnings

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from lfiw_envs import making

MODEL = """
<mujoco><worldbody><body><joint type="slide"/><geom size="1"/></body></worldbody></mujoco>
"""


class UnstableMujoco(gym.Env):
    """MuJoCo warns of it while it is made: its velocity is no number."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        model = mujoco.MjModel.from_xml_string(MODEL)
        data = mujoco.MjData(model)
        for _ in range(2):
            data.qvel[0] = np.nan
            mujoco.mj_step(model, data)


@pytest.fixture
def unstable():
    gym.register("Unstable-v0", entry_point=UnstableMujoco)
    yield "Unstable-v0"
    gym.registry.pop("Unstable-v0")


def test_what_mujoco_warns_of_is_a_python_warning(unstable, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = mujoco.get_mju_user_warning()
    with pytest.warns(RuntimeWarning, match=r"MuJoCo, of Unstable-v0: .*QVEL") as told:
        making.make(unstable, 10, {})
    assert len(told) == 1
    assert mujoco.get_mju_user_warning() is before
    # In C an exception would end the process.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            making.make(unstable, 10, {})
    assert mujoco.get_mju_user_warning() is before
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []
    # And without this it says it so.
    gym.make(unstable)
    assert "QVEL" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["MUJOCO_LOG.TXT"]


def test_gymnasium_s_own_models_are_made_in_silence(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for env_id in ("HalfCheetah-v5", "CartPole-v1"):
        making.make_vector(env_id, 10, {}, 2).close()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_made_is_said_by_gymnasium():
    for env_id in ("Nothing-v0", "nothing_at_all:Nothing-v0"):
        with pytest.raises((gym.error.Error, ModuleNotFoundError), match=r"[Nn]othing"):
            making.make(env_id, 10, {})

"""Environments are made without a word on the terminal or a file in the working folder."""

import logging
import subprocess
import sys

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from lfiw_envs import making

MODEL = """
<mujoco><worldbody><body><joint type="slide"/><geom size="1"/></body></worldbody></mujoco>
"""


class Unstable(gym.Env):
    """MuJoCo warns of it while it is made: its velocity is no number."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, fails=False):
        model = mujoco.MjModel.from_xml_string(MODEL)
        data = mujoco.MjData(model)
        for _ in range(2):
            data.qvel[0] = np.nan
            mujoco.mj_step(model, data)
        if fails:
            raise RuntimeError("it cannot be made")


@pytest.fixture
def unstable():
    gym.register("Unstable-v0", entry_point=Unstable)
    yield "Unstable-v0"
    gym.registry.pop("Unstable-v0")


@pytest.fixture
def silent(tmp_path, monkeypatch, capfd):
    """That nothing was said or written, by now."""
    monkeypatch.chdir(tmp_path)

    def told():
        assert capfd.readouterr() == ("", "")
        assert list(tmp_path.iterdir()) == []

    return told


def test_what_mujoco_warns_of_is_logged(unstable, silent, tmp_path, capfd, caplog):
    before = mujoco.get_mju_user_warning()
    making.make(unstable, 10, {})
    with pytest.raises(RuntimeError, match="cannot be made"):
        making.make(unstable, 10, {"fails": True})
    assert mujoco.get_mju_user_warning() is before
    silent()
    assert [(one.levelname, one.name) for one in caplog.records] == [
        ("WARNING", "lfiw_envs.making")
    ] * 2
    assert all("MuJoCo, of Unstable-v0: " in one.message for one in caplog.records)
    assert all("QVEL" in one.message for one in caplog.records)
    # By itself it says it so.
    gym.make(unstable)
    assert "QVEL" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["MUJOCO_LOG.TXT"]


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "gymnasium:HalfCheetah-v5", "CartPole-v1"])
def test_gymnasium_s_own_models_are_made_in_silence(env_id, silent, caplog):
    making.make_vector(env_id, 10, {}, 2).close()
    silent()
    assert all(one.levelno < logging.WARNING for one in caplog.records)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "gymnasium:HalfCheetah-v5", "CartPole-v1"])
def test_so_they_are_by_the_first_that_imports_mujoco(env_id, tmp_path):
    code = (
        "import sys; from lfiw_envs import making\n"
        f"making.make({env_id!r}, 10, {{}})\n"
        "print('mujoco' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.stderr, done.stdout) == ("", f"{'Cheetah' in env_id}\n")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_made_is_said_by_gymnasium(silent):
    for env_id in ("Nothing-v0", "nothing_at_all:Nothing-v0"):
        with pytest.raises((gym.error.Error, ModuleNotFoundError), match=r"[Nn]othing"):
            making.make(env_id, 10, {})
    silent()


@pytest.mark.parametrize(
    ("env_id", "own"),
    [
        ("lfiw_envs.stochastic:Ledge-v0", True),
        ("lfiw_envs.stochastic:PushedHopper-v0", False),
        ("CartPole-v1", False),  # Gymnasium has one, and shipped logs were played in copies
        ("Nothing-v0", False),
    ],
)
def test_an_environment_s_own_vector_is_used_unless_it_is_of_gymnasium(env_id, own):
    assert making.is_vectorised(env_id) == own
    if env_id != "Nothing-v0":
        vector = making.make_vector(env_id, 10, {}, 2)
        assert isinstance(vector, gym.vector.SyncVectorEnv) != own
        assert vector.num_envs == 2
        vector.close()

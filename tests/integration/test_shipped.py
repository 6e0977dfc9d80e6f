"""What is shipped: policies, values, and a wheel that carries them."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from lfiw_envs import TASKS, get_task
from safetensors import safe_open

import lfiw_ope as ope

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.parametrize("policy", ["behaviour", "target"])
def test_measured_values_repeat(name, policy):
    """30 new episodes, within 4 standard errors of the difference."""
    task = TASKS[name]
    value = task.value(policy)
    assert value.episodes >= 1000
    actor = ope.load_actor(task.policy_path(policy))
    returns = ope.collect(task.make_vector(20), actor, episodes=30, seed=5).returns()
    error = np.hypot(returns.std(ddof=1) / np.sqrt(30), value.standard_error)
    assert abs(returns.mean() - value.mean) < 4 * error


@pytest.mark.parametrize("name", list(TASKS))
def test_files_are_small_and_hold_tensors_only(name):
    for policy in TASKS[name].policies:
        path = TASKS[name].policy_path(policy)
        assert path.stat().st_size < 400_000
        with safe_open(path, framework="pt") as file:
            assert file.metadata()["head"] == "gaussian"
    assert "--seed" in json.loads(path.with_name("values.json").read_text())["command"]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no task 'hopper'; choose one of swimmer"):
        get_task("hopper")
    with pytest.raises(ValueError, match="no policy 'expert'; it ships behaviour, target"):
        get_task("swimmer").value("expert")


def test_the_wheel_works_outside_the_clone(tmp_path):
    """Built, installed in an empty venv, used from another folder; dependencies are lent to it."""
    source = tmp_path / "source"  # a copy: building leaves a build/ behind
    for folder in ("lfiw_ope", "envs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, source]
    subprocess.run(wheel, check=True, capture_output=True)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    (built,) = tmp_path.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "-q", built]
    subprocess.run(install, check=True, capture_output=True)
    site = next(venv.glob("lib/python*/site-packages"))
    # A .pth of a folder lends its packages, but not the editable install that a .pth in it makes.
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    code = (
        "import lfiw_ope, lfiw_envs, pathlib, importlib.resources as r\n"
        "task = lfiw_envs.get_task('swimmer')\n"
        "print(lfiw_ope.load_actor(task.policy_path('target')).state_size)\n"
        "print(task.value('target').episodes >= 1000)\n"
        "print(lfiw_ope.__file__); print(lfiw_envs.__file__)\n"
        "print((r.files('lfiw_ope') / 'py.typed').is_file())\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
    )
    size, measured, library, environments, typed = done.stdout.split()
    assert (size, measured, typed) == ("8", "True", "True")
    assert library.startswith(str(venv))
    assert environments.startswith(str(venv))

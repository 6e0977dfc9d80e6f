"""`lfiw-ope compare`, as a user meets it: Pendulum's real log, policy files, a real process."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import lfiw_ope as ope
from lfiw_ope.evaluation import Comparison
from lfiw_ope.policies import GaussianHead

COMMAND = Path(sys.executable).with_name("lfiw-ope")
T = 12
ESTIMAND = ope.Estimand(horizon=T)


def actor(seed, gain, state_size=3):
    """Near to one another, so that weights of logged episodes mean something."""
    generator = torch.Generator().manual_seed(seed)
    weights = [gain * torch.randn((state_size, 1), generator=generator) / state_size]
    head = GaussianHead(torch.zeros(1, 1), torch.full((1, 1), -2.0), torch.full((1, 1), 2.0))
    return ope.MLPPolicy.from_layers(weights, [torch.zeros(1)], head, activation="tanh")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a log, three policies and their true values, made up."""
    folder = tmp_path_factory.mktemp("work")
    env = gym.make_vec("Pendulum-v1", 10, max_episode_steps=T, vectorization_mode="sync")
    data = ope.collect(env, actor(0, 0.1), episodes=20, seed=0)
    ope.save_minari(data, folder / "log", dataset_id="pendulum/log-v0")
    for name, seed in (("one", 1), ("two", 2), ("three", 3)):
        ope.save_actor(actor(seed, 0.3), folder / "agents" / f"{name}.safetensors")
    ope.save_actor(actor(0, 0.3, state_size=8), folder / "swimmer.safetensors")
    (folder / "broken.zip").write_text("no zip")
    (folder / "notes.txt").write_text("no policy")
    (folder / "truth.json").write_text('{"one": -60, "two": {"value": -70.5}, "four": 1}')
    (folder / "other.csv").write_text("policy,value\nelse,1\n")
    return folder


def comparison(*words, estimators="model,wis,behaviour", policies="agents/*.safetensors"):
    found = ("compare", "--data", "log", "--policies", policies, "--horizon", str(T))
    return *found, "--estimators", estimators, *words


QUICK = ("--updates", "20", "--rollouts", "20")


def table(folder):
    return Comparison.from_json((folder / "comparison.json").read_text())


def numbers(result):
    """All that a run says again: everything but the seconds."""
    return [{**row.to_dict(), "seconds": None} for row in result.rows]


def test_a_comparison_is_told_and_saved(place, command_line):
    words = comparison(*QUICK, "--seeds", "2", "--truth", "truth.json", "--output", "results")
    status, printed, said = command_line(*words, cwd=place)
    assert (status, said) == (0, "")
    assert "\x1b" not in printed
    folder = place / "results"
    result = table(folder)
    assert result.estimators == ("model", "wis", "behaviour")
    assert result.policies == ("one", "three", "two")
    assert result.seeds == (0, 1)
    assert result.truth == {"one": -60.0, "two": -70.5}
    assert "truth.json has no true value of three." in printed
    assert "There is no policy for the true value of four." in printed
    # The numbers are those of the library, by itself.
    data = ope.load_minari(place / "log")
    policy = ope.load_actor(place / "agents" / "two.safetensors")
    alone = ope.WIS(ESTIMAND).fit(data, seed=1).estimate(policy)
    [row] = [r for r in result.rows if (r.estimator, r.policy, r.seed) == ("wis", "two", 1)]
    assert row.value == pytest.approx(alone.value)
    shown = np.mean([r.value for r in result.rows if (r.estimator, r.policy) == ("model", "two")])
    assert f"{shown:.4g} ±" in printed
    for heading in ("Pendulum-v1: termination: never", "Against the truth", "Spearman", "policies"):
        assert heading in printed
    stored = json.loads((folder / "comparison.json").read_text())
    assert stored["command"].startswith("lfiw-ope compare --data log")
    assert stored["policies"]["two"] == "agents/two.safetensors"
    assert {score["metric"] for score in stored["summary"]} >= {"Kendall", "regret@k", "RMSE"}
    with (folder / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(one["value"]) for one in rows] == pytest.approx([r.value for r in result.rows])
    for name in ("estimates.png", "truth.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    assert len(list((folder / "cells").glob("*.json"))) == 6
    assert "results/estimates.png and results/truth.png." in printed


def test_a_killed_run_goes_on_and_ends_with_the_same_table(place, command_line):
    words = comparison(*QUICK, "--seeds", "2")
    process = subprocess.Popen(
        [COMMAND, *words, "--output", "killed"],
        cwd=place,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    cells = place / "killed" / "cells"
    while not list(cells.glob("*.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (place / "killed" / "comparison.json").exists()
    before = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert len(before) < 6
    status, _, said = command_line(*words, "--output", "killed", cwd=place)
    assert status == 2
    assert "killed holds a comparison; add --resume to go on with it" in said
    status, _, said = command_line(*words, "--output", "killed", "--resume", cwd=place)
    assert (status, said) == (0, "")
    after = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert len(after) == 6
    assert before.items() <= after.items()  # nothing was done twice
    assert command_line(*words, "--output", "whole", cwd=place)[0] == 0
    assert numbers(table(place / "killed")) == numbers(table(place / "whole"))


def test_more_seeds_go_on_and_other_settings_do_not(place, command_line):
    words = comparison("--output", "more", estimators="wis,behaviour")
    assert command_line(*words, cwd=place)[0] == 0
    assert command_line(*words, "--resume", "--seeds", "2", cwd=place)[0] == 0
    assert table(place / "more").seeds == (0, 1)
    status, _, said = command_line(*words, "--resume", "--discount", "0.5", cwd=place)
    assert status == 2
    assert "more holds another run" in said
    assert len(said.strip().splitlines()) == 1


def test_json_is_all_that_stdout_holds(place, command_line):
    words = comparison("--json", estimators="behaviour,wis")
    status, printed, said = command_line(*words, cwd=place)
    assert status == 0
    found = json.loads(printed)
    assert [row["estimator"] for row in found["rows"]] == ["behaviour"] * 3 + ["wis"] * 3
    assert "compare 2/2" in said  # the progress


def test_a_pattern_that_the_shell_filled_in_is_as_good(place, command_line):
    agents = sorted((place / "agents").iterdir())
    first, *others = (str(path.relative_to(place)) for path in agents)
    words = comparison("--json", *others, estimators="behaviour", policies=first)
    _, printed, _ = command_line(*words, cwd=place)
    assert list(json.loads(printed)["policies"]) == ["one", "three", "two"]


def test_a_task_of_ones_own_is_known_in_other_processes(place, command_line):
    (place / "own_task.py").write_text(
        "from lfiw_envs import EnvironmentRules\n"
        "def one(state, action, next_state):\n"
        "    return next_state[..., 0] * 0 + 1\n"
        "TASK = EnvironmentRules(env_id='Mine-v0', reward=one)\n"
    )
    words = comparison(
        *QUICK, "--env", "own_task:TASK", "--jobs", "2", "--json", estimators="model"
    )
    status, printed, said = command_line(*words, cwd=place)
    assert status == 0, said
    values = [row["value"] for row in json.loads(printed)["rows"]]
    assert values == pytest.approx([float(T)] * 3)


def test_what_fails_is_said_with_its_reason(place, command_line):
    words = comparison("--deterministic", "--seeds", "2")
    status, printed, _ = command_line(*words, *QUICK, cwd=place)
    assert status == 0
    assert "wis failed for every policy: A deterministic policy has no density" in printed
    assert printed.count("has no density") == 1
    words = comparison("--deterministic", estimators="wis,pdis")
    assert command_line(*words, cwd=place)[0] == 1


def test_what_the_data_cannot_tell_is_refused(place, command_line):
    ope.save_actor(actor(5, 40.0), place / "far" / "far.safetensors")
    words = comparison("--refuse", estimators="wis,behaviour", policies="far/*")
    status, printed, _ = command_line(*words, cwd=place)
    assert status == 0
    assert "wis refused for every policy: " in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"policies": "nothing/*.zip"}, "There is no policy file nothing/*.zip."),
        ({"words": ("stray.zip",)}, "There is no policy file stray.zip."),
        ({"policies": "notes.txt"}, "notes.txt ends in .txt; a policy is a .safetensors"),
        ({"policies": "broken.zip"}, "broken.zip"),
        ({"policies": "swimmer.safetensors"}, "takes 8 state entries"),
        ({"estimators": "wis,voodoo"}, "estimator is 'voodoo'; it must be one of lfiw, model"),
        ({"estimators": " , "}, "--estimators is ' , '; name one or more"),
        ({"estimators": "wis,fqe", "words": ("--rollouts", "9")}, "the estimator 'wis' simulates"),
        ({"words": ("--rollouts", "1")}, "rollouts is 1; it must be a whole number, 2 or more"),
        ({"words": ("--seeds", "0")}, "seeds is 0; it must be a whole number, 1 or more"),
        ({"words": ("--k", "0")}, "k is 0; it must be a whole number, 1 or more"),
        ({"words": ("--jobs", "0")}, "jobs is 0; it must be a whole number, 1 or more"),
        ({"words": ("--engine", "dask")}, "Invalid value for '--engine'"),
        ({"words": ("--truth", "none.json")}, "There is no file none.json of true values"),
        ({"words": ("--truth", "notes.txt")}, "notes.txt is neither JSON nor, by its name, CSV"),
        ({"words": ("--truth", "other.csv")}, "has the true values of else, and the policies"),
        ({"words": ("--resume",)}, "--resume goes on with a folder; name it by --output"),
        ({"words": ("--output", "notes.txt")}, "The output notes.txt is a file"),
        ({"words": ("--trust",)}, "trust does not apply to any of the 3 policy files"),
        ({"words": ("--device", "warp")}, "The device 'warp' cannot be used"),
        ({"words": ("--horizon", "0")}, "The horizon is 0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(place, words, message, command_line):
    before = sorted(path.name for path in place.iterdir())
    words = dict(words)
    status, _, said = command_line(*comparison(*words.pop("words", ()), **words), cwd=place)
    assert status == 2, said
    assert message in said
    assert said.startswith("lfiw-ope: ")
    assert len(said.strip().splitlines()) == 1
    assert sorted(path.name for path in place.iterdir()) == before

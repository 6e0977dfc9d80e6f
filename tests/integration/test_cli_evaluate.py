"""`lfiw-ope evaluate` and `info`, as a user meets them: Pendulum's real log, real policy files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch

import lfiw_ope as ope
from lfiw_ope.policies import GaussianHead

COMMAND = Path(sys.executable).with_name("lfiw-ope")


def run(*words, cwd):
    return subprocess.run([COMMAND, *words], capture_output=True, text=True, cwd=cwd, check=False)


def actor(state_size, action_size, bound, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.randn((a, b), generator=generator) / a**0.5
        for a, b in ((state_size, 16), (16, action_size))
    ]
    limit = torch.full((1, action_size), bound)
    head = GaussianHead(torch.zeros(1, action_size), -limit, limit)
    biases = [torch.zeros(16), torch.zeros(action_size)]
    return ope.MLPPolicy.from_layers(weights, biases, head, activation="tanh")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with one log in each kind of file, and policies."""
    folder = tmp_path_factory.mktemp("work")
    behaviour = actor(3, 1, 2.0, seed=0)
    env = gym.make_vec("Pendulum-v1", 10, max_episode_steps=30, vectorization_mode="sync")
    data = ope.collect(env, behaviour, episodes=20, seed=0)
    ope.save_minari(data, folder / "log", dataset_id="pendulum/log-v0")
    rows = data.transitions()
    ends = np.zeros(data.num_transitions, bool)
    ends[data.offsets[1:] - 1] = True
    columns = {
        "observations": rows.state,
        "actions": rows.action,
        "rewards": rows.reward,
        "next_observations": rows.next_state,
        "terminals": rows.terminated,
        "timeouts": ends,
    }
    with h5py.File(folder / "log.hdf5", "w") as file:
        for name, values in columns.items():
            file[name] = values
    rewards = rows.reward.copy()
    rewards[[7, 9]] = np.nan
    np.savez(folder / "nan.npz", **(columns | {"rewards": rewards}))
    bare = {name: values for name, values in columns.items() if name != "next_observations"}
    np.savez(folder / "bare.npz", **bare)
    np.savez(folder / "empty.npz", **{name: values[:0] for name, values in columns.items()})
    (folder / "notes.txt").write_text("no data")
    ope.save_actor(actor(3, 1, 2.0, seed=1), folder / "target.safetensors")
    ope.save_actor(actor(8, 2, 1.0, seed=1), folder / "swimmer.safetensors")
    (folder / "broken.py").write_text("TASK = (")
    (folder / "own.py").write_text(
        "from lfiw_envs import EnvironmentRules\n"
        "def one(state, action, next_state):\n"
        "    return next_state[..., 0] * 0 + 1\n"
        "TASK = EnvironmentRules(env_id='Mine-v0', reward=one)\n"
    )
    return folder


def evaluation(*words, data="log", policy="target.safetensors", horizon="30"):
    return "evaluate", "--data", data, "--policy", policy, "--horizon", horizon, *words


QUICK = ("--updates", "10", "--rollouts", "50")


def test_a_policy_is_evaluated_and_saved(place, command_line):
    words = evaluation(*QUICK, "--seed", "3", "--discount", "0.9", "--output", "results")
    status, told, said = command_line(*words, cwd=place)
    assert (status, said) == (0, "")
    assert "\x1b" not in told
    saved = json.loads((place / "results" / "evaluate_target.json").read_text())
    names = [estimate["estimator"] for estimate in saved["estimates"]]
    assert names in (["LFIW"], ["LFIW", "model"])  # without weights or with, as was chosen
    assert "loss[bootstrap + SIR 16]" in saved["estimates"][0]["diagnostics"]
    for estimate in saved["estimates"]:
        assert estimate["estimand"] == {"horizon": 30, "discount": 0.9}
        assert estimate["seed"] == 3
        assert len(estimate["returns"]) == 50
        assert f"{estimate['value']:.4g}" in told
        widest = estimate["intervals"][-1]
        assert widest["level"] == 0.95
        assert re.search(rf"95 % \[{widest['low']:.4g}0*, {widest['high']:.4g}0*\]", told)
    data = ope.load_minari(place / "log")
    assert saved["behaviour"]["mean"] == pytest.approx(data.returns(30, 0.9).mean())
    assert saved["rules"].startswith("Pendulum-v1: termination: never; reward: exact")
    assert saved["command"].startswith("lfiw-ope evaluate --data log --policy target.safetensors")
    assert (place / "results" / "evaluate_target.png").read_bytes()[:4] == b"\x89PNG"
    assert "Saved results/evaluate_target.json" in told
    # The same command gives the same numbers, and says that it replaced the old ones.
    _, printed, _ = command_line(*words, cwd=place)
    assert "in place of an earlier run's" in printed
    values = [estimate["value"] for estimate in saved["estimates"]]
    renewed = json.loads((place / "results" / "evaluate_target.json").read_text())
    assert [estimate["value"] for estimate in renewed["estimates"]] == values


def test_what_the_data_can_tell_is_printed_and_a_number_they_cannot_is_refused(place, command_line):
    words = evaluation("--estimator", "wis", "--updates", "100", "--output", "told")
    status, printed, _ = command_line(*words, cwd=place)
    assert status == 0
    saved = json.loads((place / "told" / "evaluate_target.json").read_text())
    diagnosis = ope.Diagnosis.from_dict(saved["diagnosis"])
    for line in diagnosis.lines():
        assert line in printed
    assert diagnosis.warnings  # another network of random weights, far from the behaviour
    for warning in diagnosis.warnings:
        assert f"Warning: {warning}" in printed
    status, printed, said = command_line(
        *evaluation("--estimator", "wis", "--updates", "100", "--refuse"), cwd=place
    )
    assert status == 1
    assert "lfiw-ope: The data cannot tell this value: " in said
    value = saved["estimates"][0]["value"]
    assert f"{value:.4g}" not in printed + said


def test_json_is_all_that_stdout_holds(place):
    """Of a process: what C code or a warning says there is heard nowhere else."""
    words = evaluation(*QUICK, "--estimator", "model", "--json", data="log.hdf5")
    done = run(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [estimate["estimator"] for estimate in found["estimates"]] == ["model"]
    assert "dynamics" in done.stderr  # the progress
    # The file does not name its environment, so nothing is known of it.
    assert found["rules"].startswith("reward and termination: learned")


def test_a_task_of_ones_own_is_a_record(place, command_line):
    words = evaluation(*QUICK, "--env", "own:TASK", "--estimator", "model", "--json")
    found = json.loads(command_line(*words, cwd=place)[1])
    assert found["estimates"][0]["value"] == pytest.approx(30.0)
    assert found["rules"].startswith("Mine-v0")


def test_known_rules_are_used_unless_told_not_to(place, command_line):
    words = ("--env", "Pendulum-v1", "--estimator", "model", "--json", *QUICK)
    exact, learned = (
        json.loads(command_line(*evaluation(*words, *more, data="log.hdf5"), cwd=place)[1])
        for more in ((), ("--learn-rules",))
    )
    assert exact["rules"].startswith("Pendulum-v1")
    assert learned["rules"].startswith("reward and termination: learned")
    assert exact["estimates"][0]["value"] != learned["estimates"][0]["value"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"horizon": "0"}, "The horizon is 0; it must be a whole number, 1 or more"),
        ({"horizon": "ten"}, "Invalid value for '--horizon'"),
        ({"words": ("--discount", "1.5")}, "The discount is 1.5; it must be a number, in [0, 1]"),
        ({"words": ("--discount", "nan")}, "The discount is nan"),
        ({"words": ("--seed", "-1")}, "The seed is -1"),
        ({"words": ("--estimator", "voodoo")}, "estimator is 'voodoo'; it must be one of lfiw"),
        ({"words": ("--device", "warp")}, "The device 'warp' cannot be used"),
        ({"words": ("--precision", "float8")}, "Invalid value for '--precision'"),
        ({"words": ("--rollouts", "1")}, "rollouts is 1; it must be a whole number, 2 or more"),
        ({"words": ("--updates", "0")}, "updates is 0"),
        ({"words": ("--episodes", "0")}, "episodes is 0"),
        ({"words": ("--episodes", "3")}, "The data hold 3 episodes; at least 4 are needed"),
        ({"words": ("--output", "notes.txt")}, "The output notes.txt is a file"),
        ({"words": ("--output", "notes.txt/deep")}, "The output notes.txt/deep is a file"),
        ({"words": ("--env", "Walker2d-v5")}, "The states have 3 entries, and Walker2d-v5"),
        ({"words": ("--env", "nothing:HERE")}, "nothing:HERE cannot be imported"),
        ({"words": ("--env", "broken:TASK")}, "broken:TASK cannot be imported (SyntaxError"),
        ({"words": ("--env", "Pendulm-v1")}, "Gymnasium knows no environment 'Pendulm-v1'"),
        ({"words": ("--env", "MountainCarContinuous-v0")}, "The states have 3 entries"),
        ({"words": ("--device", "meta")}, "The device 'meta' cannot be used; expected cpu, cuda"),
        ({"words": ("--output", "none/../notes.txt")}, "is a file; name a folder"),
        (
            {"data": "bare.npz", "words": ("--drop-terminal",)},
            "the termination rule must be known; pass the --env",
        ),
        ({"words": ("--env", "own:one")}, "own:one is a function; expected an lfiw_envs.Environ"),
        (
            {"words": ("--frobnicate",)},
            "No such option: --frobnicate; see lfiw-ope evaluate",
        ),
        ({"words": ("--trust",)}, "trust does not apply to a .safetensors file"),
        ({"data": "nothere"}, "There is no file or folder nothere, and a Minari id looks like"),
        ({"data": "nothere.hdf5"}, "There is no file nothere.hdf5"),
        ({"data": "notes.txt"}, "notes.txt is no kind of file that is known"),
        ({"data": "empty.npz"}, "empty.npz"),
        ({"data": "nan.npz"}, "rewards holds 2 entries that are not finite, the first in row 7"),
        ({"policy": "none.zip"}, "There is no policy file none.zip"),
        ({"policy": "notes.txt"}, "notes.txt ends in .txt; a policy is a .safetensors file"),
        (
            {"policy": "swimmer.safetensors"},
            "swimmer.safetensors takes 8 state entries; it is a policy of",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(place, words, message, command_line):
    before = sorted(path.name for path in place.iterdir())
    words = dict(words)
    status, _, said = command_line(*evaluation(*words.pop("words", ()), **words), cwd=place)
    assert status == 2
    assert message in said
    assert said.startswith("lfiw-ope: ")
    assert len(said.strip().splitlines()) == 1
    assert sorted(path.name for path in place.iterdir()) == before


def test_a_run_that_fails_says_so(place, command_line):
    words = evaluation(*QUICK, "--output", "/proc/none", "--estimator", "model")
    status, _, said = command_line(*words, cwd=place)
    assert status == 1
    assert said.startswith("lfiw-ope: The run failed: [Errno")


def test_memory_that_runs_out_is_one_sentence(place, command_line):
    words = evaluation("--updates", "2", "--rollouts", str(10**14), "--estimator", "model")
    status, _, said = command_line(*words, cwd=place)
    assert status == 1
    assert said.startswith("lfiw-ope: The run failed for want of memory")
    assert len(said.strip().splitlines()) == 1


def test_info_says_what_is_in_a_log(place, command_line):
    status, printed, said = command_line("info", "log", "--output", "pictures", cwd=place)
    assert (status, said) == (0, "")
    data = ope.load_minari(place / "log")
    for said in (
        "environment        Pendulum-v1",
        "20: 0 terminated, 20 truncated",
        f"mean {data.returns().mean():.6g}",
        "3 entries",
        "1 continuous, in [-2, 2]",
        "carried, of the behaviour's own draws, before clipping",
        "not finite         none",
    ):
        assert said in printed
    assert (place / "pictures" / "info_log.png").read_bytes()[:4] == b"\x89PNG"
    saved = json.loads((place / "pictures" / "info_log.json").read_text())
    assert saved["returns"]["lowest"] == pytest.approx(data.returns().min())
    assert saved == json.loads(command_line("info", "log", "--json", cwd=place)[1])


def test_info_counts_nan_and_goes_on(place, command_line):
    status, printed, _ = command_line("info", "nan.npz", "--env", "Pendulum-v1", cwd=place)
    assert status == 0
    assert "not finite         2 entries of rewards" in printed
    assert "nothing can be estimated" in printed


def test_what_a_reader_leaves_out_is_said_in_a_plain_line(place, command_line):
    status, printed, said = command_line("info", "bare.npz", cwd=place)
    assert (status, said) == (0, "")
    assert printed.startswith("Warning: ")
    assert "last transition" in printed.splitlines()[0]


@pytest.mark.parametrize(
    "words", [("info", "nothere"), ("info",), ("info", "log", "--episodes", "0")]
)
def test_info_refuses_in_one_sentence(place, words, command_line):
    status, _, said = command_line(*words, cwd=place)
    assert status == 2
    assert said.startswith("lfiw-ope: ")
    assert len(said.strip().splitlines()) == 1


def test_a_process_that_refuses_ends_with_the_status_and_the_sentence(place):
    done = run("info", "nothere", cwd=place)
    assert done.returncode == 2
    assert done.stderr.startswith("lfiw-ope: There is no file or folder nothere")
    assert done.stdout == ""


def test_discrete_actions_of_a_file_are_counted_by_the_user(place, command_line, tmp_path):
    ends = np.tile([False, False, True], 6)
    columns = {"observations": np.arange(18.0)[:, None], "actions": np.tile([0, 1, 0], 6)}
    columns |= {"next_observations": np.arange(1.0, 19.0)[:, None], "rewards": np.ones(18)}
    np.savez(tmp_path / "whole.npz", **columns, terminals=np.zeros(18, bool), timeouts=ends)
    status, _, said = command_line("info", "whole.npz", cwd=tmp_path)
    assert status == 2
    assert "discrete" in said
    status, printed, _ = command_line("info", "whole.npz", "--actions", "3", cwd=tmp_path)
    assert status == 0
    assert "3 discrete, taken 67%, 33%, 0%" in printed
    status, _, said = command_line("info", str(place / "log"), "--actions", "3", cwd=tmp_path)
    assert status == 2
    assert "Minari" in said

"""The command line, as a user meets it, on real MuJoCo with shipped policies."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from lfiw_envs import TASKS

COMMAND = Path(sys.executable).with_name("lfiw-ope")


def run(*words, cwd):
    return subprocess.run([COMMAND, *words], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo as it is, but for fewer episodes and rollouts and a shorter training."""
    folder = tmp_path_factory.mktemp("demo")
    fewer = ("--episodes", "20", "--rollouts", "60", "--updates", "300")
    return folder, run("demo", *fewer, cwd=folder)


def test_demo_prints_and_saves_a_real_result(demo):
    folder, done = demo
    assert done.returncode == 0, done.stderr
    value = TASKS["swimmer"].value("target")
    assert f"truth {value.mean:.2f} ± {value.standard_error:.2f}" in done.stdout
    saved = json.loads((folder / "results" / "demo_swimmer.json").read_text())
    names = [estimate["estimator"] for estimate in saved["estimates"]]
    assert names == [
        *("model", "LFIW", "LFIW first 80", "stepwise", "stepwise first 80"),
        *("c-LFIW", "c-stepwise", "c-LFIW tempered 0.5", "c-LFIW first by ESS 0.5", "SIR 4"),
    ]
    answer = saved["answer"]
    assert answer["estimator"] == "LFIW"
    assert "loss[bootstrap + SIR 16]" in answer["diagnostics"]
    assert f"LFIW() says {answer['value']:.2f}" in " ".join(done.stdout.split())
    assert all(said in " ".join(done.stdout.split()) for said in answer["warnings"])
    for estimate in saved["estimates"]:
        assert f"{estimate['value']:.2f}" in done.stdout
        assert estimate["error"] == pytest.approx(estimate["value"] - value.mean)
        assert 1 <= estimate["ess"] <= 60 + 1e-6
        assert math.isfinite(estimate["value"])
    assert saved["config"]["rollouts"] == 60
    assert (folder / "results" / "demo_swimmer.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in (folder / "results").iterdir()) == [
        "demo_swimmer.json",
        "demo_swimmer.png",
    ]


def test_demo_says_how_far_it_is_in_plain_lines(demo):
    _, done = demo
    lines = done.stdout.splitlines()
    counts = {
        stage: sum(f" {stage} " in line for line in lines)
        for stage in ("collect", "dynamics", "classifier", "rollout")
    }
    # All 20 episodes, of 20 environments, end at one step; the others show each tenth.
    assert counts.pop("collect") == 2
    assert all(8 <= count <= 12 for count in counts.values()), counts
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("demo", "walker"), "There is no task 'walker'; choose one of swimmer"),
        (("demo", "--rollouts", "1"), "rollouts is 1; it must be a whole number, 2 or more"),
        (("demo", "--episodes", "0"), "episodes is 0; it must be a whole number, 1 or more"),
        (("demo", "--episodes", "3"), "The data hold 3 episodes; at least 4 are needed"),
        (("demo", "--seed", "-1"), "The seed is -1"),
        (("demo", "--device", "warp"), "The device 'warp' cannot be used"),
        (("demo", "--output", "file"), "The output file is a file; name a folder"),
        (("demo", "--horizon", "3"), "No such option"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(words, message, tmp_path, command_line):
    (tmp_path / "file").write_text("kept")
    status, _, said = command_line(*words, cwd=tmp_path)
    assert status == 2
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_version_and_help(tmp_path, command_line):
    assert command_line("--version", cwd=tmp_path)[1].startswith("lfiw-ope 0.1")
    assert "demo" in command_line("--help", cwd=tmp_path)[1]

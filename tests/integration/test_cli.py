"""The command line, as a user meets it, on real MuJoCo with shipped policies."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from lfiw_ope.benchmark import DEMOS

COMMAND = Path(sys.executable).with_name("lfiw-ope")


def run(*words, cwd):
    return subprocess.run([COMMAND, *words], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo as it is, but for fewer transitions and rollouts and a shorter training."""
    folder = tmp_path_factory.mktemp("demo")
    fewer = ("--transitions", "2000", "--rollouts", "60", "--updates", "300")
    return folder, run("demo", *fewer, cwd=folder)


def test_demo_prints_and_saves_a_real_result(demo):
    folder, done = demo
    assert done.returncode == 0, done.stderr
    value = DEMOS["ledge"].truth
    said = " ".join(done.stdout.split())
    assert f"True value: {value.mean:.2f} ± {value.standard_error:.2f}" in said
    saved = json.loads((folder / "results" / "demo_ledge.json").read_text())
    names = [row["row"] for row in saved["rows"]]
    assert names == ["log's mean return", "model", "published product", "FQE", "LFIW()"]
    answer = saved["rows"][-1]
    assert answer["estimator"] == "LFIW"
    assert "loss[bootstrap + SIR 16]" in answer["diagnostics"]
    assert f"LFIW() chose {saved['chosen']} on held-out episodes" in said
    assert all(warning in said for warning in answer["warnings"])
    for row in saved["rows"]:
        assert f"{row['row']} {row['value']:.2f}" in said
        assert row["error"] == pytest.approx(row["value"] - value.mean)
        assert math.isfinite(row["value"])
    assert saved["config"]["rollouts"] == 60
    assert (folder / "results" / "demo_ledge.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in (folder / "results").iterdir()) == [
        "demo_ledge.json",
        "demo_ledge.png",
    ]


def test_demo_says_how_far_it_is_in_plain_lines(demo):
    _, done = demo
    lines = done.stdout.splitlines()
    counts = {
        stage: sum(f" {stage} " in line for line in lines)
        for stage in ("collect", "dynamics", "classifier", "rollout")
    }
    # Each stage shows each tenth; the five policies that make the log share one count.
    assert all(8 <= count <= 12 for count in counts.values()), counts
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("demo", "walker"), "There is no task 'walker'; choose one of ledge"),
        (("demo", "--rollouts", "1"), "rollouts is 1; it must be a whole number, 2 or more"),
        (("demo", "--transitions", "0"), "transitions is 0; it must be a whole number, 5 or more"),
        (("demo", "swimmer", "--transitions", "300"), "The data hold 3 episodes; at least 4"),
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

"""`lfiw-ope bench`: what the end of a run tells."""

import re
import time

import pytest

from lfiw_ope.benchmark import report as leaderboard_files

MODULE = """
from pathlib import Path

import benching

LADDER = benching.ladder(Path(__file__).parent)
"""

WORDS = ("bench", "smoke", "--tasks", "own_pole:LADDER", "--data", "noise", "--questions", "T20")


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("LFIW_OPE_CACHE", str(tmp_path / "kept"))
    (tmp_path / "own_pole.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--estimators", "wis"), "Name a suite to run: smoke, paper, ladder-small, ladder."),
        (("--resume",), "Name a suite to run"),
        (("--jobs", "3"), "Name a suite to run"),
        (("--device", "cuda"), "Name a suite to run"),
        (("smoke", "--transitions", "1e4,1.5"), "--transitions is '1.5'; expected a whole number"),
        (("smoke", "--estimators", "wise", "--output", "out"), "There is no estimator 'wise'"),
    ],
)
def test_what_cannot_be_run_is_told_and_leaves_nothing(words, message, own, command_line):
    before = sorted(own.iterdir())
    status, said, problems = command_line("bench", *words, cwd=own)
    assert (status, said) == (2, "")
    assert message in problems
    assert sorted(own.iterdir()) == before


def test_a_device_that_cannot_be_used_leaves_nothing(own, command_line):
    before = sorted(own.iterdir())
    words = ("bench", "smoke", "--device", "warp", "--output", "out")
    status, _, problems = command_line(*words, cwd=own)
    assert status == 2
    assert "The device 'warp' cannot be used" in problems
    assert sorted(own.iterdir()) == before


def test_results_of_an_estimator_that_goes_elsewhere_are_where_they_belong(
    own, monkeypatch, command_line
):
    (own / "elsewhere").mkdir()
    monkeypatch.setenv("BENCHING_ELSEWHERE", str(own / "elsewhere"))
    words = (*WORDS, "--transitions", "200", "--estimators", "benching:Wandering")
    status, said, problems = command_line(*words, "--output", "out", cwd=own)
    assert (status, problems) == (0, "")
    assert "Saved out/results.json" in said
    assert {"results.json", "leaderboard.md"} <= {path.name for path in (own / "out").iterdir()}
    assert list((own / "elsewhere").iterdir()) == []


def test_why_there_is_no_answer_at_all_is_told(own, command_line):
    words = (*WORDS, "--transitions", "200", "--estimators", "benching:Broken")
    status, said, _ = command_line(*words, "--output", "out", cwd=own)
    assert status == 1
    # What is said of it is not what the suite is for, on its own tasks.
    other = "Other estimators, ladders, data, questions, transitions than its own."
    assert said.startswith(f"smoke: {other}\nshort_pole (report); data sets noise")
    assert said.endswith("No cell has an answer: all were refused, or failed.\n")


def test_why_an_estimator_failed_is_told_and_what_was_saved(own, command_line):
    words = (*WORDS, "--transitions", "200", "--estimators", "behaviour,benching:Broken")
    status, said, problems = command_line(*words, "--output", "out", cwd=own)
    assert (status, problems) == (0, "")
    reason = "The fit failed: ZeroDivisionError: it divides by nothing"
    assert f"Broken failed in 4 of 4 cells; first: {reason}\n" in said
    assert "behaviour failed" not in said
    assert said.endswith("leaderboard.md and out/leaderboard.png.\n")


def test_the_time_that_is_told_has_the_leaderboard_in_it(own, monkeypatch, command_line):
    """Of a long suite it is drawn for many seconds; here the clock goes an hour on by it."""
    clock, write, late = time.perf_counter, leaderboard_files.write_leaderboard, []

    def written(*given):
        found = write(*given)
        late.append(3600.0)
        return found

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + sum(late))
    monkeypatch.setattr(leaderboard_files, "write_leaderboard", written)
    words = (*WORDS, "--transitions", "200", "--estimators", "behaviour", "--output", "out")
    status, said, _ = command_line(*words, cwd=own)
    assert (status, late) == (0, [3600.0])
    assert int(re.search(r"(\d+) s in all\.", said)[1]) >= 3600


def test_a_folder_whose_name_is_no_text_has_its_results(own, command_line):
    """A name of bytes that are not UTF-8, as Python gives it; no file can hold it as it is."""
    words = (*WORDS, "--transitions", "200", "--estimators", "behaviour", "--output", "caf\udce9")
    status, said, problems = command_line(*words, cwd=own)
    assert (status, problems) == (0, "")
    assert r"Saved caf\udce9/results.json" in said
    there = {path.name for path in (own / "caf\udce9").iterdir()}
    assert {"results.json", "leaderboard.md", "leaderboard.json", "leaderboard.png"} <= there


def test_a_suite_takes_some_of_its_own_tasks(own, command_line):
    """The questions that it asks of the others are of no account then."""
    words = ("bench", "smoke", "--tasks", "cartpole", "--transitions", "300", "--policies", "2")
    words += ("--estimators", "behaviour", "--output", "out")
    status, said, problems = command_line(*words, cwd=own)
    assert (status, problems) == (0, "")
    assert "cartpole (report); data sets medium of 300 transitions" in said
    status, _, problems = command_line(*words[:-1], "kept", cwd=own)
    assert status == 0
    (own / "kept" / "units").rename(own / "units")
    status, _, problems = command_line(*words[:-1], "kept", cwd=own)
    assert status == 2
    assert "kept holds results.json, results.csv, leaderboard.json" in problems

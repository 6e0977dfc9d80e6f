"""`lfiw-ope data`: data sets of the paper's ladders, whose policies are shipped."""

import numpy as np
import pytest
import torch
from lfiw_envs.ladders import DEVELOPMENT, LADDERS, PAPER

import lfiw_ope as ope

ARRAYS = (
    *("states", "actions", "rewards", "lengths", "terminated", "truncated"),
    *("log_prob", "proposed_actions"),
)


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("LFIW_OPE_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_it_is_made_once_said_and_exported(command_line, tmp_path, kept):
    words = ("data", "paper_swimmer", "behaviour", "--transitions", "250", "--seed", "3")
    status, said, problems = command_line(
        *words, "--minari", "swimmer/behaviour-v0", "--output", "log", cwd=tmp_path
    )
    assert (status, problems) == (0, "")
    (path,) = (kept / "data").iterdir()
    assert f"played in {said.split('played in ')[1].split()[0]} s, kept in {path}" in said
    log = ope.load_minari(tmp_path / "log")
    minari = pytest.importorskip("minari")
    recovered = minari.MinariDataset(tmp_path / "log" / "data").recover_environment()
    assert recovered.spec.max_episode_steps == 100  # the ladder's, and not Swimmer's 1000
    assert (log.num_transitions, log.lengths.tolist()) == (250, [100, 100, 25, 25])
    assert f"returns            mean {log.returns().mean():.6g}" in said
    row = next(line for line in said.splitlines() if line.split()[:1] == ["behaviour"])
    assert row.split() == ["behaviour", "4", "250", f"{log.returns().mean():.6g}"]
    assert "Saved log" in said
    # A second time it is found, and the other kind of file holds the same.
    status, said, problems = command_line(*words, "--output", "log.npz", cwd=tmp_path)
    assert (status, problems) == (0, "")
    assert "found in" in said
    assert f"in {path}" in said
    assert "--env Swimmer-v5 --max-episode-steps 100" in said
    same = ope.load_data(tmp_path / "log.npz", env_id="Swimmer-v5", max_episode_steps=100)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(same, name), getattr(log, name), err_msg=name)
    assert same.log_prob is not None
    assert same.action_spec == log.action_spec
    assert (same.env_id, log.env_id) == ("Swimmer-v5", "Swimmer-v5")
    # It is the policy's own: its density of the draws.
    behaviour = ope.load_actor(PAPER["swimmer"].policy_path("behaviour"))
    rows = log.transitions()
    drawn = torch.from_numpy(log.proposed_actions)
    expected = behaviour.proposal_log_prob(torch.from_numpy(rows.state), drawn)
    np.testing.assert_allclose(log.log_prob, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_damaged_file_is_told_in_a_plain_line(command_line, tmp_path, kept):
    words = ("data", "paper_swimmer", "behaviour", "--transitions", "1e2")
    command_line(*words, cwd=tmp_path)
    (path,) = (kept / "data").iterdir()
    path.write_bytes(b"")
    status, said, problems = command_line(*words, cwd=tmp_path)
    assert (status, problems) == (0, "")
    assert f"Warning: {path} is damaged (" in said
    assert "it is made anew.\n" in said


def test_alone_it_lists_tasks_and_data_sets(command_line, tmp_path, kept):
    status, said, _ = command_line("data", cwd=tmp_path)
    assert status == 0
    words = said.split()
    for ladder in (*LADDERS.values(), *PAPER.values()):
        assert ladder.name in words
        assert ladder.env_id.rpartition(":")[2] in words
    assert words.count("replay") == len(LADDERS)
    of_the_paper = 2  # Swimmer and HalfCheetah
    assert words.count("development") == len(DEVELOPMENT) + of_the_paper
    assert not kept.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("walker",), "There is no ladder 'walker'; choose one of pendulum"),
        (("swimmer",), "Name a data set of swimmer: random, medium, replay, mixed, expert."),
        (("swimmer", "best"), "swimmer has no data set 'best'; choose one of random, medium"),
        (("paper_swimmer", "behaviour", "--transitions", "0"), "--transitions is '0'"),
        (("paper_swimmer", "behaviour", "--transitions", "1.5"), "--transitions is '1.5'"),
        (("paper_swimmer", "behaviour", "--transitions", "inf"), "--transitions is 'inf'"),
        (("--output", "log.npz"), "Name a task and its data set to export"),
        (("paper_swimmer", "behaviour", "--seed", "-1"), "The seed is -1"),
        (("paper_swimmer", "behaviour", "--minari", "a/b-v0"), "--minari a/b-v0 needs --output"),
        (
            ("paper_swimmer", "behaviour", "--output", "new", "--minari", "behaviour"),
            "Minari takes no data set called 'behaviour'; name it such as swimmer/replay-v0",
        ),
        (
            ("paper_swimmer", "behaviour", "--output", "new", "--minari", "a/b-v0"),
            "Minari takes no data set called 'a/b-v0'",
        ),
        (("paper_swimmer", "behaviour", "--output", "log"), "The output log is no .npz file"),
        (
            ("paper_swimmer", "behaviour", "--output", "there", "--minari", "a/b-v0"),
            "The output there exists; name a new folder",
        ),
        (
            ("paper_swimmer", "behaviour", "--output", "file/log.npz"),
            "The output file is a file; name a folder.",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(words, message, tmp_path, kept, command_line):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("kept")
    status, _, said = command_line("data", *words, cwd=tmp_path)
    assert status == 2
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not kept.exists()

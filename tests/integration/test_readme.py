"""Every code block of the README runs, in order, in one session."""

import re
import shlex
import tomllib

from pages import README, ROOT, blocks, first_words, missing_links, read


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert "\n- " in printed  # a diagnosis of so quick a fit has warnings
    assert first_words(printed) == [
        *("LFIW", "noise", "model", "noise"),
        *("answered", "BehaviourMean", "WPDIS", "FQE"),
        *("90%", "Actions:", "Weights", "Simulated", "Open", "Ratio:"),
    ]
    for name in ("estimate.json", "comparison.json"):
        assert (tmp_path / "results" / name).exists()


def test_console_blocks_are_commands_that_parse(command_line, tmp_path):
    """Their data are not here: the command line gets as far as to say so. Those of the benchmark,
    whose data would be made, say what they take."""
    commands = [line[2:] for block in blocks(README, "console") for line in block.splitlines()]
    assert len(commands) == 5
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "lfiw-ope"
        if words[0] in ("bench", "data"):
            status, printed, said = command_line(*words, "--help", cwd=tmp_path)
            assert status == 0, said
            assert all(word in printed for word in words if word.startswith("--"))
            continue
        status, _, said = command_line(*words, cwd=tmp_path)
        assert status == 2
        assert "option" not in said
        assert "sac.zip" in said or "logs/pendulum" in said


def test_shell_blocks_name_what_exists():
    """The commands themselves run in CI (the tests) and in tests/integration/test_cli.py (demo)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    demo, tests = blocks(README, "bash")
    for block in (demo, tests):
        words = shlex.split(block)
        assert words[:4] == ["python3", "-m", "venv", ".venv"]
        constraints = words[words.index("-c") + 1]
        assert "torch==" in (ROOT / constraints).read_text(encoding="utf-8")
        extra = re.search(r"\.\[(\w+)\]", block).group(1)
        assert extra in project["optional-dependencies"]
    assert "lfiw-ope" in project["scripts"]
    assert demo.strip().endswith(".venv/bin/lfiw-ope demo")


def test_links_and_named_paths_exist():
    assert list(missing_links(README)) == []
    for path in re.findall(r"^\| `([\w/]+/)`", read(README), re.MULTILINE):
        assert (ROOT / path).is_dir(), path

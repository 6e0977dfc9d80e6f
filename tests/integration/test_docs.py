"""Every code block of the pages in `docs/` runs, in order, in one session."""

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\w+\.py)\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page, tmp_path, monkeypatch, command_line):
    """A block that begins with a file's name is that file; commands that need it are run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LFIW_OPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    before, scope, ran = set(sys.modules), {}, []
    try:
        for language, block in FENCED.findall(page.read_text(encoding="utf-8")):
            if language == "console":
                ran += [_run(line, command_line, tmp_path) for line in block.splitlines()]
            elif named := NAMED.match(block):
                (tmp_path / named.group(1)).write_text(block, encoding="utf-8")
            else:
                assert language == "python", language
                exec(compile(block, page.name, "exec"), scope)
    finally:
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
                sys.modules[name].__file__
            ):
                del sys.modules[name]
    assert any(ran)
    assert (tmp_path / "results" / "balance" / "leaderboard.md").exists()


def _run(line, command_line, folder):
    """Whether it was run: where that takes long, as on shipped tasks, it is parsed alone."""
    program, *words = shlex.split(line.removeprefix("$ "))
    assert program == "lfiw-ope"
    if "--tasks" not in words and (words[0] != "data" or "1000000" in words):
        status, printed, said = command_line(*words, "--help", cwd=folder)
        assert status == 0, said
        assert all(word.split("=")[0] in printed for word in words if word.startswith("--"))
        return False
    status, _, said = command_line(*words, cwd=folder)
    assert status == 0, said
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_exist(page):
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / path).exists(), path

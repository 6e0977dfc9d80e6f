"""Every code block of the pages in `docs/` runs, in order, in one session a page."""

import re
import shlex
import sys

import pytest
from pages import FENCED, PAGES, first_words, missing_links, read

NAMED = re.compile(r"# (\w+\.py)\n")
PRINTED = {
    "comparing": (
        *("answered", "BehaviourMean", "WIS", "FQE", "ranks:"),
        *("0", "noise", "512", "noise", "1024", "noise"),
    ),
    "estimators": ("behaviour", "WPDIS", "FQE", "MAGIC", "median"),
    "inputs": ("Trajectories", "1000", "LFIW", "noise", "Swimmer-v5:", "they"),
    "results": (),
    "trust": (
        *("90%", "None", "95%", "95%"),
        *("Actions:", "Weights", "Simulated", "Open", "Ratio:", "Refused:"),
    ),
    "weights": (
        *("model:", "LFIW:", "stepwise", "c-LFIW", "c-LFIW", "SIR"),
        *("bootstrap", "none:", "gaussian:", "bootstrap:", "bootstrap", "bootstrap"),
        *("LFIW", "noise"),
        *("mean", "E[w]", "spread"),
    ),
}
"""The first word of each line."""


@pytest.fixture
def run_page(tmp_path, monkeypatch, command_line, capsys):
    """A page's blocks, in a folder of their own: what they print, and whether a command was run.

    A block that begins with a file's name is that file; commands that need it are run.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LFIW_OPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def run(page):
        scope, ran, printed = {}, [], ""
        for language, block in FENCED.findall(read(page)):
            if language == "console":
                ran += [_run(line, command_line, tmp_path) for line in block.splitlines()]
            elif named := NAMED.match(block):
                (tmp_path / named.group(1)).write_text(block, encoding="utf-8")
            else:
                assert language == "python", language
                exec(compile(block, page.name, "exec"), scope)
                printed += capsys.readouterr().out
        return printed, any(ran)

    yield run
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


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


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem != "benchmark"], ids=lambda page: page.stem
)
def test_blocks_run(page, run_page):
    printed, _ = run_page(page)
    assert tuple(first_words(printed)) == PRINTED[page.stem]


def test_the_benchmark_s_blocks_run(run_page, tmp_path):
    (page,) = (page for page in PAGES if page.stem == "benchmark")
    _, ran = run_page(page)
    assert ran
    assert (tmp_path / "results" / "balance" / "leaderboard.md").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_exist(page):
    assert list(missing_links(page)) == []

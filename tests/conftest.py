import multiprocessing
import os
import sys
from pathlib import Path

# Test processes run side by side, and networks are small: a thread each is the fastest, here and in
# the commands that tests start. Before torch is imported, which reads it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from lfiw_ope.cli.main import main


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def command_line(monkeypatch, capsys):
    """`lfiw-ope` in this process, in a folder: (status, stdout, stderr) of the words given to it.

    A process of its own takes seconds to import torch; tests of what a terminal sees start one.
    """

    def run(*words, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["lfiw-ope", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def processes():
    """Real processes, forked by a server that has imported what takes long.

    By names that are installed: the server looks for no others, and says nothing of one that it
    does not find. It has run nothing, so that a fork of it is as good as a process from the start.
    """
    context = multiprocessing.get_context("forkserver")
    heavy = ["gymnasium", "h5py", "minari", "pyarrow.dataset", "lfiw_ope", "lfiw_ope.benchmark.run"]
    context.set_forkserver_preload(heavy)
    return context


@pytest.fixture
def zoo():
    """The folder of real agents that LFIW_OPE_TEST_DATA names."""
    folder = os.environ.get("LFIW_OPE_TEST_DATA")
    if not folder:
        pytest.skip("LFIW_OPE_TEST_DATA names no folder of agents")
    return Path(folder) / "sb3_zoo"

"""What a log is told of long work."""

import io
import time
import warnings

import pytest
from rich.console import Console

from lfiw_ope.cli.terminal import LiveProgress, plain_warnings


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_log_has_a_line_for_each_tenth_and_one_in_five_minutes(clock):
    out = io.StringIO()
    with LiveProgress(Console(file=out, width=100)) as progress:
        for done in range(1, 61):  # a minute each, of a hundred
            clock[0] = 60.0 * done
            progress("fit", done, 100)
            progress("look", done, 1000)
    lines = out.getvalue().split("\n")
    told = {stage: [one for one in lines if f"  {stage} " in one] for stage in ("fit", "look")}
    # The first; the tenths at 10, 20, ..., 60; and between them where six minutes have passed.
    assert [int(one.split()[3].split("/")[0]) for one in told["fit"]] == [
        *(1, 7, 10, 16, 20, 26, 30, 36, 40, 46, 50, 56, 60)
    ]
    assert [int(one.split()[3].split("/")[0]) for one in told["look"]] == list(range(1, 61, 6))


def test_that_joblib_replaces_a_process_is_nothing_to_be_told():
    terminal = Console(file=io.StringIO())
    with warnings.catch_warnings(record=True) as left, plain_warnings(terminal):
        # In the words of joblib's executor.
        warnings.warn("A worker stopped while some jobs were given to the executor.", stacklevel=1)
        warnings.warn("Something else.", stacklevel=1)
    assert [str(one.message) for one in left] == ["Something else."]

"""A run killed with SIGKILL goes on, and ends with the table of one that was not."""

import json
import time

import comparing
import numpy as np
import pytest

import lfiw_ope as ope

TOTAL = len(comparing.estimators()) * comparing.SEEDS


def started(processes, store):
    process = processes.Process(target=comparing.run, args=(store, store.exists()))
    process.start()
    return process


def cells(store):
    return len(list((store / "cells").glob("*.json"))) if store.exists() else 0


def wait_for(condition, process):
    while not condition():
        assert process.is_alive() or condition(), f"the run ended with {process.exitcode}"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The table of a run that was not killed."""
    return comparing.table(comparing.run(tmp_path_factory.mktemp("whole") / "store"))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_at_random_moments_ends_with_the_same_table(seed, whole, processes, tmp_path):
    rng, store = np.random.default_rng(seed), tmp_path / "store"
    kills = sorted(rng.choice(np.arange(1, TOTAL - 8), 3, replace=False))
    seen = []
    for least in kills:
        process = started(processes, store)
        wait_for(lambda least=least: cells(store) >= least, process)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        seen.append(cells(store))
        assert process.exitcode == -9 or seen[-1] == TOTAL  # a busy machine may be late
        for path in (store / "cells").glob("*.json"):
            json.loads(path.read_text(encoding="utf-8"))  # none is half written
    assert 0 < seen[0] < TOTAL  # ... so that something was left to do
    before = {path: path.stat().st_mtime_ns for path in (store / "cells").glob("*.json")}
    assert comparing.table(comparing.run(store, resume=True)) == whole
    assert cells(store) == TOTAL
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_a_folder_is_one_process_at_a_time(processes, tmp_path):
    store = tmp_path / "store"
    process = started(processes, store)
    wait_for(lambda: cells(store) > 0, process)
    try:
        with pytest.raises(ope.ConfigError, match="Another process is at work"):
            comparing.run(store, resume=True)
    finally:
        process.kill()
        process.join()
    comparing.run(store, resume=True)  # the lock died with its process

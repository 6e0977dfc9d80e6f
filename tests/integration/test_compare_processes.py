"""A comparison in several processes: the same table, and a process that dies is a failed row."""

import threading

import comparing
import pytest
import torch

import lfiw_ope as ope

E = comparing.ESTIMAND


def test_two_processes_give_the_table_of_one_and_leave_threads_alone(tmp_path):
    before = torch.get_num_threads()
    told = []
    found = comparing.run(tmp_path, jobs=2, progress=lambda *a: told.append(a))
    assert comparing.table(found) == comparing.table(comparing.run(None))
    assert torch.get_num_threads() == before
    total = 6 * comparing.SEEDS
    assert [(done, of) for _, done, of, _ in told] == [(i, total) for i in range(1, total + 1)]
    assert len(list((tmp_path / "cells").iterdir())) == total
    data, policies, _ = comparing.inputs()
    threads = ope.compare([comparing.Threads()], data, policies, seeds=(0, 1), jobs=2)
    assert {row.value for row in threads.rows} == {1.0}


def test_a_process_that_dies_is_a_failed_row_and_the_rest_goes_on(tmp_path):
    data, policies, _ = comparing.inputs()
    estimators = {"deadly": comparing.Deadly(1), "PDIS": ope.PDIS(E)}
    found = ope.compare(estimators, data, policies, seeds=range(4), jobs=2, store=tmp_path)
    failed = {(row.estimator, row.seed) for row in found.rows if row.status == "failed"}
    assert failed == {("deadly", 1)}
    assert len(found.rows) == 2 * 4 * len(policies)
    assert all("process" in row.reason for row in found.rows if row.status == "failed")
    # It is no cell's fault for good: what goes on later tries it again, and finds it as it was.
    assert len(list((tmp_path / "cells").iterdir())) == 2 * 4 - 1


def test_an_estimator_that_cannot_be_sent_is_told_before_any_work():
    data, policies, _ = comparing.inputs()
    locked = comparing.Deadly(0)
    locked.lock = threading.Lock()
    with pytest.raises(ope.ConfigError, match=r"estimator 'locked' cannot be sent .* jobs=1"):
        ope.compare({"locked": locked, "PDIS": ope.PDIS(E)}, data, policies, jobs=2)


def test_a_policy_that_cannot_be_sent_is_told_before_any_work():
    data, policies, _ = comparing.inputs()
    object.__setattr__(policies["target 0"], "lock", threading.Lock())
    with pytest.raises(ope.PolicyError, match=r"'target 0' cannot be sent .* jobs=1"):
        ope.compare([ope.PDIS(E)], data, policies, jobs=2)
    assert ope.compare([ope.PDIS(E)], data, policies).rows[0].status == "ok"

"""A comparison on a real Ray cluster of two nodes, one of which is lost in the middle."""

import time
from collections import Counter

import comparing
import pytest

import lfiw_ope as ope
from lfiw_ope.evaluation import engines as ray_engine

ray = pytest.importorskip("ray")
SEEDS = 5


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    found = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    found.doomed = found.add_node(**node)
    ray.init(address=found.address, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()
    monkeypatch.undo()


def slow_estimators(folder):
    """Estimators that say when they begin, where and when they end. Defined here, within a
    function, so that Ray sends them whole."""

    class Slow:
        def __init__(self, inner, name):
            self.estimand, self.inner, self.name = inner.estimand, inner, name

        def fit(self, data, seed, *, progress=None):  # noqa: ARG002
            where = "here"
            if ray.is_initialized():
                where = ray.get_runtime_context().get_node_id()
            began = folder / f"{self.name}-{seed}-{where}-{time.time_ns()}"
            began.touch()
            time.sleep(0.4)
            fitted = self.inner.fit(data, seed)
            began.rename(began.with_suffix(".ended"))
            return fitted

    inner = {"PDIS": ope.PDIS, "WIS": ope.WIS, "mean": ope.BehaviourMean}
    return {name: Slow(kind(comparing.ESTIMAND), name) for name, kind in inner.items()}


def test_a_node_that_is_lost_changes_nothing_in_the_table(cluster, tmp_path):
    folder = tmp_path / "begun"
    folder.mkdir()
    estimators, (data, policies, truth) = slow_estimators(folder), comparing.inputs()
    lost = cluster.doomed.node_id
    told = []

    def progress(_, done, total, note=""):
        told.append((done, total, note))
        if done != 3:
            return
        limit = time.monotonic() + 30
        while not [path for path in folder.glob(f"*-{lost}-*") if not path.suffix]:
            assert time.monotonic() < limit, "no task ran on the second node"
            time.sleep(0.01)
        cluster.remove_node(cluster.doomed, allow_graceful=False)

    arguments = (estimators, data, policies, truth, range(SEEDS))
    store = tmp_path / "store"
    found = ope.compare(*arguments, engine="ray", store=store, progress=progress)

    begun = Counter("-".join(path.name.split("-")[:2]) for path in folder.iterdir())
    assert len(begun) == 3 * SEEDS
    assert sum(begun.values()) > 3 * SEEDS  # a task was lost with its node, and started again
    assert [done for done, _, _ in told] == list(range(1, 3 * SEEDS + 1))
    assert len({note for _, _, note in told}) == 3 * SEEDS  # each cell came once
    assert len(list((store / "cells").glob("*.json"))) == 3 * SEEDS

    alone = ope.compare(*arguments)
    assert comparing.table(found) == comparing.table(alone)
    keys = [(row.estimator, row.policy, row.seed) for row in found.rows]
    assert len(set(keys)) == len(keys) == 3 * SEEDS * len(policies)
    assert all(row.status == "ok" for row in found.rows)
    assert ray.is_initialized()  # the caller's connection is the caller's


@pytest.mark.usefixtures("cluster")
def test_a_task_that_kills_its_process_is_a_failure_and_stops_nothing(monkeypatch):
    monkeypatch.setattr(ray_engine, "RETRIES", 0)  # each is a new process that loads torch

    class Deadly:
        estimand = comparing.ESTIMAND

        def fit(self, data, seed, *, progress=None):  # noqa: ARG002
            import os

            os._exit(1)

    data, policies, _ = comparing.inputs()
    both = {"deadly": Deadly(), "PDIS": ope.PDIS(comparing.ESTIMAND)}
    found = ope.compare(both, data, policies, engine="ray")
    status = {row.estimator: row.status for row in found.rows}
    assert status == {"deadly": "failed", "PDIS": "ok"}
    assert all("lost" in row.reason for row in found.rows if row.status == "failed")

"""A comparison that is quick, for tests that kill it; importable by the processes that run it."""

import os
import time

import numpy as np
import torch
from lfiw_envs import TabularPolicy
from testbeds import log_of, tabular

import lfiw_ope as ope

HORIZON, SEEDS = 4, 4
ESTIMAND = ope.Estimand(HORIZON)


class Halved:
    """Another estimator on half of the episodes, drawn by the seed, after a while."""

    estimand = ESTIMAND

    def __init__(self, inner, pause=0.02):
        self.inner, self.pause = inner, pause

    def fit(self, data, seed, *, progress=None):  # noqa: ARG002
        time.sleep(self.pause)
        return self.inner.fit(data.sample(data.num_episodes // 2, seed=seed), seed)


class Deadly:
    """An estimator that kills its process at one seed."""

    estimand = ESTIMAND

    def __init__(self, seed):
        self.seed = seed

    def fit(self, data, seed, *, progress=None):  # noqa: ARG002
        if seed == self.seed:
            os.kill(os.getpid(), 9)
        return ope.PDIS(ESTIMAND).fit(data, seed)


class Threads:
    """An estimator that says how many threads torch has where it works."""

    estimand = ESTIMAND

    def fit(self, data, seed, *, progress=None):  # noqa: ARG002
        return self

    def estimate(self, policies, *, progress=None):  # noqa: ARG002
        value = float(torch.get_num_threads())
        return [ope.Estimate(estimator="threads", estimand=ESTIMAND, value=value, seed=0)] * len(
            policies
        )


def estimators():
    """Some that share a fit, some that differ by seed, and one that fails."""
    return {
        "PDIS": ope.PDIS(ESTIMAND),
        "WIS": ope.WIS(ESTIMAND),
        "half PDIS": Halved(ope.PDIS(ESTIMAND)),
        "half WPDIS": Halved(ope.WPDIS(ESTIMAND)),
        "half mean": Halved(ope.BehaviourMean(ESTIMAND)),
        "too many folds": ope.DR(ESTIMAND, ope.DoublyRobustConfig(folds=100)),
    }


def inputs(episodes=40):
    """The log, its policies, and their true values."""
    truth, _, behaviour = tabular()
    tables = np.random.default_rng(0).dirichlet(np.ones(3), (3, 6))
    policies = {f"target {i}": TabularPolicy(table) for i, table in enumerate(tables)}
    data = log_of(truth, behaviour, episodes, HORIZON, seed=0)
    return data, policies, {name: truth.value(of, HORIZON) for name, of in policies.items()}


def run(store, resume=False, **settings):
    """The comparison, with its cells in a folder."""
    data, policies, truth = inputs()
    return ope.compare(
        estimators(), data, policies, truth, range(SEEDS), store=store, resume=resume, **settings
    )


def table(comparison):
    """Rows without what differs from run to run."""
    return [{**row.to_dict(), "seconds": None} for row in comparison.rows]

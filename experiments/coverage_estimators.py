"""What `coverage.py` measures: the test-beds with their targets, and the estimators."""

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from lfiw_envs import LinearGaussianPolicy, TabularPolicy

import lfiw_ope as ope

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from testbeds import linear_gaussian, log_of, tabular


@dataclass(frozen=True)
class Bed:
    """An MDP with exact values, who made its log, and whom to evaluate."""

    mdp: object
    behaviour: object
    targets: dict

    def log(self, episodes, horizon, seed):
        return log_of(self.mdp, self.behaviour, episodes, horizon, seed)

    def return_range(self, horizon):
        """Of 20 000 episodes of the behaviour: what widths are measured by."""
        returns = self.log(20_000, horizon, seed=0).returns()
        return float(returns.max() - returns.min())


@cache
def beds():
    """A random MDP with a terminal state, and the linear-Gaussian task.

    Targets lean from the behaviour towards actions that are better by its own Q, and along a
    random direction of its gain.
    """
    mdp, _, behaviour = tabular()
    better = np.eye(3)[mdp.action_values(behaviour, 10)[0].argmax(1)]
    leaning = {
        name: TabularPolicy((1 - share) * behaviour.table + share * better)
        for name, share in (("near", 0.1), ("far", 0.3))
    }
    continuous, _, driver = linear_gaussian()
    turn = np.random.default_rng(1).normal(size=driver.gain.shape)
    turned = {
        name: LinearGaussianPolicy(
            driver.gain + by * turn, driver.bias + by * np.array([1.0, -1.0]), driver.scale
        )
        for name, by in (("near", 0.05), ("far", 0.12))
    }
    return {
        "tabular": Bed(mdp, behaviour, leaning),
        "linear-Gaussian": Bed(continuous, driver, turned),
    }

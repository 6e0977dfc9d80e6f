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

    @property
    def reward_range(self):
        """The lowest and the highest reward of a tabular MDP."""
        return float(self.mdp.reward.min()), float(self.mdp.reward.max())


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
        for name, share in (("near", 0.1), ("far", 0.3), ("lost", 0.8))
    }
    continuous, _, driver = linear_gaussian()
    turn = np.random.default_rng(1).normal(size=driver.gain.shape)
    turned = {
        name: LinearGaussianPolicy(
            driver.gain + by * turn, driver.bias + by * np.array([1.0, -1.0]), driver.scale
        )
        for name, by in (("near", 0.05), ("far", 0.12), ("lost", 0.3))
    }
    return {
        "tabular": Bed(mdp, behaviour, leaning),
        "linear-Gaussian": Bed(continuous, driver, turned),
    }


def nets(updates, **settings):
    """Small networks, looked at ten times."""
    return ope.FitConfig(
        updates=updates, evaluate_every=updates // 10, batch_size=64, learning_rate=4e-3, **settings
    )


DYNAMICS = ope.DynamicsConfig(members=5, hidden=(32,), fit=nets(400))
CLASSIFIERS = ope.RatioConfig(members=2, hidden=(16,), fit=nets(200))
TOTAL = ope.SimulatedIntervalConfig(
    clone=ope.BehaviourConfig(source="cloned", folds=2, hidden=(32,), fit=nets(200))
)
FITTED_Q = ope.FQEConfig(
    hidden=(32,),
    members=5,
    tau=0.03,
    action_samples=2,
    fit=nets(500, patience=None, schedule="cosine"),
)


def importance(estimand, data, target, seed):
    """Every form by every kind of interval; the weights are those of logged likelihoods."""
    found = {}
    for kind in (ope.IS, ope.PDIS, ope.WIS, ope.WPDIS):
        for method in ("t", "percentile", "bca"):
            config = ope.ImportanceConfig(interval=ope.IntervalConfig(method=method))
            told = kind(estimand, config).fit(data, seed).estimate(target)
            found[f"{kind.label}, {method}"] = told
    return found


def bounded(estimand, data, target, seed):
    """By the range of returns, where they have one."""
    if data.action_spec.kind == "continuous":
        return {}
    low, high = beds()["tabular"].reward_range
    ends = (estimand.horizon * min(low, 0.0), estimand.horizon * max(high, 0.0))
    interval = ope.IntervalConfig(method="bernstein", return_range=ends)
    fitted = ope.IS(estimand, ope.ImportanceConfig(interval=interval)).fit(data, seed)
    return {"IS, bernstein": fitted.estimate(target)}


def doubly_robust(estimand, data, target, seed):
    """One fit of Q for three, which take its values as given."""
    found = {}
    # A crude Q: DR and WDR correct any; MAGIC leans on it.
    crude = replace(FITTED_Q, members=1, fit=nets(250, patience=None, schedule="cosine"))
    settings = {"fqe": crude}
    first = ope.DR(estimand, ope.DoublyRobustConfig(**settings))
    fitted = first.fit(data, seed)
    for kind, config in ((ope.DR, ope.DoublyRobustConfig), (ope.WDR, ope.DoublyRobustConfig)):
        for method in ("t", "bca"):
            interval = ope.IntervalConfig(method=method)
            estimator = kind(estimand, config(interval=interval, **settings))
            found[f"{kind.label}, {method}"] = estimator.adopt(fitted).estimate(target)
    blend = ope.MAGICConfig(interval=ope.IntervalConfig(method="t"), **settings)
    found["MAGIC, t"] = ope.MAGIC(estimand, blend).adopt(fitted).estimate(target)
    return found


def simulated(estimand, data, target, seed):
    """The plain model, by what its interval holds."""
    config = ope.ModelBasedConfig(dynamics=DYNAMICS, rollouts=500, interval=TOTAL)
    fitted = ope.ModelBased(estimand, config).fit(data, seed)
    unbiased = replace(fitted, gaps=(), interval=replace(TOTAL, anchors="none"))
    noise = replace(fitted, interval=replace(TOTAL, method="simulation"))
    return {
        "model, simulation noise": noise.estimate(target),
        "model, with members and starts": unbiased.estimate(target),
        "model, with bias": fitted.estimate(target),
    }


def weighted_model(estimand, data, target, seed):
    """The default form of weights."""
    config = ope.LFIWConfig(
        dynamics=DYNAMICS, ratio=CLASSIFIERS, rollouts=500, draws=4, interval=TOTAL
    )
    return {"LFIW": ope.LFIW(estimand, config).fit(data, seed).estimate(target)}


def fitted_q(estimand, data, target, seed):
    """Five members, each of its own bootstrap sample."""
    return {"FQE, members": ope.FQE(estimand, FITTED_Q).fit(data, seed).estimate(target)}


def refitted(estimand, data, target, seed):
    """Twenty fits, each to half of the log."""
    single = ope.FQE(estimand, replace(FITTED_Q, members=1))
    return {"FQE, refitted": ope.Refitted(single).fit(data, seed).estimate(target)}


ESTIMATORS = {
    "importance": importance,
    "bounded": bounded,
    "model": simulated,
    "FQE": fitted_q,
    "DR": doubly_robust,
    "LFIW": weighted_model,
    "refitted": refitted,
}

"""Estimators that share a fit give the numbers of own fits, and only those share that may."""

import itertools

import numpy as np
import pytest
from lfiw_envs import TabularPolicy
from testbeds import log_of, tabular

import lfiw_ope as ope
from lfiw_ope.estimators import SharingEstimator, share_fits
from lfiw_ope.estimators import doubly_robust as doubly_robust_fitted

E = ope.Estimand(4)
NETS = ope.FitConfig(updates=40, evaluate_every=20, batch_size=32)
DYNAMICS = ope.DynamicsConfig(members=2, hidden=(8,), fit=NETS)
RATIO = ope.RatioConfig(members=2, hidden=(8,), fit=NETS)
Q = ope.FQEConfig(hidden=(8,), members=1, fit=ope.FitConfig(updates=40, patience=None))
CLONES = ope.BehaviourConfig(source="cloned", folds=2, hidden=(), fit=NETS)


def lfiw(**settings):
    return ope.LFIW(
        E,
        ope.LFIWConfig(
            **{"dynamics": DYNAMICS, "ratio": RATIO, "rollouts": 20, "fallback": None} | settings
        ),
    )


BOOTSTRAP = ope.IntervalConfig(method="bca", resamples=100)
FAMILIES = {
    "importance": [
        kind(E, ope.ImportanceConfig(behaviour=CLONES))
        for kind in (ope.WIS, ope.IS, ope.PDIS, ope.WPDIS)
    ]
    + [
        ope.PDIS(E, ope.ImportanceConfig(behaviour=CLONES, clip=(0, 2))),
        ope.WIS(E, ope.ImportanceConfig(behaviour=CLONES, interval=BOOTSTRAP)),
    ],
    "LFIW": [
        lfiw(weighting=ope.Weighting(form="stepwise")),
        lfiw(weighting=ope.Weighting()),
        lfiw(weighting=ope.Weighting(conditional=True), draws=3),
        lfiw(weighting=ope.Weighting(), fallback=ope.Fallback()),
    ],
    "LFIW, chosen": [lfiw(), lfiw(draws=3), lfiw(fallback=ope.Fallback())],
    "model": [
        ope.ModelBased(E, ope.ModelBasedConfig(dynamics=DYNAMICS, rollouts=20)) for _ in range(2)
    ],
    "doubly robust": [
        ope.MAGIC(E, ope.MAGICConfig(fqe=Q, behaviour=CLONES)),
        ope.DR(E, ope.DoublyRobustConfig(fqe=Q, behaviour=CLONES)),
        ope.WDR(E, ope.DoublyRobustConfig(fqe=Q, behaviour=CLONES)),
        ope.WDR(E, ope.DoublyRobustConfig(fqe=Q, behaviour=CLONES, interval=BOOTSTRAP)),
    ],
    "doubly robust, model": [
        ope.DR(E, ope.DoublyRobustConfig(value="model", dynamics=DYNAMICS)),
        ope.WDR(E, ope.DoublyRobustConfig(value="model", dynamics=DYNAMICS)),
    ],
}


@pytest.fixture(scope="module")
def log():
    truth, _, policy = tabular()
    tables = np.random.default_rng(0).dirichlet(np.ones(3), (2, 6))
    return log_of(truth, policy, 60, 4, seed=0), [TabularPolicy(table) for table in tables]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_fit_gives_the_numbers_of_an_own_one(family, log):
    data, policies = log
    first, *others = FAMILIES[family]
    assert isinstance(first, SharingEstimator)
    fitted = first.fit(data, seed=3)
    adopted = [other.adopt(fitted) for other in others]
    fitted.estimate(policies)
    for other, sharing in zip(others, adopted, strict=True):
        own = other.fit(data, seed=3).estimate(policies)
        for one, alone in zip(sharing.estimate(policies), own, strict=True):
            apart = {"seconds": {}}
            assert {**one.to_dict(), **apart} == {**alone.to_dict(), **apart}
        # ... and for other policies than the first was asked for.
        assert sharing.estimate(policies[1]).value == pytest.approx(own[1].value, rel=1e-4)


def test_all_of_a_family_are_one_group_in_any_order():
    every = {f"{name} {i}": e for name, of in FAMILIES.items() for i, e in enumerate(of)}
    shuffled = dict(sorted(every.items(), key=lambda item: item[0][::-1]))
    groups = {frozenset(group) for group in share_fits(shuffled)}
    assert groups == {
        frozenset(f"{name} {i}" for i in range(len(of))) for name, of in FAMILIES.items()
    }


def test_what_a_fit_depends_on_keeps_estimators_apart():
    wider = ope.DynamicsConfig(members=2, hidden=(9,), fit=NETS)

    def reward(state, action, next_state):  # noqa: ARG001
        return state[..., 0]

    apart = [
        ope.IS(E),
        ope.IS(ope.Estimand(5)),
        ope.IS(E, ope.ImportanceConfig(behaviour=CLONES)),
        lfiw(),
        lfiw(dynamics=wider),
        lfiw(ratio_share=0.4),
        lfiw(rollouts=30),
        ope.ModelBased(E),
        ope.ModelBased(E, reward=reward),
        ope.DR(E),
        ope.DR(E, ope.DoublyRobustConfig(folds=3)),
        ope.DR(E, ope.DoublyRobustConfig(value="model")),
        ope.FQE(E),
        ope.FQE(E),
        ope.BehaviourMean(E),
    ]
    assert len(share_fits({str(i): e for i, e in enumerate(apart)})) == len(apart)


def test_an_array_within_a_rule_keeps_estimators_apart_and_raises_nothing():
    class Rule:
        def __init__(self, weight):
            self.weight = np.array(weight)

        def __call__(self, state, action, next_state):  # noqa: ARG002
            return state @ self.weight

        def __eq__(self, other):
            return self.weight == other.weight

        __hash__ = None

    apart = [ope.ModelBased(E, reward=Rule([1.0, 2.0])) for _ in range(2)]
    assert len(share_fits(dict(zip("ab", apart, strict=True)))) == 2


def test_q_is_trained_once_for_all_that_share_it(log, monkeypatch):
    data, policies = log
    calls, train = itertools.count(), doubly_robust_fitted.fit_q
    trained = []

    def counted(*args, **kwargs):
        trained.append(next(calls))
        return train(*args, **kwargs)

    monkeypatch.setattr(doubly_robust_fitted, "fit_q", counted)
    first, *others = FAMILIES["doubly robust"]
    folds = first.config.folds
    fitted = first.fit(data, seed=0)
    fitted.estimate(policies)
    fitted.estimate(policies)
    assert len(trained) == 2 * folds  # alone, nothing is kept
    adopted = [other.adopt(fitted) for other in others]
    for fit in (fitted, *adopted):
        fit.estimate(policies)
    assert len(trained) == 3 * folds
    adopted[0].estimate(policies[::-1])
    assert len(trained) == 4 * folds

"""The field's tabular examples, where dynamic programming gives the value that is estimated."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lfiw_envs import TabularPolicy, chain, model_fail, model_win, random_mdp, taxi
from testbeds import log_of

import lfiw_ope as ope
from lfiw_ope.estimators import Terms, weighted_doubly_robust
from lfiw_ope.estimators.doubly_robust_terms import doubly_robust
from lfiw_ope.stats import weigh

REPEATS, EPISODES, HORIZON = 2000, 20, 6
ESTIMAND = ope.Estimand(HORIZON)


EXAMPLES = {"chain": chain, "ModelWin": model_win, "random": random_mdp, "taxi": taxi}


class Weighed:
    """A log of 2000 repeats of 20 episodes, and what importance sampling makes of it.

    The target goes a third of the way from the behaviour to the example's own, so that weights
    have a variance that 2000 repeats can know.
    """

    def __init__(self, example):
        near, far = example.behaviour.table, example.target.table
        self.mdp, self.target = example.mdp, TabularPolicy((2 * near + far) / 3)
        self.value = example.mdp.value(self.target, HORIZON)
        data = log_of(example.mdp, example.behaviour, REPEATS * EPISODES, HORIZON, seed=2)
        fitted = ope.IS(ESTIMAND).fit(data, seed=0)
        self.rewards = fitted.padded.discounted(1.0)
        self.log_ratio = fitted.padded.spread(fitted.ratio.log_ratio(self.target))
        self.terms = self._terms(data, fitted.padded)

    def _terms(self, data, padded):
        """Of a Q that is fixed and wrong: too high, and with noise as large as its own spread."""
        exact = self.mdp.action_values(self.target, HORIZON)
        q = exact + np.random.default_rng(1).normal(0.3, 1.0, exact.shape) * exact.std()
        v = np.concatenate(((q * self.target.table).sum(-1), np.zeros((1, q.shape[1]))))
        rows = data.transitions()
        state, action, after = (x.argmax(1) for x in (rows.state, rows.action, rows.next_state))
        step = np.arange(len(state)) - np.repeat(data.offsets[:-1], data.lengths)
        going_on = np.where(rows.terminated, 0.0, v[step + 1, after])
        residual = torch.from_numpy(rows.reward + going_on - q[step, state, action])
        initial = torch.from_numpy(v[0, data.initial_states.argmax(1)])
        log_weight = self.log_ratio.cumsum(1)
        return Terms(initial, padded.spread(residual), log_weight, padded.standing)

    def estimates(self, name, size):
        """Of every so many episodes of the log."""
        if name in ("DR", "WDR"):
            estimate = {"DR": doubly_robust, "WDR": weighted_doubly_robust}[name]
            terms = self.terms
            of = (terms.initial, terms.residual, terms.log_weight, terms.standing)
            every = zip(*(x.split(size) for x in of), strict=True)
            return np.array([estimate(Terms(*some)).value for some in every])
        weighting = ope.Weighting(
            form="stepwise" if "P" in name else "trajectory", self_normalised="W" in name
        )
        every = zip(self.rewards.split(size), self.log_ratio.split(size), strict=True)
        return np.array([weigh(*some, weighting).value for some in every])


@pytest.fixture(scope="module", params=EXAMPLES)
def weighed(request):
    return Weighed(EXAMPLES[request.param]())


def test_the_check_can_fail(weighed):
    """The behaviour is another policy with another value, and the fixed Q is wrong."""
    plain = weighed.rewards.sum(1)
    error = float(plain.std()) / math.sqrt(len(plain))
    assert abs(float(plain.mean()) - weighed.value) > 6 * error
    direct = weighed.terms.initial
    spread = float(direct.std()) / math.sqrt(len(direct))
    assert abs(weighed.terms.direct - weighed.value) > 6 * spread


@pytest.mark.parametrize("name", ["IS", "PDIS", "DR"])
def test_what_is_unbiased_is_so_over_2000_repeats(weighed, name):
    values = weighed.estimates(name, EPISODES)
    assert len(values) == REPEATS
    assert abs(values.mean() - weighed.value) < 3 * values.std(ddof=1) / math.sqrt(REPEATS)


@pytest.mark.parametrize("name", ["WIS", "WPDIS", "WDR"])
def test_what_is_consistent_nears_the_value_as_the_log_grows(weighed, name):
    errors = {
        size: np.sqrt(np.mean((weighed.estimates(name, size) - weighed.value) ** 2))
        for size in (100, 1600)
    }
    # Errors go as n^(−1/2): a quarter. A root mean square of 25 normal errors is known to 14 %,
    # and of 400 to 4 %: 3 standard errors are 0.44 of a quarter.
    assert errors[1600] < 0.25 * 1.44 * errors[100]
    whole = weighed.estimates(name, REPEATS * EPISODES)[0]
    # Of all episodes the standard error is a fifth of that of 1600.
    assert abs(whole - weighed.value) < 3 * errors[1600] / 5


NETS = ope.FitConfig(updates=700, evaluate_every=175, learning_rate=5e-3)
FITTED_Q = ope.FQEConfig(
    hidden=(64,),
    members=2,
    tau=0.05,
    action_samples=2,
    fit=ope.FitConfig(updates=400, learning_rate=1e-2, evaluate_every=200, patience=None),
)
FLOW = ope.DICEConfig(
    hidden=(64,),
    fit=ope.FitConfig(
        updates=400,
        batch_size=256,
        learning_rate=6e-3,
        clip_gradient=1.0,
        evaluate_every=50,
        patience=None,
    ),
)
SIMULATED = ope.ModelBasedConfig(
    dynamics=ope.DynamicsConfig(members=2, hidden=(64,), fit=NETS), rollouts=2000
)
LEARNED = {
    "FQE": lambda estimand: ope.FQE(estimand, FITTED_Q),
    "DICE": lambda estimand: ope.DICE(estimand, FLOW),
    "model": lambda estimand: ope.ModelBased(estimand, SIMULATED),
}
TOLERANCE = {
    ("chain", "FQE"): 0.15,
    ("chain", "DICE"): 0.15,
    ("chain", "model"): 0.15,
    ("ModelWin", "FQE"): 0.1,
    ("ModelWin", "DICE"): 0.1,
    ("ModelWin", "model"): 0.1,
    ("random", "FQE"): 0.1,
    ("random", "DICE"): 0.1,
    ("random", "model"): 0.1,
    ("taxi", "FQE"): 0.3,
    ("taxi", "DICE"): 0.3,
}
"""Stated for networks of this size, in standard deviations of the behaviour's return. One-hot
states of 55 kinds are beyond a Gaussian model of this size: taxi is not asked of it."""


@pytest.mark.parametrize(("example", "name"), TOLERANCE)
def test_what_is_learned_gives_the_value_to_a_stated_tolerance(example, name):
    task = EXAMPLES[example]()
    target = TabularPolicy((task.behaviour.table + 3 * task.target.table) / 4)
    data = log_of(task.mdp, task.behaviour, 1000, HORIZON, seed=0)
    found = LEARNED[name](ESTIMAND).fit(data, seed=0).estimate(target)
    # The log's own sampling: 3 standard errors of its mean.
    tolerance = (TOLERANCE[example, name] + 3 / math.sqrt(1000)) * data.returns().std()
    value = task.mdp.value(target, HORIZON)
    assert abs(found.value - value) < tolerance
    # What the behaviour earned would not do.
    assert abs(task.mdp.value(task.behaviour, HORIZON) - value) > tolerance


def test_where_states_are_aliased_only_importance_sampling_is_right():
    """ModelFail: the three states look alike, so what relies on them being states is biased."""
    task = model_fail()
    data = log_of(task.mdp, task.behaviour, 2000, task.horizon, seed=0)
    estimand, value = ope.Estimand(task.horizon), task.mdp.value(task.target, task.horizon)
    behaviour = task.mdp.value(task.behaviour, task.horizon)
    for make in (ope.IS, ope.PDIS, ope.WIS, ope.WPDIS):
        found = make(estimand).fit(data, seed=0).estimate(task.target)
        assert abs(found.value - value) < 3 * found.standard_error
    for make in LEARNED.values():
        found = make(estimand).fit(data, seed=0).estimate(task.target)
        # The second step's reward has lost what the first action did: they say nearly what the
        # behaviour earned, whose value is 1.5 away.
        assert abs(found.value - behaviour) < 0.5 < 1.0 < abs(found.value - value)
    # Doubly robust estimates have the weights to mend what their Q is wrong by, much as it is.
    crude = replace(FITTED_Q, fit=replace(FITTED_Q.fit, updates=150))
    robust = ope.DR(estimand, ope.DoublyRobustConfig(fqe=crude)).fit(data, 0)
    found = robust.estimate(task.target)
    assert abs(found.value - value) < 3 * found.standard_error

"""The learned occupancy ratio and its value against exact occupancies, in both modes."""

import numpy as np
import pytest
import torch
from lfiw_envs import TabularPolicy
from testbeds import log_of, standings, tabular

import lfiw_ope as ope

HORIZON = 6
ESTIMANDS = {"finite": ope.Estimand(HORIZON), "discounted": ope.Estimand(HORIZON, 0.4)}


def config(updates=800, **settings):
    fit = ope.FitConfig(
        updates=updates, batch_size=256, learning_rate=6e-3, clip_gradient=1.0, evaluate_every=100
    )
    return ope.DICEConfig(hidden=(64,), fit=fit, **settings)


def log_for(terminal, cut):
    """(truth, behaviour, target, log)"""
    truth, _, behaviour = tabular(terminal)
    other = np.random.default_rng(7).dirichlet(np.ones(3), 6)
    target = TabularPolicy(0.5 * behaviour.table + 0.5 * other)
    return truth, behaviour, target, log_of(truth, behaviour, 1500, HORIZON, seed=0, cut=cut)


@pytest.fixture(scope="module", params=[(0, None), (1, 0.2)], ids=["fixed", "ragged, cut"])
def bed(request):
    return log_for(*request.param)


@pytest.fixture(scope="module", params=ESTIMANDS)
def solved(request, bed):
    """(estimand, fitted ratio of target and behaviour)"""
    _, behaviour, target, data = bed
    estimand = ESTIMANDS[request.param]
    return estimand, ope.fit_dice(data, [target, behaviour], estimand, config(), seed=0)


def steps(data):
    return np.concatenate([np.arange(length) for length in data.lengths])


def shares(data):
    """What each row counts at its step, of a sum of 1 with what has terminated before."""
    episode = np.repeat(np.arange(data.num_episodes), data.lengths)
    stands = standings(data.lengths, data.terminated, HORIZON)
    return stands[episode, steps(data)] / data.num_episodes


def exact_ratio(bed, data, estimand, *, has_time):
    """ω at every row: exact d^π over the log's own d^D, counted."""
    truth, _, target, _ = bed
    logged = data.transitions()
    at = (steps(data), logged.state.argmax(1), logged.action.argmax(1))
    counts = np.zeros((HORIZON, truth.num_states, truth.num_actions))
    np.add.at(counts, at, shares(data) if has_time else 1.0 / len(at[0]))
    if not has_time:
        exact = truth.discounted_occupancy(target, estimand.discount)
        return exact[at[1:]] / counts.sum(0)[at[1:]]
    return truth.occupancies(target, HORIZON)[at] / counts[at]


def test_the_ratio_is_the_exact_one(bed, solved):
    data, (estimand, fitted) = bed[3], solved
    logged = data.transitions()
    exact = exact_ratio(bed, data, estimand, has_time=fitted.has_time)
    found = fitted.ratio(
        *(torch.from_numpy(x) for x in (logged.state, logged.action, steps(data)))
    ).numpy()[0]
    assert (found >= 0).all()
    # Stated tolerance, beside the distance of the behaviour's own ratio, which is 1. A ratio of
    # a step is made of a sixth of the log, and learned less well.
    tolerance = 0.65 if fitted.has_time else 0.35
    assert np.mean((found - exact) ** 2) < tolerance**2 * np.mean((exact - 1) ** 2)
    assert np.corrcoef(found, exact)[0, 1] > 0.8


def test_masses_sum_to_one_with_what_has_terminated(bed, solved):
    truth, _, target, data = bed
    estimand, fitted = solved
    logged = data.transitions()
    step = steps(data)
    found = fitted.ratio(
        *(torch.from_numpy(x) for x in (logged.state, logged.action, step))
    ).numpy()[0]
    if fitted.has_time:
        share = found * shares(data)
        alive = np.bincount(step, share, HORIZON)
        ended = np.bincount(step, share * logged.terminated, HORIZON)
        np.testing.assert_allclose(alive + np.cumsum(ended) - ended, 1.0, atol=1e-9)
        exact = truth.occupancies(target, HORIZON).sum((1, 2))
    else:
        alive = found.mean()
        absorbed = estimand.discount / (1 - estimand.discount) * (found * logged.terminated).mean()
        assert alive + absorbed == pytest.approx(1.0)
        exact = truth.discounted_occupancy(target, estimand.discount).sum()
    # Of 1500 episodes a share is known to 3 standard errors of at most 3 · 0.5 / √1500 = 0.04,
    # and weights of effective size of a fifth more than double that.
    np.testing.assert_allclose(alive, exact, atol=0.09)


def test_the_value_is_the_exact_one(bed, solved):
    truth, behaviour, target, data = bed
    estimand, fitted = solved
    spread = data.returns(estimand.horizon, estimand.discount).std()
    for place, policy in enumerate((target, behaviour)):
        value = truth.value(policy, estimand.horizon, estimand.discount)
        # 3 standard errors of 1500 returns under weights of a quarter's effective size, and the
        # stated tolerance of learning, 0.05 standard deviations of the return.
        assert abs(float(fitted.values[place]) - value) < (0.05 + 6 / 1500**0.5) * spread


def test_stuck_at_the_behaviour_is_said_and_only_then(bed, solved):
    _, behaviour, target, data = bed
    estimand, fitted = solved
    assert not any(report.stuck for report in fitted.reports)
    assert fitted.reports[0].left < 0.4
    early = ope.fit_dice(data, [target, behaviour], estimand, config(updates=4), seed=0)
    assert any("stuck" in said for said in early.reports[0].warnings)
    # The behaviour's own occupancy violates nothing, so that nothing is to be learned.
    assert not early.reports[1].stuck


def test_the_dual_regulariser_leaves_the_ratio_and_the_primal_one_draws_it_to_the_behaviour():
    bed = log_for(0, None)
    _, _, target, data = bed
    estimand = ESTIMANDS["discounted"]
    logged = data.transitions()
    exact = exact_ratio(bed, data, estimand, has_time=False)
    rows = [torch.from_numpy(x) for x in (logged.state, logged.action, steps(data))]

    def error(**settings):
        fitted = ope.fit_dice(data, [target], estimand, config(400, **settings), seed=0)
        return np.mean((fitted.ratio(*rows).numpy()[0] - exact) ** 2) / np.mean((exact - 1) ** 2)

    assert error(dual_regulariser=2.0) < 0.25
    assert error(primal_regulariser=10.0) > 0.4


@pytest.mark.gpu
def test_a_gpu_gives_the_value_too():
    truth, _, target, data = log_for(1, 0.2)
    estimand = ESTIMANDS["discounted"]
    fitted = ope.fit_dice(data, [target], estimand, config(device="cuda"), seed=0)
    spread = data.returns(estimand.horizon, estimand.discount).std()
    value = truth.value(target, estimand.horizon, estimand.discount)
    assert abs(float(fitted.values[0]) - value) < (0.05 + 6 / 1500**0.5) * spread

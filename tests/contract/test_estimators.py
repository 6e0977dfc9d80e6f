"""Promises that every estimator keeps, on a discrete and a continuous test-bed."""

import itertools
import random

import numpy as np
import pytest
import torch
from lfiw_envs import LinearGaussianPolicy, TabularPolicy
from testbeds import linear_gaussian, log_of, tabular

import lfiw_ope as ope

NETS = ope.FitConfig(updates=400, evaluate_every=100, batch_size=128)
DYNAMICS = ope.DynamicsConfig(members=3, hidden=(32, 32), fit=NETS)
ESTIMATORS = {
    "LFIW": lambda estimand, **kwargs: ope.LFIW(
        estimand,
        ope.LFIWConfig(
            dynamics=DYNAMICS,
            ratio=ope.RatioConfig(members=3, hidden=(32,), fit=NETS),
            rollouts=400,
            draws=8,
        ),
        **kwargs,
    ),
    "ModelBased": lambda estimand, **kwargs: ope.ModelBased(
        estimand, ope.ModelBasedConfig(dynamics=DYNAMICS, rollouts=400), **kwargs
    ),
}
# tabular: ragged, as episodes terminate; linear-Gaussian: of fixed length.
BEDS = {"tabular": (lambda: tabular(terminal=1), 8), "linear-Gaussian": (linear_gaussian, 6)}


@pytest.fixture(scope="module", params=list(BEDS))
def bed(request):
    """(truth, behaviour, its log, horizon)"""
    make, horizon = BEDS[request.param]
    truth, _, policy = make()
    return truth, policy, log_of(truth, policy, episodes=300, horizon=horizon, seed=0), horizon


@pytest.fixture(scope="module", params=[1.0, 0.9], ids=["finite", "discounted"])
def estimand(request, bed):
    return ope.Estimand(bed[3], request.param)


@pytest.fixture(scope="module", params=list(ESTIMATORS))
def fit(request, bed, estimand):
    return ESTIMATORS[request.param](estimand).fit(bed[2], seed=0)


def others(policy, count=3):
    """Policies near `policy`."""
    rng = np.random.default_rng(5)
    if isinstance(policy, TabularPolicy):
        near = [0.8 * policy.table + 0.2 * rng.dirichlet(np.ones(3), 6) for _ in range(count)]
        return [TabularPolicy(table) for table in near]
    return [
        LinearGaussianPolicy(
            policy.gain + 0.05 * rng.normal(size=policy.gain.shape), policy.bias, policy.scale
        )
        for _ in range(count)
    ]


def neural(bed, count):
    """PPO-like policies of one architecture, which are stacked."""
    _, policy, data, _ = bed
    generator = torch.Generator().manual_seed(8)
    sizes = (data.state_size, 16, data.action_size)
    made = []
    for _ in range(count):
        layers = [
            0.5 * torch.randn((a, b), generator=generator) for a, b in itertools.pairwise(sizes)
        ]
        biases = [torch.zeros(b) for b in sizes[1:]]
        head = ope.policies.heads.CategoricalHead()
        if not isinstance(policy, TabularPolicy):
            bound = torch.ones(1, data.action_size)
            head = ope.policies.heads.GaussianHead(-bound, -bound, bound)
        made.append(ope.MLPPolicy.from_layers(layers, biases, head, activation="tanh"))
    return made


def test_on_policy_data_give_the_value(bed, estimand, fit):
    truth, policy, data, _ = bed
    found = fit.estimate(policy)
    value = truth.value(policy, estimand.horizon, estimand.discount)
    # Stated tolerance of a learned model here: 0.15 standard deviations of the return, besides
    # 3 standard errors of the simulation and of the log that the model was fitted to.
    returns = data.returns(estimand.horizon, estimand.discount)
    tolerance = 0.15 * returns.std() + 3 * returns.std() / np.sqrt(len(returns))
    assert found.mc_standard_error is not None
    assert abs(found.value - value) < tolerance + 3 * found.mc_standard_error
    assert found.estimand == estimand
    assert found.returns.shape == found.log_weights.shape == (400,)
    assert np.exp(found.log_weights).sum() == pytest.approx(1)
    assert 1 <= found.ess <= 400


def test_a_batch_of_policies_gives_the_single_results(bed, fit):
    _, policy, _, _ = bed
    policies = [*neural(bed, 3), policy, *others(policy), *neural(bed, 1)]
    together = fit.estimate(policies)
    for one, estimate in zip(policies, together, strict=True):
        alone = fit.estimate(one)
        assert estimate.value == pytest.approx(alone.value, abs=1e-5 * max(1, abs(alone.value)))
        np.testing.assert_allclose(estimate.returns, alone.returns, atol=1e-4)
    assert len({round(estimate.value, 6) for estimate in together[:3]}) == 3
    # The first and the last are the same policy, in the same batch: the same numbers.
    assert together[0].value == pytest.approx(together[-1].value, abs=1e-5)


def test_estimates_do_not_depend_on_the_order_of_policies(bed, fit):
    policies = others(bed[1])
    forth, back = fit.estimate(policies), fit.estimate(policies[::-1])
    assert [e.value for e in forth] == [e.value for e in back[::-1]]


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_one_seed_gives_one_number_and_leaves_global_state_alone(bed, name):
    _, policy, data, horizon = bed

    def state():
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            random.getstate(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )

    before = state()
    values = [
        ESTIMATORS[name](ope.Estimand(horizon)).fit(data, seed=seed).estimate(policy).value
        for seed in (0, 0, 1)
    ]
    assert state() == before
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_what_cannot_be_is_refused_in_a_sentence(bed, name, fit):
    _, policy, data, horizon = bed
    make = ESTIMATORS[name]
    with pytest.raises(ope.DataError, match="at least"):
        make(ope.Estimand(horizon)).fit(data.select([0]), seed=0)
    with pytest.raises(ope.ConfigError, match="seed is -1"):
        make(ope.Estimand(horizon)).fit(data, seed=-1)
    with pytest.raises(ope.ConfigError, match="device 'warp' cannot be used"):
        make(ope.Estimand(horizon), device="warp")
    with pytest.raises(ope.PolicyError, match="not a policy"):
        fit.estimate(lambda state: state)
    with pytest.raises(ope.PolicyError, match="the data have"):
        fit.estimate([policy, TabularPolicy(np.eye(9))])


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_a_known_reward_and_rule_are_used(bed, name):
    _, policy, data, horizon = bed

    def one(state, action, next_state):  # noqa: ARG001
        return torch.ones_like(state[..., 0])

    def at_once(state, action, next_state):  # noqa: ARG001
        return torch.ones_like(state[..., 0], dtype=torch.bool)

    make = ESTIMATORS[name]
    found = make(ope.Estimand(horizon), reward=one, termination=at_once).fit(data, seed=0)
    assert found.estimate(policy).value == pytest.approx(1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_a_gpu_gives_the_value_too(bed, name):
    truth, policy, data, horizon = bed
    found = ESTIMATORS[name](ope.Estimand(horizon), device="cuda").fit(data, seed=0)
    value = truth.value(policy, horizon)
    estimate = found.estimate(policy)
    spread = data.returns(horizon).std()
    tolerance = (0.15 + 3 / np.sqrt(300)) * spread + 3 * estimate.mc_standard_error
    assert abs(estimate.value - value) < tolerance

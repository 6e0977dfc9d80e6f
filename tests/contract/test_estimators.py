"""Promises that every estimator keeps, on a discrete and a continuous test-bed."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from lfiw_envs import TabularPolicy
from testbeds import linear_gaussian, log_of, tabular

import lfiw_ope as ope

NETS = ope.FitConfig(updates=200, evaluate_every=50, batch_size=64, learning_rate=4e-3)
DYNAMICS = ope.DynamicsConfig(members=2, hidden=(32,), fit=NETS)
CLASSIFIERS = ope.ClassifierConfig(members=2, hidden=(16,), fit=replace(NETS, updates=100))


def brief(config):
    """The same settings on a fifth of the updates, wherever something is trained."""
    if isinstance(config, ope.FitConfig):
        looks = config.updates // config.evaluate_every
        updates = config.updates // 5
        return replace(config, updates=updates, evaluate_every=max(1, updates // looks))
    parts = {field.name: getattr(config, field.name) for field in fields(config)}
    return replace(
        config, **{name: brief(part) for name, part in parts.items() if is_dataclass(part)}
    )


@dataclass(frozen=True)
class Case:
    """An estimator, small enough for a test, and what it promises.

    `spread` is the stated tolerance of what is learned, on policies that made the log, in standard
    deviations of the return; 0 for a mean over logged episodes, whose standard error says it all.
    """

    estimator: Callable[..., Any]
    spread: float
    config: Any = None
    takes_device: bool = True
    simulates: bool = False

    def make(self, estimand, **kwargs):
        config = () if self.config is None else (self.config,)
        return self.estimator(estimand, *config, **kwargs)

    @property
    def brief(self):
        """For promises that are kept however little was learned."""
        return self if self.config is None else replace(self, config=brief(self.config))


QUICK = ope.FitConfig(
    updates=250, evaluate_every=25, batch_size=64, learning_rate=5e-3, patience=None
)
CRUDE = replace(QUICK, updates=100)
FITTED_Q = ope.FQEConfig(hidden=(32,), members=2, tau=0.03, action_samples=2, fit=QUICK)
FLOW = ope.DICEConfig(hidden=(32,), fit=QUICK)
CRUDE_Q, CRUDE_FLOW = replace(FITTED_Q, fit=CRUDE), replace(FLOW, fit=CRUDE)
"""For what corrects it, and for what it corrects."""
CLONES = ope.BehaviourConfig(
    source="cloned",
    folds=2,
    hidden=(),
    fit=replace(NETS, updates=600, learning_rate=1e-2, batch_size=256),
)
WEIGHTED = ope.LFIWConfig(
    dynamics=DYNAMICS, ratio=ope.RatioConfig(**vars(CLASSIFIERS)), rollouts=800, draws=8
)
CORRECTED = {"dynamics": DYNAMICS, "rollouts": 400}
CASES = {
    "LFIW": Case(ope.LFIW, 0.15, WEIGHTED, simulates=True),
    "ModelBased": Case(
        ope.ModelBased, 0.15, ope.ModelBasedConfig(dynamics=DYNAMICS, rollouts=800), simulates=True
    ),
    **{
        name: Case(getattr(ope, name), 0.0, takes_device=False)
        for name in ("IS", "PDIS", "WIS", "WPDIS", "BehaviourMean")
    },
    "PDIS, cloned": Case(ope.PDIS, 0.1, ope.ImportanceConfig(behaviour=CLONES)),
    "FQE": Case(ope.FQE, 0.15, FITTED_Q),
    "DICE": Case(ope.DICE, 0.2, FLOW),
    "DR": Case(ope.DR, 0.0, ope.DoublyRobustConfig(fqe=CRUDE_Q)),
    "WDR": Case(ope.WDR, 0.0, ope.DoublyRobustConfig(value="model", dynamics=DYNAMICS)),
    "MAGIC": Case(ope.MAGIC, 0.1, ope.MAGICConfig(value="model", dynamics=DYNAMICS)),
    "model + residual (DICE)": Case(
        ope.CorrectedModel, 0.05, ope.CorrectedModelConfig(dice=CRUDE_FLOW, **CORRECTED)
    ),
}
SIMULATING = [name for name, case in CASES.items() if case.simulates]
HORIZON = 5
ESTIMANDS = {"finite": ope.Estimand(HORIZON), "discounted": ope.Estimand(HORIZON, 0.3)}
"""At γ = 0.3 what comes after 5 steps weighs 0.2 %: the stationary equations are used."""


def log_for(name):
    """(truth, behaviour, its log): ragged by terminal states where there are any, and by cuts."""
    of, ragged = name.split(", ")
    truth, _, policy = tabular(int(ragged == "ragged")) if of == "tabular" else linear_gaussian()
    cut = 0.2 if ragged == "ragged" else None
    return truth, policy, log_of(truth, policy, 400, HORIZON, seed=0, cut=cut)


BEDS = ("tabular, fixed", "tabular, ragged", "linear-Gaussian, fixed", "linear-Gaussian, ragged")
HALF = {*zip(BEDS, ("discounted", "finite", "finite", "discounted"), strict=True)}
"""Half of the beds' and the estimands' combinations, in which any two of a kind of action, a kind
of episode and an estimand meet: the half where terminal states meet γ = 1, for there they weigh
most. In the other half any two meet too."""


def combinations(half):
    """Every estimator that learns in one half of the combinations; those that only sum, in all."""
    return [
        pytest.param((name, of, estimand), id=f"{name}-{of}-{estimand}")
        for name, case in CASES.items()
        for of, estimand in itertools.product(BEDS, ESTIMANDS)
        if case.config is None or ((of, estimand) in HALF) == half
    ]


@pytest.fixture(scope="module", params=combinations(half=True))
def setting(request):
    """(case, (truth, behaviour, log), estimand)."""
    name, of, estimand = request.param
    return CASES[name], log_for(of), ESTIMANDS[estimand]


@pytest.fixture(scope="module")
def fit(setting):
    case, bed, estimand = setting
    return case.make(estimand).fit(bed[2], seed=0)


@pytest.fixture(scope="module")
def found(fit, setting):
    """The estimate of the policy that made the log."""
    return fit.estimate(setting[1][1])


def neural(bed, count):
    """PPO-like policies of one architecture, which are stacked."""
    _, policy, data = bed
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
            log_std, bound = (
                torch.zeros(1, data.action_size),
                torch.full((1, data.action_size), 9.0),
            )
            head = ope.policies.heads.GaussianHead(log_std, -bound, bound)
        made.append(ope.MLPPolicy.from_layers(layers, biases, head, activation="tanh"))
    return made


def global_state():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        random.getstate(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )


def test_on_policy_data_give_the_value(setting, found):
    case, (truth, policy, data), estimand = setting
    value = truth.value(policy, estimand.horizon, estimand.discount)
    returns = data.returns(estimand.horizon, estimand.discount)
    of_members = bool(found.intervals) and found.intervals[0].method == "members"
    noise = 3 * (found.noise or 0.0) * (not of_members) + case.spread * returns.std()
    if found.standard_error is None or of_members:
        # Two members hardly know their spread, and what is learned rests on the log all the same,
        # whose mean has this standard error.
        noise += 3 / np.sqrt(len(returns)) * returns.std()
    assert abs(found.value - value) < noise
    # A bound that the target next door would pass too could not fail.
    assert noise < 0.5 * returns.std()


def test_an_estimate_says_what_it_is(setting, fit, found):
    case, _, estimand = setting
    assert isinstance(case.make(estimand), ope.Estimator)
    assert isinstance(fit, ope.Fitted)
    assert found.estimand == estimand
    assert np.isfinite(found.value)
    assert found.estimator in str(found)
    again = ope.Estimate.from_json(found.to_json())
    assert again == found
    if found.ess is not None:
        assert 1 <= found.ess <= (found.rollouts or found.episodes) * (1 + 1e-9)
        assert found.ess_by_step.shape == (HORIZON,)
    if found.returns is None:
        with pytest.raises(ope.ConfigError, match="no distribution"):
            _ = found.distribution
    else:
        assert found.distribution.cdf(found.returns.max()) == 1.0


def test_an_estimate_has_intervals_or_says_why_not(found):
    assert bool(found.intervals) != bool(found.no_interval)
    widest = None
    for one in found.intervals[::-1]:
        assert one.low <= found.value <= one.high
        if widest is not None:
            assert one.level < widest.level
            assert widest.low <= one.low <= one.high <= widest.high
        widest = one


@pytest.mark.parametrize("of", combinations(half=False))
def test_a_batch_of_policies_gives_the_single_results(of):
    name, of, estimand = of
    _, policy, data = bed = log_for(of)
    fit = CASES[name].brief.make(ESTIMANDS[estimand]).fit(data, seed=0)
    other = neural(bed, 2)[1]
    alone = fit.estimate(other), fit.estimate(policy)
    for one, same in zip(fit.estimate([other, policy]), alone, strict=True):
        assert one.value == pytest.approx(same.value, abs=1e-4 * max(1.0, abs(same.value)))
    if name != "BehaviourMean":
        assert alone[0].value != alone[1].value
    assert fit.estimate([]) == []


def test_policies_that_are_stacked_give_the_single_results():
    _, _, data = bed = log_for("linear-Gaussian, fixed")
    every = neural(bed, 3)
    fit = CASES["ModelBased"].make(ESTIMANDS["finite"]).fit(data, seed=0)
    for one, alone in zip(fit.estimate(every), map(fit.estimate, every), strict=True):
        assert one.value == pytest.approx(alone.value, abs=1e-5 * max(1, abs(alone.value)))
        np.testing.assert_allclose(one.returns, alone.returns, atol=1e-4)


DETERMINISTIC = ("IS", "PDIS", "WIS", "WPDIS", "BehaviourMean")
"""Estimators with nothing random in them, where the log says what the behaviour's densities are."""


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("of", "estimand"), [("tabular, ragged", "finite"), ("linear-Gaussian, fixed", "discounted")]
)
def test_a_seed_gives_one_number_of_its_own_and_leaves_global_state_alone(name, of, estimand):
    _, policy, data = log_for(of)
    before = global_state()
    one, again, other = (
        CASES[name].brief.make(ESTIMANDS[estimand]).fit(data, seed).estimate(policy).value
        for seed in (0, 0, 1)
    )
    assert global_state() == before
    assert one == again
    assert (one == other) == (name in DETERMINISTIC)


def test_what_cannot_be_is_refused_in_a_sentence(setting, fit):
    case, (_, policy, data), estimand = setting
    with pytest.raises(ope.DataError, match="at least"):
        case.make(estimand).fit(data.select([0]), seed=0)
    with pytest.raises(ope.DataError, match="more than once"):
        case.make(estimand).fit(data.select([0, 1, 2, 3, 4, 5, 5]), seed=0)
    with pytest.raises(ope.ConfigError, match="seed is -1"):
        case.make(estimand).fit(data, seed=-1)
    if case.takes_device:
        with pytest.raises(ope.ConfigError, match="device 'warp' cannot be used"):
            case.make(estimand, device="warp").fit(data, seed=0)
    with pytest.raises(ope.PolicyError, match="not a policy"):
        fit.estimate(lambda state: state)
    with pytest.raises(ope.PolicyError, match="the data have"):
        fit.estimate([policy, TabularPolicy(np.eye(9))])


@pytest.mark.parametrize("name", SIMULATING)
@pytest.mark.parametrize("of", ["tabular, ragged", "linear-Gaussian, fixed"])
def test_a_known_reward_and_rule_are_used(of, name):
    _, policy, data = log_for(of)

    def one(state, action, next_state):  # noqa: ARG001
        return torch.ones_like(state[..., 0])

    def at_once(state, action, next_state):  # noqa: ARG001
        return torch.ones_like(state[..., 0], dtype=torch.bool)

    make = CASES[name].make
    found = make(ope.Estimand(HORIZON), reward=one, termination=at_once).fit(data, seed=0)
    assert found.estimate(policy).value == pytest.approx(1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_the_value_too(name):
    truth, policy, data = log_for("tabular, ragged")
    case, estimand = CASES[name], ope.Estimand(HORIZON)
    if not case.takes_device:
        pytest.skip("it works on the log, where it is")
    estimate = case.make(estimand, device="cuda").fit(data, seed=0).estimate(policy)
    noise = 3 * (estimate.noise or 0.0)
    noise += (case.spread + 3 / np.sqrt(300)) * data.returns(HORIZON).std()
    assert abs(estimate.value - truth.value(policy, HORIZON)) < noise

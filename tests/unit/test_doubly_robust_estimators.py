"""That the parts of the doubly robust estimators are joined as they should be."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lfiw_envs import TabularPolicy
from testbeds import linear_gaussian, log_of, tabular

import lfiw_ope as ope
from lfiw_ope.estimators import doubly_robust as fitted
from lfiw_ope.estimators import draw_folds

FIT = ope.FitConfig(updates=100, evaluate_every=50, batch_size=64)
SMALL = {"dynamics": ope.DynamicsConfig(members=2, hidden=(16,), fit=FIT)}


@pytest.fixture(scope="module")
def bed():
    truth, _, policy = tabular(terminal=1)
    return policy, log_of(truth, policy, episodes=60, horizon=6, seed=0, cut=0.3)


@pytest.fixture
def zero(monkeypatch):
    """Q̂ = 0 in place of a fitted one; gives the episodes that each fold would be fitted to."""
    trained = []

    def fit_q(data, policies, estimand, config, seed, *, episodes, progress):  # noqa: ARG001
        trained.append(set(episodes))
        report = SimpleNamespace(warnings=("It is 0.",))
        return SimpleNamespace(
            action_value=lambda s, a, t: torch.zeros(len(policies), len(s)),  # noqa: ARG005
            state_value=lambda s, t: torch.zeros(len(policies), len(s)),  # noqa: ARG005
            reports=[report] * len(policies),
        )

    monkeypatch.setattr(fitted, "fit_q", fit_q)
    return trained


@pytest.mark.parametrize(("robust", "plain"), [("DR", "PDIS"), ("WDR", "WPDIS")])
def test_without_a_value_it_is_importance_sampling(bed, zero, robust, plain):
    policy, data = bed
    other = TabularPolicy(0.8 * policy.table + 0.2 / 3)
    estimand = ope.Estimand(6, 0.9)
    found = getattr(ope, robust)(estimand).fit(data, 0).estimate([other, policy])
    known = getattr(ope, plain)(estimand).fit(data, 0).estimate([other, policy])
    for one, same in zip(found, known, strict=True):
        assert one.value == pytest.approx(same.value, abs=1e-9)
        assert one.standard_error == pytest.approx(same.standard_error, rel=1e-6)
        np.testing.assert_allclose(one.ess_by_step, same.ess_by_step, rtol=1e-9)
        assert one.diagnostics["direct"] == 0.0
        assert one.diagnostics["correction"] == pytest.approx(one.value)
        assert one.diagnostics["cut_short"] > 0
        assert one.warnings == ("Of the value function: It is 0.",)
    assert len(zero) == 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_episode_is_judged_by_a_fit_that_did_not_see_it(bed, zero, count):
    policy, data = bed
    config = ope.DoublyRobustConfig(folds=count)
    made = ope.DR(ope.Estimand(6), config).fit(data, 0)
    made.estimate(policy)
    judged = [set(fold.judged.tolist()) for fold in made.folds]
    assert sorted(i for part in judged for i in part) == list(range(60))
    for seen, part in zip(zero, judged, strict=True):
        assert (not seen & part) == (count > 1)
        assert seen | part == set(range(60))
    assert [f.judged.tolist() for f in draw_folds(data, count, 0)] == [
        f.judged.tolist() for f in made.folds
    ]


def test_what_cannot_be_is_refused():
    truth, _, policy = linear_gaussian()
    data = log_of(truth, policy, episodes=12, horizon=4, seed=0)
    estimand = ope.Estimand(4)
    config = ope.DoublyRobustConfig(value="model", **SMALL)
    still = ope.from_function(
        lambda state: np.zeros((len(state), 2), np.float32),
        state_size=3,
        action_spec=data.action_spec,
    )
    with pytest.raises(ope.PolicyError, match="density"):
        ope.DR(estimand, config).fit(data, 0).estimate([policy, still])
    with pytest.raises(ope.ConfigError, match="value='model'"):
        ope.DR(estimand, reward=lambda s, a, n: s[..., 0])  # noqa: ARG005
    with pytest.raises(ope.DataError, match="at least 4"):
        ope.CorrectedModel(estimand).fit(data.select([0, 1, 2]), 0)
    with pytest.raises(ope.ConfigError, match=r"dice\.time"):
        ope.CorrectedModelConfig(dice=ope.DICEConfig(time="none"))
    with pytest.raises(ope.ConfigError, match="infinite horizon"):
        ope.CorrectedModel(estimand, ope.CorrectedModelConfig(time="none"))
    with pytest.raises(ope.DataError, match="cut short after step 4"):
        ope.CorrectedModel(ope.Estimand(5)).fit(data, 0)


def test_a_corrected_model_needs_no_density_of_the_policy():
    truth, _, policy = linear_gaussian()
    data = log_of(truth, policy, episodes=30, horizon=4, seed=0)
    config = ope.CorrectedModelConfig(
        dice=ope.DICEConfig(fit=FIT),
        rollouts=100,
        transitions=50,
        **SMALL,
    )
    deterministic = ope.from_function(
        lambda state: np.zeros((len(state), 2), np.float32),
        state_size=3,
        action_spec=data.action_spec,
    )
    found = ope.CorrectedModel(ope.Estimand(4), config).fit(data, 0).estimate(deterministic)
    assert found.estimator == "model + residual (DICE)"
    assert found.diagnostics["residuals"] == 50
    assert found.value == pytest.approx(
        found.diagnostics["direct"] + found.diagnostics["correction"]
    )
    assert found.episodes == 30


def test_a_sample_of_residuals_may_leave_a_fold_without_any(bed):
    policy, data = bed
    config = ope.CorrectedModelConfig(
        **SMALL,
        dice=ope.DICEConfig(fit=FIT),
        transitions=1,
        rollouts=2,
    )
    found = ope.CorrectedModel(ope.Estimand(3), config).fit(data, 0).estimate(policy)
    assert np.isfinite(found.value)
    assert found.diagnostics["residuals"] == 1

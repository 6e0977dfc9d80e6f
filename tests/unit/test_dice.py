"""DICE's settings, shapes and promises that need no long training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from testbeds import linear_gaussian, log_of, tabular

import lfiw_ope as ope
from lfiw_ope.estimators import dice as fit_module
from lfiw_ope.estimators import dice_lagrangian as violation_module

FAST = ope.DICEConfig(
    hidden=(16,), fit=ope.FitConfig(updates=40, batch_size=32, evaluate_every=4, patience=None)
)


@pytest.fixture(scope="module")
def bed():
    truth, _, policy = tabular(1)
    return policy, log_of(truth, policy, 60, 5, seed=0, cut=0.2)


@pytest.mark.parametrize("discount", [1.0, 0.3])
def test_the_ratio_is_asked_in_the_policies_order(bed, discount):
    policy, data = bed
    acts = ope.TabularPolicy(np.random.default_rng(0).dirichlet(np.ones(3), 6))
    settled = ope.TabularPolicy(np.eye(3)[[0, 1, 2, 0, 1, 2]], deterministic=True)
    estimand = ope.Estimand(5, discount)
    logged = data.transitions()
    step = torch.zeros(len(logged.state), dtype=torch.int64)
    rows = (torch.from_numpy(logged.state), torch.from_numpy(logged.action), step)
    together = ope.fit_dice(data, [acts, settled, policy], estimand, FAST, seed=0)
    found = together.ratio(*rows)
    assert found.shape == (3, data.num_transitions)
    assert together.has_time == (discount == 1.0)
    for place, one in enumerate((acts, settled, policy)):
        alone = ope.fit_dice(data, [one], estimand, FAST, seed=0)
        torch.testing.assert_close(alone.ratio(*rows)[0], found[place], rtol=1e-6, atol=1e-6)
    # Policies that were mixed up would differ by this much.
    assert (found[0] - found[1]).abs().max() > 1e-4 < (found[1] - found[2]).abs().max()


def test_episodes_that_are_left_out_change_nothing(bed):
    policy, data = bed
    half = list(range(0, 60, 2))
    chosen = ope.fit_dice(data, [policy], ope.Estimand(5), FAST, seed=0, episodes=half)
    alone = ope.fit_dice(data.select(half), [policy], ope.Estimand(5), FAST, seed=0)
    assert float(chosen.values[0]) == pytest.approx(float(alone.values[0]), rel=1e-6)


@pytest.mark.parametrize("positivity", ["square", "softplus", "none"])
def test_ratios_start_at_the_behaviours(positivity):
    truth, _, policy = linear_gaussian()
    data = log_of(truth, policy, 50, 4, seed=0)
    config = replace(
        FAST, positivity=positivity, fit=replace(FAST.fit, updates=1, learning_rate=1e-9)
    )
    fitted = ope.fit_dice(data, [policy], ope.Estimand(4), config, seed=0)
    assert float(fitted.values[0]) == pytest.approx(data.returns().mean(), rel=1e-5)
    assert fitted.reports[0].ess == pytest.approx(fitted.reports[0].rows)


def test_what_cannot_be_is_refused(bed):
    _, data = bed
    with pytest.raises(ope.ConfigError, match="'none'"):
        ope.DICE(ope.Estimand(5), ope.DICEConfig(time="none"))
    with pytest.raises(ope.ConfigError, match="positivity"):
        ope.DICEConfig(positivity="exp")
    with pytest.raises(ope.ConfigError, match="reward"):
        ope.DICEConfig(reward=2.0)
    truth, _, policy = tabular(0)
    short = log_of(truth, policy, 20, 3, seed=0)
    with pytest.raises(ope.DataError, match="cut short after step 3"):
        ope.DICE(ope.Estimand(9), FAST).fit(short, 0).estimate(policy)
    with pytest.raises(ope.DataError, match="at least"):
        ope.DICE(ope.Estimand(5)).fit(data.select([0]), seed=0)


def test_diagnostics_and_warnings_are_in_the_estimate(bed):
    policy, data = bed
    found = ope.DICE(ope.Estimand(5), FAST).fit(data, seed=0).estimate(policy)
    assert {"ess", "mass", "violation", "behaviour_violation", "drift"} <= set(found.diagnostics)
    few = replace(FAST, fit=replace(FAST.fit, evaluate_every=40))
    said = ope.DICE(ope.Estimand(5), few).fit(data, seed=0).estimate(policy).warnings
    assert any("looks" in warning for warning in said)


def test_what_memory_holds_at_once_changes_no_number(bed, monkeypatch):
    policy, data = bed
    others = [
        ope.TabularPolicy(np.random.default_rng(seed).dirichlet(np.ones(3), 6)) for seed in range(3)
    ]
    every = [*others, policy]
    config = replace(FAST, fit=replace(FAST.fit, learning_rate=0.02))
    whole = ope.fit_dice(data, every, ope.Estimand(5), config, seed=0)
    monkeypatch.setattr(fit_module, "RATIOS_AT_ONCE", 2 * data.num_transitions)
    monkeypatch.setattr(violation_module, "TESTS_AT_ONCE", 1)
    parts = ope.fit_dice(data, every, ope.Estimand(5), config, seed=0)
    torch.testing.assert_close(parts.values, whole.values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.factors, whole.factors, rtol=1e-4, atol=1e-5)
    for part, other in zip(parts.reports, whole.reports, strict=True):
        for name in ("violation", "behaviour_violation", "behaviour_z", "left"):
            assert getattr(part, name) == pytest.approx(getattr(other, name), rel=1e-3)
    # Policies that were mixed up would differ by this much.
    assert whole.values.diff().abs().min() > 1e-3


def test_the_published_setting_is_the_papers():
    config = ope.DICEConfig.published(updates=60)
    assert (config.reward, config.critic_rate, config.dual_regulariser) == (1.0, 1.0, 1.0)
    assert (config.fit.learning_rate, config.fit.batch_size) == (1e-4, 2048)
    assert config.fit.updates // config.fit.evaluate_every == 20
    assert ope.DICEConfig.published().fit.updates == 100_000

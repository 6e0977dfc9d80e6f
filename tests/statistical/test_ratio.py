"""The learned ratio against the exact one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from testbeds import ExactRatio, Placed, linear_gaussian, log_of

import lfiw_ope as ope
from lfiw_ope.data import DeviceLog
from lfiw_ope.ratios import log_loss

FIT = ope.FitConfig(updates=800, evaluate_every=100, batch_size=256)
CONFIG = ope.RatioConfig(members=3, hidden=(64, 64), fit=FIT)


@pytest.fixture(scope="module")
def bed():
    """The linear-Gaussian truth and its wrong model, which both are known exactly."""
    truth, model, policy = linear_gaussian()
    return truth, model, policy, log_of(truth, policy, episodes=2000, horizon=15, seed=0)


def fit(bed, config=CONFIG, seed=0, episodes=2000):
    held_out = episodes // 3
    _, model, _, data = bed
    return ope.fit_transition_ratio(
        data,
        Placed(model),
        config,
        seed,
        train=range(held_out, episodes),
        held_out=range(held_out),
    )


@pytest.fixture(scope="module")
def ratio(bed):
    return fit(bed)


def compare(bed, ratio, n=20_000):
    """Exact and learned log-ratio at the model's draws, at fresh states of the truth."""
    truth, model, policy, _ = bed
    generator = torch.Generator().manual_seed(9)
    state = truth.initial_states(n, generator)
    for _ in range(3):
        action = policy.act(state, generator)
        state = truth.sample(state, action, generator).next_state
    action = policy.act(state, generator)
    step = model.sample(state, action, generator)
    exact = ExactRatio(truth, model).log_ratio(state, action, step)
    return exact.numpy(), ratio.log_ratio(state, action, step).double().numpy()


def test_the_learned_ratio_is_near_the_exact_one(bed, ratio):
    exact, learned = compare(bed, ratio)
    assert np.corrcoef(exact, learned)[0, 1] > 0.95
    # E_{p_θ}[w] = 1. The exact ratio keeps it to 4 standard errors; the learned to a tenth.
    assert abs(np.exp(exact).mean() - 1) < 4 * np.exp(exact).std() / len(exact) ** 0.5
    assert abs(np.exp(learned).mean() - 1) < 0.1


def test_the_learned_ratio_nears_the_exact_one_as_data_grow(bed, ratio):
    """experiments/ratio_convergence.py measures the slope: 33 times the data, here, at slopes of
    −0.3 or steeper cut the error at least by 33^0.3 = 2.9; seeds differ by a fifth."""
    little = fit(bed, episodes=60)
    errors = [
        float(np.sqrt(np.mean(np.square(np.subtract(*compare(bed, r)))))) for r in (little, ratio)
    ]
    assert errors[1] < errors[0] / 2


def test_the_held_out_log_loss_is_near_the_best_there_is(bed, ratio):
    """Bayes' log-loss from the exact ratio: the classifiers get most of what there is below log 2.

    They see 20 000 transitions, and cannot be better than Bayes but by the chance of the 10 000
    held-out rows, of which 3 standard errors are allowed.
    """
    truth, model, policy, _ = bed
    data = log_of(truth, policy, episodes=4000, horizon=15, seed=77)
    log = DeviceLog.of(data, "cpu")
    rows = log.at(log.rows_of(range(data.num_episodes)))
    exact = ExactRatio(truth, model)
    simulated = model.sample(rows.state, rows.action, torch.Generator().manual_seed(0))
    real, drawn = (exact.log_ratio(rows.state, rows.action, of) for of in (rows, simulated))
    best = float(log_loss(real, drawn))
    each = 0.5 * (torch.nn.functional.softplus(-real) + torch.nn.functional.softplus(drawn))
    chance = math.log(2)
    assert chance - ratio.report.log_loss > 0.7 * (chance - best)
    assert ratio.report.log_loss > best - 3 * float(each.std()) / 10_000**0.5


def test_calibration_mends_over_confidence(bed):
    # 40 episodes and no early stopping: the networks over-fit, and are over-confident.
    fit_long = replace(FIT, updates=800, patience=None, evaluate_every=800)
    long = replace(CONFIG, fit=fit_long, hidden=(128, 128), features="residual")
    ratio = fit(bed, long, episodes=60)
    assert ratio.report.temperature > 1.2
    assert ratio.report.log_loss < ratio.report.uncalibrated_log_loss - 0.01


def test_averages_of_logits_and_of_ratios_differ(bed):
    by_logit, by_ratio = (
        fit(bed, replace(CONFIG, average=how, fit=replace(FIT, updates=300)), episodes=30)
        for how in ("logits", "ratios")
    )
    logits = torch.randn((4, 100), generator=torch.Generator().manual_seed(0))
    mean_logit, mean_ratio = (r.classifiers.average(logits)[0] for r in (by_logit, by_ratio))
    torch.testing.assert_close(mean_logit, logits.mean(0))
    torch.testing.assert_close(mean_ratio, logits.exp().mean(0).log())
    assert (mean_ratio > mean_logit).all()  # Jensen
    first, second = compare(bed, by_logit)[1], compare(bed, by_ratio)[1]
    assert np.abs(first - second).mean() > 1e-3


def test_raw_features_learn_the_same_ratio_less_easily(bed, ratio):
    raw = fit(bed, replace(CONFIG, features="raw"))
    exact, learned = compare(bed, raw)
    assert np.corrcoef(exact, learned)[0, 1] > 0.8
    # Both see the same data; 0.01 is the spread of the held-out loss over seeds.
    assert raw.report.log_loss > ratio.report.log_loss - 0.01


def test_learned_weights_take_away_most_of_the_model_s_bias(bed, ratio):
    """End to end but for the model: the target is met where the plain model is far off."""
    truth, model, policy, _ = bed
    starts = truth.initial_states(20_000, torch.Generator().manual_seed(3))
    rollout = ope.simulate(policy, model, starts, horizon=15, rollouts=20_000, seed=0, ratio=ratio)
    rewards, log_ratio = rollout.discounted(1.0)[0], rollout.log_ratio[0]
    value = truth.value(policy, 15)
    bias = model.value(policy, 15) - value
    for form in ("trajectory", "stepwise"):
        found = ope.stats.weigh(rewards, log_ratio, ope.Weighting(form=form))
        assert abs(found.value - value) < 0.3 * abs(bias) + 3 * found.mc_standard_error

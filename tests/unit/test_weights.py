import math

import numpy as np
import pytest
import torch

from lfiw_ope.core import ConfigError, DivergedError
from lfiw_ope.stats import (
    LEAST_ESS_FOR_A_STANDARD_ERROR,
    Weighting,
    conditional_normalise,
    cumulate,
    effective_sample_size,
    self_normalise,
    weigh,
)


def ratios_and_rewards(n=200, steps=7, spread=0.2, seed=0):
    rng = np.random.default_rng(seed)
    return spread * rng.normal(size=(n, steps)), rng.normal(size=(n, steps))


def naive(rewards, log_ratio, form, first, self_normalised):
    """Straight from the definition, one rollout and one step at a time."""
    n, steps = rewards.shape
    weight = np.ones((n, steps))
    for i in range(n):
        product = 1.0
        for t in range(steps):
            if first is None or t < first:
                product *= math.exp(log_ratio[i, t])
            weight[i, t] = product
    if form == "trajectory":
        weight = np.repeat(weight[:, -1:], steps, 1)
    total = 0.0
    for t in range(steps):
        norm = weight[:, t].sum() if self_normalised else n
        total += (weight[:, t] * rewards[:, t]).sum() / norm
    return total


@pytest.mark.parametrize("form", ["trajectory", "stepwise"])
@pytest.mark.parametrize("first", [None, 0, 3, 7, 20])
@pytest.mark.parametrize("self_normalised", [True, False])
def test_weighted_value_follows_its_definition(form, first, self_normalised):
    log_ratio, rewards = ratios_and_rewards()
    weighting = Weighting(form=form, first=first, self_normalised=self_normalised)
    found = weigh(torch.tensor(rewards), torch.tensor(log_ratio), weighting)
    assert found.value == pytest.approx(
        naive(rewards, log_ratio, form, first, self_normalised), abs=1e-12
    )


@pytest.mark.parametrize("form", ["trajectory", "stepwise"])
def test_first_zero_is_the_plain_model(form):
    log_ratio, rewards = (torch.tensor(x) for x in ratios_and_rewards())
    plain = weigh(rewards, log_ratio, Weighting(form="uniform"))
    none = weigh(rewards, log_ratio, Weighting(form=form, first=0))
    assert none.value == pytest.approx(plain.value, abs=1e-12)
    assert none.ess_by_step.tolist() == pytest.approx([200.0] * 7)
    assert plain.value == pytest.approx(float(rewards.sum(1).mean()), abs=1e-12)


def test_plain_standard_error_is_that_of_a_mean():
    _, rewards = ratios_and_rewards()
    found = weigh(torch.tensor(rewards), torch.zeros(200, 7), Weighting(form="uniform"))
    expected = rewards.sum(1).std(ddof=1) / math.sqrt(200)
    assert found.mc_standard_error == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "weighting",
    [
        Weighting(),
        Weighting(form="stepwise"),
        Weighting(self_normalised=False),
        Weighting(form="stepwise", self_normalised=False),
    ],
    ids=lambda w: w.label,
)
def test_standard_error_is_the_spread_over_repeats(weighting):
    # 600 independent repeats: the spread is known to a relative 1 / sqrt(2 * 599) = 2.9 %, and the
    # mean reported error far better; 4 standard errors of their ratio are 12 %.
    found = []
    for seed in range(600):
        log_ratio, rewards = ratios_and_rewards(seed=seed)
        rewards += log_ratio  # weights and rewards depend on each other, as in a rollout
        found.append(weigh(torch.tensor(rewards), torch.tensor(log_ratio), weighting))
    spread = np.std([one.value for one in found], ddof=1)
    reported = np.mean([one.mc_standard_error for one in found])
    assert reported == pytest.approx(spread, rel=0.12)


def test_no_standard_error_where_a_handful_of_rollouts_has_the_weight():
    log_ratio, rewards = (torch.tensor(x) for x in ratios_and_rewards(spread=5.0))
    found = weigh(rewards, log_ratio, Weighting())
    assert float(found.ess_by_step.min()) < LEAST_ESS_FOR_A_STANDARD_ERROR
    assert found.mc_standard_error is None


def test_weights_keep_their_length_and_sum_to_one():
    log_ratio = torch.tensor(ratios_and_rewards(spread=300.0)[0])
    normalised = self_normalise(cumulate(log_ratio), dim=0)
    assert normalised.shape == log_ratio.shape
    assert normalised.exp().sum(0).tolist() == pytest.approx([1.0] * 7)


def test_effective_sample_size_runs_from_one_to_n():
    assert float(effective_sample_size(torch.zeros(50))) == pytest.approx(50)
    alone = torch.full((50,), -1000.0).index_fill(0, torch.tensor([3]), 0.0)
    assert float(effective_sample_size(alone)) == pytest.approx(1)
    two = torch.tensor([0.0, math.log(3.0)])
    assert float(effective_sample_size(two)) == pytest.approx(16 / 10)


def test_conditional_normalisation_counts_the_own_draw():
    draws = torch.tensor([[0.0, 2.0], [1.0, -1.0], [0.5, 0.0]])
    expected = draws[0].exp() / draws.exp().mean(0)
    found = conditional_normalise(draws)
    assert found.exp().tolist() == pytest.approx(expected.tolist())
    huge = conditional_normalise(torch.tensor([[500.0], [0.0], [0.0], [0.0]]))
    assert float(huge.exp()) == pytest.approx(4.0)  # never above K


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_raise(value):
    log_ratio, rewards = (torch.tensor(x) for x in ratios_and_rewards())
    log_ratio[3, 2] = value
    with pytest.raises(DivergedError, match="1 of 1400 log-ratios are not finite"):
        weigh(rewards, log_ratio, Weighting())


def test_weights_that_overflow_raise():
    with pytest.raises(DivergedError, match=r"The weights overflow.*800; use a self-norm"):
        weigh(torch.ones(20, 100), torch.full((20, 100), 8.0), Weighting(self_normalised=False))
    same = weigh(torch.ones(20, 100), torch.full((20, 100), 8.0), Weighting())
    assert same.value == pytest.approx(100)


def test_the_plain_model_has_a_standard_error_at_any_number_of_rollouts():
    found = weigh(torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1), Weighting(form="uniform"))
    assert found.mc_standard_error == pytest.approx(0.5)


@pytest.mark.parametrize("wrong", [{"form": "product"}, {"first": -1}])
def test_settings_out_of_range_raise(wrong):
    with pytest.raises(ConfigError, match="must be"):
        Weighting(**wrong)

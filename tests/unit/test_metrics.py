"""Metrics of estimates, by hand and against scipy."""

import numpy as np
import pytest
from scipy import stats

import lfiw_ope as ope
from lfiw_ope.stats import metrics

ESTIMATE, TRUTH = [3.0, 1.0, 2.0, 0.0], [4.0, 2.0, 0.0, -1.0]


def test_errors_by_hand():
    assert metrics.absolute_error(ESTIMATE, TRUTH) == (1 + 1 + 2 + 1) / 4
    assert metrics.range_normalised_error(ESTIMATE, TRUTH) == 5 / 4 / 5
    assert metrics.root_mean_squared_error(ESTIMATE, TRUTH) == pytest.approx(np.sqrt(7 / 4))
    assert metrics.relative_error([3.0, 1.0], [4.0, -2.0]) == (1 / 4 + 3 / 2) / 2
    assert np.isnan(metrics.relative_error(ESTIMATE, TRUTH))  # a true value is 0


def test_choices_by_hand():
    # By estimate the order is 0, 2, 1, 3; by truth 0, 1, 2, 3.
    assert metrics.regret_at_k(ESTIMATE, TRUTH, 1) == 0.0
    assert metrics.regret_at_k([0.0, 1.0, 2.0, 3.0], TRUTH, 1) == 5.0
    assert metrics.regret_at_k([0.0, 1.0, 2.0, 3.0], TRUTH, 3) == 2.0
    assert metrics.normalised_regret_at_k([0.0, 1.0, 2.0, 3.0], TRUTH, 3) == 2 / 5
    assert metrics.precision_at_k(ESTIMATE, TRUTH, 2) == 0.5
    assert metrics.precision_at_k(ESTIMATE, TRUTH, 3) == 1.0
    # The two that look best are truly 4 and 0: mean 2, standard deviation 2.
    assert metrics.sharpe_ratio_at_k(ESTIMATE, TRUTH, 2, 1.0) == (4 - 1) / 2


def test_policies_that_are_truly_as_good_as_the_kth_are_among_the_best():
    assert metrics.precision_at_k([1.0, 2.0, 3.0], [5.0, 5.0, 1.0], 2) == 0.5
    assert metrics.precision_at_k([1.0, 3.0, 2.0], [5.0, 5.0, 5.0], 1) == 1.0


def test_error_rates_by_hand():
    # Truly below 1: the last two, of which one is let pass. Above: two, of which one is held back.
    assert metrics.type_one_error([3.0, 0.5, 2.0, 0.0], TRUTH, 1.0) == 0.5
    assert metrics.type_two_error([3.0, 0.5, 2.0, 0.0], TRUTH, 1.0) == 0.5
    assert metrics.type_one_error(ESTIMATE, TRUTH, 0.0) == 1.0  # 0 reaches the threshold
    assert np.isnan(metrics.type_one_error(ESTIMATE, TRUTH, -9.0))
    assert np.isnan(metrics.type_two_error(ESTIMATE, TRUTH, 9.0))


@pytest.mark.parametrize("rounded", [False, True])
def test_rank_correlations_are_scipys_with_ties_and_in_batches(rounded):
    rng = np.random.default_rng(0)
    estimate, truth = rng.normal(size=(2, 3, 5, 12))
    if rounded:
        estimate, truth = estimate.round(), truth.round()
    for ours, theirs in ((metrics.spearman, stats.spearmanr), (metrics.kendall, stats.kendalltau)):
        found = ours(estimate, truth)
        for place in np.ndindex(3, 5):
            expected = theirs(estimate[place], truth[place]).statistic
            assert found[place] == pytest.approx(expected, abs=1e-12)


EVERY = {
    "absolute_error": (),
    "relative_error": (),
    "range_normalised_error": (),
    "root_mean_squared_error": (),
    "spearman": (),
    "kendall": (),
    "regret_at_k": (2,),
    "normalised_regret_at_k": (2,),
    "expected_regret": (),
    "precision_at_k": (2,),
    "type_one_error": (0.3,),
    "type_two_error": (0.3,),
    "sharpe_ratio_at_k": (2, 0.0),
}


@pytest.mark.parametrize("name", EVERY)
def test_many_lists_at_once_give_what_each_gives_alone(name):
    rng = np.random.default_rng(1)
    estimate, truth = rng.normal(size=(4, 6)) + 1.0, rng.normal(size=(4, 6)) + 0.5
    found = getattr(metrics, name)(estimate, truth, *EVERY[name])
    alone = [
        getattr(metrics, name)(one, true, *EVERY[name])
        for one, true in zip(estimate, truth, strict=True)
    ]
    assert found.shape == (4,)
    np.testing.assert_allclose(found, alone)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", EVERY)
def test_what_is_no_list_of_policies_is_refused(name):
    metric, settings = getattr(metrics, name), EVERY[name]
    with pytest.raises(ope.ConfigError, match="one of each for every policy"):
        metric([1.0, 2.0], [1.0, 2.0, 3.0], *settings)
    with pytest.raises(ope.ConfigError, match="one of each for every policy"):
        metric([], [], *settings)
    with pytest.raises(ope.ConfigError, match="one of each for every policy"):
        metric([1.0], 1.0, *settings)
    with pytest.raises(ope.ConfigError, match="not finite"):
        metric([1.0, np.nan], [1.0, 2.0], *settings)


def test_what_is_undefined_is_nan():
    assert np.isnan(metrics.spearman([1.0], [1.0]))
    assert np.isnan(metrics.kendall([2.0, 2.0], [1.0, 3.0]))
    assert np.isnan(metrics.range_normalised_error([1.0, 2.0], [3.0, 3.0]))
    assert np.isnan(metrics.regret_at_k([1.0, 2.0], [3.0, 4.0], 3))
    assert np.isnan(metrics.sharpe_ratio_at_k(ESTIMATE, TRUTH, 1, 0.0))
    with pytest.raises(ope.ConfigError, match="k is 0"):
        metrics.regret_at_k(ESTIMATE, TRUTH, 0)


def test_a_constant_estimate_chooses_nothing():
    # By the order of the list it would have chosen the best.
    assert np.isnan(metrics.regret_at_k([1.0, 1.0, 1.0], [3.0, 2.0, 1.0]))
    assert np.isnan(metrics.precision_at_k([2.0, 1.0, 1.0], [3.0, 2.0, 1.0], 2))
    # A tie that is wholly within the best k leaves nothing open, nor does one of equal truths.
    assert metrics.regret_at_k([2.0, 2.0, 1.0], [3.0, 2.0, 4.0], 2) == 1.0
    assert metrics.regret_at_k([2.0, 2.0, 1.0], [3.0, 3.0, 4.0], 1) == 1.0


def test_regret_of_a_choice_at_random_among_those_that_tie():
    assert metrics.expected_regret([1.0, 1.0, 1.0], [3.0, 2.0, 1.0]) == pytest.approx(1.0)
    assert metrics.expected_regret([1.0, 2.0, 2.0], [3.0, 2.0, 1.0]) == pytest.approx(1.5)
    assert metrics.expected_regret([1.0, 2.0, 1.5], [3.0, 2.0, 1.0]) == 1.0


def test_products_of_ratios_that_explode_have_an_error_still():
    # The square of 1e200 is beyond what a float can hold.
    assert metrics.root_mean_squared_error([3e200, 4e200], [0.0, 0.0]) == pytest.approx(
        np.sqrt(12.5) * 1e200
    )

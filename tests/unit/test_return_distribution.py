"""Weighted returns as a distribution, against brute force."""

import math

import numpy as np
import pytest

import lfiw_ope as ope
from lfiw_ope.stats import ReturnDistribution


def weighted(seed=0, n=50, ties=False, zeros=0):
    """Returns and weights in 64ths, so that sums of them are exact."""
    rng = np.random.default_rng(seed)
    returns = rng.integers(0, 8, n).astype(float) if ties else rng.normal(size=n)
    weights = rng.multinomial(1 << 12, rng.dirichlet(np.ones(n))) / (1 << 12)
    if zeros:
        weights[0] += weights[1 : 1 + zeros].sum()
        weights[1 : 1 + zeros] = 0.0
    with np.errstate(divide="ignore"):
        return ReturnDistribution(returns, np.log(weights)), returns, weights


CASES = [{}, {"ties": True}, {"zeros": 10}, {"ties": True, "zeros": 20}, {"n": 1}]


@pytest.mark.parametrize("case", CASES)
def test_the_cdf_is_the_weight_of_returns_up_to_x(case):
    found, returns, weights = weighted(**case)
    points = np.concatenate((returns, returns - 1e-9, [-99.0, 99.0]))
    expected = [(weights * (returns <= x)).sum() for x in points]
    np.testing.assert_allclose(found.cdf(points), expected, atol=1e-12)
    assert found.cdf(-99.0) == 0
    assert found.cdf(99.0) == 1
    assert found.cdf(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize("case", CASES)
def test_a_quantile_is_the_smallest_return_that_the_cdf_reaches_q_at(case):
    found, returns, weights = weighted(**case)
    for q in (0.01, 0.13, 0.5, 0.77, 0.999):
        reached = [x for x in returns[weights > 0] if (weights * (returns <= x)).sum() >= q]
        assert found.quantile(q) == min(reached)
    assert found.quantile(0.0) == returns[weights > 0].min()
    assert found.quantile(1.0) == returns[weights > 0].max()
    assert found.quantile([[0.2, 0.4]]).shape == (1, 2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5, 1.0])
def test_cvar_is_the_integral_of_the_quantiles(case, alpha):
    found, returns, _ = weighted(**case)
    count = 40_000  # midpoints; the quantile jumps n times, each time by no more than the range
    levels = (np.arange(count) + 0.5) / count * alpha
    tolerance = len(returns) * np.ptp(returns) / count + 1e-12
    assert found.cvar(alpha) == pytest.approx(found.quantile(levels).mean(), abs=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_mean_and_spread_are_numpy_s(case):
    found, returns, weights = weighted(**case)
    mean = np.average(returns, weights=weights)
    assert found.mean == pytest.approx(mean)
    assert found.cvar(1.0) == pytest.approx(mean)
    assert found.std == pytest.approx(np.sqrt(np.average((returns - mean) ** 2, weights=weights)))


def test_equal_weights_are_the_empirical_distribution():
    returns = np.random.default_rng(3).normal(size=101)
    found = ReturnDistribution(returns, np.full(101, -math.log(101)))
    expected = np.quantile(returns, [0.1, 0.5, 0.9], method="inverted_cdf")
    np.testing.assert_allclose(found.quantile([0.1, 0.5, 0.9]), expected)
    # A fifth of 101 returns: 20 whole ones, and a fifth of the next.
    worst = np.sort(returns)[:21]
    assert found.cvar(0.2) == pytest.approx((worst[:20].sum() + 0.2 * worst[20]) / 20.2)


@pytest.mark.parametrize(
    ("returns", "weights", "said"),
    [
        ([], [], "a distribution needs"),
        ([1.0, 2.0], [1.0], "a distribution needs"),
        ([1.0, math.nan], [0.5, 0.5], "not finite"),
        ([1.0, 2.0], [0.5, 0.4], "sum to 0.9"),
        ([1.0, 2.0], [math.nan, 0.5], "sum to nan"),
    ],
)
def test_what_is_no_distribution_is_refused(returns, weights, said):
    with pytest.raises(ope.DataError, match=said):
        ReturnDistribution(np.array(returns), np.log(np.array(weights)))


def test_levels_out_of_range_are_refused():
    found, _, _ = weighted()
    with pytest.raises(ope.ConfigError, match=r"q is 1\.5"):
        found.quantile([0.5, 1.5])
    for alpha in (0.0, -1.0, 1.5):
        with pytest.raises(ope.ConfigError, match="α is"):
            found.cvar(alpha)

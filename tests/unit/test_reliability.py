"""Log-loss, reliability curves and the calibration error, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

import lfiw_ope as ope
from lfiw_ope.ratios import log_loss


def sides(odds):
    """Three of four are told apart, by logits ± log `odds`."""
    up, down = math.log(odds), -math.log(odds)
    return np.array([up, up, up, down]), np.array([up, down, down, down])


def test_log_loss_by_hand():
    numerator, denominator = (torch.tensor(side) for side in sides(3.0))
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(log_loss(numerator, denominator)) == pytest.approx(expected)
    assert float(log_loss(torch.zeros(3), torch.zeros(5))) == pytest.approx(math.log(2))


def test_the_calibration_error_by_hand():
    calibrated = ope.ReliabilityCurve.of(*sides(3.0), bins=2)
    assert calibrated.predicted == pytest.approx((0.25, 0.75))
    assert calibrated.observed == pytest.approx((0.25, 0.75))
    assert calibrated.count == (4, 4)
    assert calibrated.weight == pytest.approx((0.5, 0.5))
    assert ope.expected_calibration_error(calibrated) == pytest.approx(0.0)
    # Odds of 9 say 0.9 where 0.75 is observed, and 0.1 where 0.25 is.
    boastful = ope.ReliabilityCurve.of(*sides(9.0), bins=2)
    assert boastful.predicted == pytest.approx((0.1, 0.9))
    assert ope.expected_calibration_error(boastful) == pytest.approx(0.15)


def test_either_set_counts_the_same():
    numerator, denominator = sides(3.0)
    more = ope.ReliabilityCurve.of(numerator, np.tile(denominator, 10), bins=2)
    assert more.observed == pytest.approx((0.25, 0.75))
    assert more.weight == pytest.approx((0.5, 0.5))
    assert more.count == (31, 13)


def test_equal_probabilities_share_a_bin():
    curve = ope.ReliabilityCurve.of(torch.zeros(700), torch.zeros(700))
    assert curve.edges == (0.0, 1.0)
    assert (*curve.predicted, *curve.observed) == pytest.approx((0.5, 0.5))
    assert curve.count == (1400,)
    # Half of all at one probability take one bin, the rest are dealt to what is left.
    spread = torch.linspace(0.1, 2.0, 700)
    curve = ope.ReliabilityCurve.of(torch.cat((torch.zeros(700), spread)), torch.zeros(700), bins=4)
    assert curve.predicted[0] == pytest.approx(0.5)
    assert curve.count == (1400, 700)
    assert np.isfinite(ope.expected_calibration_error(curve))


def test_bins_hold_equal_numbers_and_not_few():
    generator = torch.Generator().manual_seed(0)
    numerator, denominator = (torch.randn(750, generator=generator) for _ in range(2))
    assert ope.ReliabilityCurve.of(numerator, denominator).count == (100,) * 15
    assert len(ope.ReliabilityCurve.of(numerator[:300], denominator[:300]).count) == 12
    # 4 / (1/50 + 1/750) = 187 in effect would be 3 bins: five are the fewest, of five and more.
    assert len(ope.ReliabilityCurve.of(numerator[:50], denominator).count) == 5
    assert len(ope.ReliabilityCurve.of(numerator[:10], denominator[:10]).count) == 5
    assert len(ope.ReliabilityCurve.of(numerator[:1], denominator[:1]).count) == 2
    curve = ope.ReliabilityCurve.of(numerator, denominator, bins=5)
    assert len(curve.edges) == 6
    middle = list(zip(curve.edges[:-1], curve.predicted, curve.edges[1:], strict=True))
    assert all(low < mean <= high for low, mean, high in middle)


def test_infinite_logits_are_certain():
    curve = ope.ReliabilityCurve.of(np.array([np.inf]), np.array([-np.inf]), bins=2)
    assert curve.predicted == curve.observed == (0.0, 1.0)
    assert ope.expected_calibration_error(curve) == 0.0


def test_a_probability_of_0_has_a_bin_that_ends_above_it():
    numerator, denominator = np.array([-np.inf, 1.0, 2.0]), np.array([-np.inf, -np.inf, 0.0])
    curve = ope.ReliabilityCurve.of(numerator, denominator, bins=4)
    assert (np.diff(curve.edges) > 0).all()
    assert curve.count[0] == 3
    assert curve.observed[0] == pytest.approx(1 / 3)


def test_bars_cover_two_standard_errors_whatever_the_sizes():
    """N(½, 1) against N(−½, 1), whose log-ratio at x is x: a normal bar covers 95.45 %.

    200 repeats of 15 nearly independent bins: a standard error of 0.0038, and 4 of them. Counting
    all samples alike has 0.40 at unequal sizes.
    """
    rng = np.random.default_rng(0)
    for sizes in ((1000, 1000), (200, 20_000), (20_000, 200)):
        met = []
        for _ in range(200):
            up, down = (
                rng.standard_normal(n) + at for n, at in zip(sizes, (0.5, -0.5), strict=True)
            )
            curve = ope.ReliabilityCurve.of(up, down)
            assert len(curve.count) == 15
            off = np.abs(np.subtract(curve.observed, curve.predicted))
            met.append(off < 2 * np.array(curve.standard_error))
        assert np.mean(met) == pytest.approx(0.9545, abs=4 * 0.0038), sizes


def test_bars_of_equal_sets_are_the_binomial_ones():
    curve = ope.ReliabilityCurve.of(*sides(3.0), bins=2)
    assert curve.standard_error == pytest.approx([(0.25 * 0.75 / 4) ** 0.5] * 2)


def test_few_samples_do_not_hide_a_worthless_classifier():
    """Logits of ±2 that chance decides say 0.88 and 0.12 where 0.5 is observed: 0.38 off."""
    rng = np.random.default_rng(0)
    numerator, denominator = (2 * rng.choice([-1.0, 1.0], 40) for _ in range(2))
    error = ope.expected_calibration_error(ope.ReliabilityCurve.of(numerator, denominator))
    # The observed share of 40 has a standard error of 0.08.
    assert error == pytest.approx(0.38, abs=4 * 0.08)
    assert error > 0.2


def test_several_classifiers_of_the_same_samples_are_not_more_samples():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal(300), rng.standard_normal(450)
    alone = ope.ReliabilityCurve.of(one, other)
    thrice = ope.ReliabilityCurve.of(np.tile(one, (3, 1)), np.tile(other, (3, 1)))
    assert thrice.count == alone.count
    assert thrice.standard_error == pytest.approx(alone.standard_error)
    assert thrice.observed == pytest.approx(alone.observed)
    with pytest.raises(ope.DataError, match="3 classifiers' log-ratios of the numerator and 1 of"):
        ope.ReliabilityCurve.of(np.tile(one, (3, 1)), other)


@pytest.mark.parametrize("side", [np.array([0.0, np.nan]), np.array([])])
def test_nan_and_nothing_are_refused(side):
    with pytest.raises(ope.DataError, match="needs one or more of each side, and no NaN"):
        ope.ReliabilityCurve.of(side, np.zeros(3))
    with pytest.raises(ope.ConfigError, match="bins is 0"):
        ope.ReliabilityCurve.of(np.zeros(3), np.zeros(3), bins=0)


def test_what_chance_alone_gives_is_as_documented():
    """0.4 √(b / R) for logits near 0; its own spread over draws is 0.6 / √(2 b) of it, about."""
    rng = np.random.default_rng(0)
    logits = 0.2 * rng.standard_normal(40_000)
    up = rng.random(40_000) < 1 / (1 + np.exp(-logits))
    error = ope.expected_calibration_error(ope.ReliabilityCurve.of(logits[up], logits[~up]))
    expected = 0.4 * (15 / 40_000) ** 0.5
    assert 0.5 * expected < error < 1.5 * expected

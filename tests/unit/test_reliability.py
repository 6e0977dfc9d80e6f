"""Log-loss, reliability curves and the calibration error, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

import lfiw_ope as ope
from lfiw_ope.reliability import log_loss


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
    assert curve.count[0] == 1400
    assert sum(curve.count) == 2100


def test_bins_hold_equal_numbers_and_not_few():
    generator = torch.Generator().manual_seed(0)
    numerator, denominator = (torch.randn(750, generator=generator) for _ in range(2))
    count = ope.ReliabilityCurve.of(numerator, denominator).count
    assert count == pytest.approx((100,) * 15, abs=1)  # a fifteenth of the weight, rounded
    assert len(ope.ReliabilityCurve.of(numerator[:100], denominator[:100]).count) == 4
    assert len(ope.ReliabilityCurve.of(numerator[:10], denominator[:10]).count) == 1
    curve = ope.ReliabilityCurve.of(numerator, denominator, bins=5)
    assert len(curve.edges) == 6
    middle = list(zip(curve.edges[:-1], curve.predicted, curve.edges[1:], strict=True))
    assert all(low < mean <= high for low, mean, high in middle)


def test_infinite_logits_are_certain():
    curve = ope.ReliabilityCurve.of(np.array([np.inf]), np.array([-np.inf]), bins=2)
    assert curve.predicted == curve.observed == (0.0, 1.0)
    assert ope.expected_calibration_error(curve) == 0.0


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

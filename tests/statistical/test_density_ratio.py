"""The learned ratio of two Gaussians against the exact one; what each calibration mends."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import lfiw_ope as ope
from lfiw_ope.ratios import density_ratio as density_ratio_fit
from lfiw_ope.ratios import log_loss

FIT = ope.FitConfig(updates=800, evaluate_every=100, batch_size=256)
CONFIG = ope.ClassifierConfig(members=3, hidden=(32, 32), fit=FIT)
MEAN, SCALE = 0.5, 1.25


def of_p(count, generator):
    return torch.randn((count, 2), generator=generator)


def of_q(count, generator):
    return MEAN + SCALE * torch.randn((count, 2), generator=generator)


def exact(x):
    """log p / q at `[R, 2]`, for p = N(0, 1) and q = N(½, 1.25²) in each entry."""
    there = 0.5 * ((x - MEAN) / SCALE).square() + math.log(SCALE)
    return (there - 0.5 * x.square()).sum(-1).double()


def arrays(numerator, denominator, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return of_p(numerator, generator), of_q(denominator, generator)


def fresh(count=20_000):
    return arrays(count, count, seed=99)


SAMPLES = {"arrays": arrays(20_000, 20_000), "functions": (of_p, of_q)}


@pytest.fixture(scope="module", params=SAMPLES)
def ratio(request):
    return ope.fit_density_ratio(*SAMPLES[request.param], CONFIG, seed=0)


def test_the_log_ratio_is_near_the_exact_one(ratio):
    x = fresh()[1]
    learned = ratio.log_ratio(x).double()
    slope, offset = np.polyfit(exact(x), learned, 1)
    assert np.corrcoef(exact(x), learned)[0, 1] > 0.98
    assert slope == pytest.approx(1.0, abs=0.1)
    assert offset == pytest.approx(0.0, abs=0.05)
    # E_q[w] = 1. The exact ratio keeps it to 4 standard errors (w ≤ e^1.1, so they are known).
    weights = exact(x).exp()
    assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / len(x) ** 0.5
    assert abs(float(learned.exp().mean()) - 1) < 0.05


def test_the_log_loss_is_near_the_best_there_is(ratio):
    up, down = (exact(x) for x in fresh(200_000))
    best = float(log_loss(up, down))
    each = torch.cat((torch.nn.functional.softplus(-up), torch.nn.functional.softplus(down)))
    # The report rests on 4000 held-out samples of either set, or on 10 000: 4 standard errors.
    error = 4 * float(each.std()) / 8000**0.5
    chance = math.log(2)
    assert ratio.report.log_loss > best - error
    assert chance - ratio.report.log_loss > 0.85 * (chance - best) - error
    # Chance alone gives 0.4 √(15 / 8000) = 0.017.
    assert ratio.report.calibration_error < 0.03


UNEVEN = arrays(1500, 15_000, seed=5)


def excess(ratio):
    """Mean error of the log-ratio over fresh samples of both."""
    x = torch.cat(fresh(5000))
    return float((ratio.log_ratio(x).double() - exact(x)).mean())


def test_a_pooled_training_s_prior_is_taken_out(monkeypatch):
    # Not calibrated: a calibration that has an offset would hide a prior that is left in.
    config = replace(CONFIG, calibration="none", fit=replace(FIT, updates=500))
    equal, pooled = (
        ope.fit_density_ratio(*UNEVEN, config, seed=0, balance=how) for how in ("equal", "pooled")
    )
    # 300 held-out and 1200 training samples of p know the log-ratio's mean to about 0.04.
    assert excess(equal) == pytest.approx(0.0, abs=0.16)
    assert excess(pooled) == pytest.approx(0.0, abs=0.16)

    class WithoutCorrection(density_ratio_fit._Pooled):
        def __init__(self, *sides):
            super().__init__(*sides)
            self.log_odds = 0.0

    monkeypatch.setattr(density_ratio_fit, "_Pooled", WithoutCorrection)
    broken = ope.fit_density_ratio(*UNEVEN, config, seed=0, balance="pooled")
    assert excess(broken) == pytest.approx(math.log(1500 / 15_000), abs=0.3)


def with_noise(sides, seed=0):
    """The same samples with 8 further entries of noise, which a network can learn by heart."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.cat((x, torch.randn((len(x), 8), generator=generator)), 1) for x in sides)


@pytest.fixture(scope="module")
def over_trained():
    """Classifiers that know 300 samples of either set by heart; 2700 are held out."""
    samples = with_noise(arrays(3000, 3000, seed=3))
    fit = replace(FIT, updates=400, evaluate_every=400, patience=None, learning_rate=4e-3)
    config = ope.ClassifierConfig(members=2, hidden=(64, 64), fit=fit)

    def calibrated(**settings):
        return ope.fit_density_ratio(*samples, replace(config, **settings), seed=0, held_out=0.9)

    return calibrated


@pytest.mark.parametrize("average", ["logits", "ratios", "estimates"])
@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_each_calibration_mends_over_confidence(over_trained, kind, average):
    ratio = over_trained(calibration=kind, average=average)
    report = ratio.report
    assert report.uncalibrated_log_loss > math.log(2)  # worse than knowing nothing
    assert report.log_loss < math.log(2)
    assert report.calibration_error < 0.5 * report.uncalibrated_calibration_error
    # Chance alone: 0.4 √(15 / 5400) = 0.021; log-ratios are no straight line in the logits.
    assert report.calibration_error < 0.06
    # What is reported holds for samples that had no part in it. A sample's loss has a standard
    # deviation below 0.2: of 5400, 4 standard errors are 0.011, and a half fits a little worse.
    up, down = (ratio.log_ratio(x).double() for x in with_noise(fresh(), seed=1))
    assert float(log_loss(up, down).mean()) == pytest.approx(report.log_loss, abs=0.012)
    if kind == "temperature":
        assert report.temperature > 2


def test_averages_differ(over_trained):
    x = with_noise(fresh(2000), seed=1)[1]
    plain = {"calibration": "none"}
    logits, ratios, own = (
        over_trained(average=how, **plain).log_ratio(x) for how in ("logits", "ratios", "estimates")
    )
    assert own.shape == (2, 2000)
    torch.testing.assert_close(logits, own.mean(0))
    torch.testing.assert_close(ratios, own.exp().mean(0).log())
    assert (ratios >= logits - 1e-4).all()  # Jensen, but for rounding
    assert float((ratios - logits).mean()) > 0.1

"""Each calibration on logits whose right answer is known."""

import math
import sys

import numpy as np
import pytest
import torch

import lfiw_ope as ope
from lfiw_ope.ratios import (
    LOG_TEMPERATURE_BOUNDS,
    ClassifierEnsemble,
    IsotonicCalibration,
    fit_calibration,
    log_loss,
    uncalibrated,
)

KINDS = ("temperature", "platt", "isotonic", "none")
STEEPEST = math.exp(-LOG_TEMPERATURE_BOUNDS[0])


def exact_logits(rows, others, seed=0):
    """`[1, R]` and `[1, R']`: N(½, 1) against N(−½, 1), whose log-ratio at x is x."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        (torch.randn(count, generator=generator, dtype=torch.float64) + mean)[None]
        for count, mean in ((rows, 0.5), (others, -0.5))
    )


def distorted(sides, distort):
    return tuple(distort(side) for side in sides)


# Fisher information of a slope on x, a sample: E[x² p (1 − p)] ≈ 0.22; of an offset: 0.2. With
# 20 000 samples of the smaller side counting half, standard errors are at most 0.011 and 0.011.
ERROR = 4 * 0.011


@pytest.mark.parametrize("others", [20_000, 80_000])
def test_a_temperature_is_found(others):
    sides = exact_logits(20_000, others)
    fitted = fit_calibration("temperature", *distorted(sides, lambda x: 3 * x))
    assert float(fitted.slope) * 3 == pytest.approx(1.0, abs=ERROR)
    assert float(fitted.offset) == 0.0


@pytest.mark.parametrize("others", [20_000, 80_000])
def test_platt_finds_slope_and_offset(others):
    sides = exact_logits(20_000, others)
    fitted = fit_calibration("platt", *distorted(sides, lambda x: 3 * x + 2))
    assert float(fitted.slope) * 3 == pytest.approx(1.0, abs=ERROR)
    assert float(fitted.offset + 2 * fitted.slope) == pytest.approx(0.0, abs=ERROR)


@pytest.mark.parametrize("times", [1, 300])
def test_platt_is_neutral_between_sets_of_unequal_size(times):
    """Ten samples against the same ten, repeated: nothing tells them apart, either way round."""
    few = torch.randn((1, 10), generator=torch.Generator().manual_seed(0)) + 1.0
    many = few.repeat(1, times)
    for sides in ((few, many), (many, few)):
        found = fit_calibration("platt", *sides)(sides[1])
        assert float(found.exp().mean()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("others", [20_000, 80_000])
def test_isotonic_undoes_any_increasing_map(others):
    sides = exact_logits(20_000, others)
    fitted = fit_calibration("isotonic", *distorted(sides, lambda x: x**3 + x))
    x = torch.linspace(-1.5, 1.5, 301, dtype=torch.float64)[None]
    found = fitted(x**3 + x)
    assert (found.diff() >= 0).all()
    # The error goes down as n^(−1/3), here 0.04; runs are some tenths long.
    assert float((found - x).square().mean().sqrt()) < 0.12


@pytest.mark.parametrize("kind", KINDS)
def test_calibrated_logits_are_left_nearly_alone(kind):
    sides = exact_logits(20_000, 20_000)
    fitted = fit_calibration(kind, *sides)
    fresh = exact_logits(20_000, 20_000, seed=1)
    after, before = (float(log_loss(*pair)) for pair in (distorted(fresh, fitted), fresh))
    # Excess of p fitted numbers is p / 2n: 2e-5; of isotonic's some 50 runs 1e-3.
    assert abs(after - before) < (2e-3 if kind == "isotonic" else 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibration_has_the_least_loss_of_its_kind(kind):
    sides = distorted(exact_logits(3000, 3000), lambda x: 2.5 * x + 0.5)
    fitted = fit_calibration(kind, *sides)
    loss = float(log_loss(*distorted(sides, fitted)))
    assert loss <= float(log_loss(*sides)) + 1e-9
    if kind in ("temperature", "platt"):
        for change in (0.97, 1.03):
            other = fit_calibration(kind, *sides)
            other.slope *= change
            assert float(log_loss(*distorted(sides, other))) > loss


@pytest.mark.parametrize("kind", KINDS)
def test_a_separable_handful_stays_finite_and_modest(kind):
    sides = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[-1.0, -2.0]])
    x = torch.linspace(-1000, 1000, 101)[None]
    found = fit_calibration(kind, *sides)(x)
    assert found.isfinite().all()
    assert (found.diff() >= 0).all()
    if kind == "isotonic":
        # Runs of 3 and of 2, one more sample of either set in each: (4/3)/(1/2) and (1/3)/(3/2).
        assert found[0, [0, -1]].tolist() == pytest.approx([math.log(2 / 9), math.log(8 / 3)])
    else:
        assert (found <= STEEPEST * x.clamp_min(0) + 2).all()


def test_platt_s_targets_bound_what_separable_samples_say():
    """One sample of either set at ±1: the targets are 2/3 and 1/3, so the log-ratio is log 2."""
    sides = torch.tensor([[1.0]]), torch.tensor([[-1.0]])
    fitted = fit_calibration("platt", *sides)
    assert float(fitted(sides[0])) == pytest.approx(math.log(2), abs=1e-4)


def test_isotonic_is_scikit_learn_s():
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(0)
    up, down = rng.normal(1.0, 2.0, 400), rng.normal(0.0, 2.0, 900)
    model = IsotonicRegression(out_of_bounds="clip").fit(
        np.concatenate((up, down)),
        np.repeat([1.0, 0.0], [400, 900]),
        sample_weight=np.repeat([1 / 400, 1 / 900], [400, 900]),
    )
    share = model.predict(np.concatenate((up, down)))
    fitted = fit_calibration("isotonic", torch.tensor(up)[None], torch.tensor(down)[None])
    found = fitted(torch.tensor(np.concatenate((up, down)))[None])[0].sigmoid().numpy()
    inner = (share > 0) & (share < 1)
    assert inner.sum() > 1000
    np.testing.assert_allclose(found[inner], share[inner], atol=1e-4)
    # The pure ends are drawn in: certain in scikit-learn, here by as many samples as there are.
    assert (share == 0).any()
    assert (found[share == 0] > 0).all()
    assert (found[share == 1] < 1).all()


def test_a_small_pure_run_does_not_pass_its_neighbour():
    # One sample at the top: alone it would say log(2/11) − log(1/100), less than the run below.
    up = torch.cat((torch.full((10,), 1.0), torch.tensor([2.0])))[None]
    down = torch.cat((torch.full((1,), 1.0), torch.full((99,), 0.0)))[None]
    found = fit_calibration("isotonic", up, down)(torch.tensor([[0.0, 1.0, 2.0]]))[0]
    below = math.log(10 / 11) - math.log(1 / 100)
    assert found[1:].tolist() == pytest.approx([below, below])
    assert found[0] < found[1]


def test_isotonic_keeps_nan_and_is_constant_beyond_what_was_seen():
    fitted = fit_calibration("isotonic", *exact_logits(500, 500))
    x = torch.tensor([[float("nan"), -math.inf, -50.0, 50.0, math.inf]])
    found = fitted(x)[0]
    assert found[0].isnan()
    assert found[1] == found[2] < found[3] == found[4]


@pytest.mark.parametrize("kind", KINDS)
def test_each_classifier_has_a_calibration_of_its_own(kind):
    one, two = exact_logits(300, 200), exact_logits(300, 200, seed=1)
    both = [torch.cat((a, 4 * b)) for a, b in zip(one, two, strict=True)]
    x = torch.linspace(-5, 5, 50).repeat(2, 1)
    found = fit_calibration(kind, *both)(x)
    for row, sides in enumerate((one, distorted(two, lambda x: 4 * x))):
        alone = fit_calibration(kind, *sides)(x[:1])
        torch.testing.assert_close(found[row : row + 1], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibration_survives_a_state_dict(kind):
    config = ope.ClassifierConfig(members=2, hidden=(4,), average="estimates", calibration=kind)
    first, second = (ClassifierEnsemble(config, 3) for _ in range(2))
    sides = exact_logits(300, 200)
    first.calibration = fit_calibration(kind, *(torch.cat((x, 2 * x)) for x in sides))
    second.load_state_dict(first.state_dict())
    x = torch.linspace(-5, 5, 50).repeat(2, 1)
    assert torch.equal(first.calibration(x), second.calibration(x))


@pytest.mark.parametrize("kind", KINDS)
def test_before_it_is_fitted_a_calibration_changes_nothing(kind):
    x = torch.linspace(-20, 20, 41).repeat(3, 1)
    torch.testing.assert_close(uncalibrated(kind, 3)(x), x)


def test_isotonic_without_scikit_learn_says_so_before_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    trained = []
    rows = torch.randn((50, 1), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ope.MissingDependencyError, match=r"pip install 'lfiw-ope\[isotonic\]'"):
        ope.fit_density_ratio(
            rows,
            rows,
            ope.ClassifierConfig(calibration="isotonic"),
            seed=0,
            progress=lambda *_: trained.append(1),
        )
    assert not trained


@pytest.mark.gpu
def test_isotonic_gives_the_same_on_a_gpu():
    fitted = fit_calibration("isotonic", *exact_logits(500, 300))
    assert isinstance(fitted, IsotonicCalibration)
    x = torch.linspace(-5, 5, 101)[None]
    there = IsotonicCalibration(fitted.knots, fitted.log_ratios).to("cuda")
    torch.testing.assert_close(there(x.cuda()).cpu(), fitted(x))

"""Calibrated moments of resampling, and classifiers that see no less than the model's error."""

import itertools
import math

import pytest
import torch
from testbeds import linear_gaussian, log_of

import lfiw_ope as ope
from lfiw_ope.data import DeviceLog
from lfiw_ope.dynamics import EnsembleDynamics, fit_dynamics
from lfiw_ope.estimators import Candidate, spread_of
from lfiw_ope.ratios import (
    LEAST_CANDIDATES,
    RIDGES,
    Candidates,
    calibrate_moments,
    fit_transition_ratio,
    tilted,
)

ROWS, CANDIDATES = 4000, 4


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moments(seen, tilt):
    """`[D, 1 + S]`, E[Σ_j p_j e_j φᵀ]."""
    chance = torch.softmax(seen.log_ratios + tilted(tilt, seen.inputs, seen.outcomes), 0)
    mean = torch.einsum("kb,kbd->bd", chance, seen.outcomes)
    return mean.T @ torch.nn.functional.pad(seen.inputs, (1, 0), value=1.0) / len(seen.inputs)


def erring(rows, shift=(0.3, -0.2)):
    """Candidates e ~ N(0, 1) in two entries, logged e about (0.3 x, −0.2), log-ratios that err."""
    inputs, outcomes = normal(rows, 1), normal(CANDIDATES, rows, 2, seed=1)
    means = torch.cat((shift[0] * inputs, shift[1] + 0 * inputs), 1)
    log_ratios = 0.7 * outcomes[..., 0] - 0.3 * outcomes[..., 1] * inputs[:, 0]
    return Candidates(inputs, 0.5 * normal(rows, 2, seed=2) + means, outcomes, log_ratios)


@pytest.mark.parametrize("ridge", RIDGES)
def test_resampling_has_the_logged_moments(ridge):
    """At the minimum of Φ(A) + ρ |A|² the moments differ by 2 ρ A, and nothing else."""
    seen = erring(ROWS)
    wanted = seen.real.T @ torch.nn.functional.pad(seen.inputs, (1, 0), value=1.0) / ROWS
    assert (moments(seen, torch.zeros((2, 2))) - wanted).abs().max() > 0.2
    tilt = seen.solve(ridge, torch.zeros((2, 2)))
    assert torch.allclose(moments(seen, tilt) - wanted, -2 * ridge * tilt, atol=1e-3)


def test_cross_validation_takes_the_weakest_ridge_where_moments_are_known():
    """4000 rows know moments to 1/60, and the ratio is off by 0.2 and more."""
    seen = erring(ROWS)
    assert torch.allclose(
        seen.tilt(ROWS // 2), seen.solve(RIDGES[-1], torch.zeros((2, 2))), atol=1e-3
    )


def test_moments_that_are_noise_are_not_calibrated():
    """A right ratio, and 20 entries each of e and of (s, a) at 60 transitions.

    Of the 420 moments each is off by 1/√60 by chance; a tilt that follows 30 of the rows is wrong
    at the other 30.
    """
    rows, size = 60, 20
    real, outcomes = normal(rows, size), normal(CANDIDATES, rows, size, seed=1)
    seen = Candidates(normal(rows, size, seed=2), real, outcomes, torch.zeros((CANDIDATES, rows)))
    assert not seen.tilt(rows // 2).any()
    assert seen.solve(RIDGES[-1], torch.zeros((size, 1 + size))).abs().max() > 0.1


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_one_part_of_transitions_calibrates_nothing(rows):
    assert not erring(rows).tilt(0).any()
    assert not erring(rows).tilt(rows).any()


def test_a_tilt_of_many_normal_candidates_is_the_mean():
    """exp(A e) N(e; 0, 1) is N(A, 1). With k candidates the mean is A + O(1/k): k = 256 here."""
    outcomes, real = normal(256, 500, 1), 0.4 + normal(500, 1, seed=1)
    seen = Candidates(torch.zeros((500, 0)), real, outcomes, torch.zeros((256, 500)))
    tilt = float(seen.solve(0.01, torch.zeros((1, 1))))
    # The minimum is where A + 2 ρ A is the mean of 500 logged outcomes, which stands in for 0.4;
    # the candidates' own mean adds 1 / √(256 · 500).
    assert tilt * 1.02 == pytest.approx(float(real.mean()), abs=4 / math.sqrt(256 * 500) + 1 / 256)


def test_a_tilt_is_bounded_far_from_the_log():
    tilt = torch.ones((2, 3))
    near = tilted(tilt, torch.full((1, 2), 3.0), torch.full((1, 2), 6.0))
    far = tilted(tilt, torch.full((1, 2), 1e6), torch.full((1, 2), 1e6))
    assert torch.equal(near, far)


NETS = ope.FitConfig(updates=200, evaluate_every=50, batch_size=64)


@pytest.fixture(scope="module")
def bed():
    truth, _, policy = linear_gaussian()
    data = log_of(truth, policy, episodes=120, horizon=12, seed=0)
    config = ope.DynamicsConfig(members=4, hidden=(16,), noise="bootstrap", fit=NETS)
    dynamics = fit_dynamics(data, config, 0, train=range(60), held_out=range(60, 80))
    return data, dynamics


def ratio_of(bed, **settings):
    config = ope.RatioConfig(members=2, hidden=(16,), **{"fit": NETS, **settings})
    return fit_transition_ratio(*bed, config, 0, train=range(80, 110), held_out=range(110, 120))


def test_calibration_leaves_the_ratio_as_it_is_and_shares_its_networks(bed):
    ratio, log = ratio_of(bed), DeviceLog.of(bed[0], "cpu")
    rows = log.at(log.rows_of([80]))
    before = ratio.log_ratio(rows.state, rows.action, rows)
    calibrated = calibrate_moments(ratio, log, range(80, 120), CANDIDATES, 0)
    assert not ratio.tilt.any()
    assert calibrated.tilt.any()
    assert torch.equal(ratio.log_ratio(rows.state, rows.action, rows), before)
    assert calibrated.classifiers is ratio.classifiers
    given = ratio.parts(ratio.features(ratio.given(rows.state, rows.action), rows))
    found = calibrated.log_ratio(rows.state, rows.action, rows)
    assert torch.allclose(found, before + tilted(calibrated.tilt, *given))


def test_moments_out_of_the_candidates_reach_leave_most_candidates_their_weight():
    """Logged outcomes 30 standard deviations from all candidates: no weights have their mean."""
    outcomes, shift = normal(16, ROWS, 2, seed=1), torch.tensor([30.0, 0.0])
    real = normal(ROWS, 2, seed=2) + shift
    seen = Candidates(normal(ROWS, 1), real, outcomes, torch.zeros(outcomes.shape[:2]))
    tilt = seen.tilt(ROWS // 2)
    gap, candidates = seen.moments(torch.zeros_like(tilt))
    tilted_gap, left = seen.moments(tilt)
    assert candidates == pytest.approx(16)
    assert left >= LEAST_CANDIDATES * 16
    assert tilted_gap < gap


def test_transitions_are_compared_with_the_member_that_left_them_out(bed):
    """The mean of one member is off by 100, and it is the one that is compared or not."""
    dynamics, log = bed[1], DeviceLog.of(bed[0], "cpu")
    ratio, apart = ratio_of(bed), []

    def member_mean(predicted, member, state):
        return EnsembleDynamics.member_mean(dynamics, predicted, member, state) + 100.0 * (
            member[:, None] == 3
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamics, "member_mean", member_mean)
        for left_out in ([range(80, 120), [], [], []], [[], [], [], range(80, 120)]):
            seen = calibrate_moments(ratio, log, range(80, 120), 4, 0, left_out=left_out)
            apart.append(seen.moments.gap)
    assert apart[0] < 1.0 < apart[1]


def test_a_calibrated_ratio_is_saved_and_loaded_with_its_tilt(bed):
    ratio, log = ratio_of(bed), DeviceLog.of(bed[0], "cpu")
    calibrated = calibrate_moments(ratio, log, range(80, 120), CANDIDATES, 0)
    ratio.load_state_dict(calibrated.state_dict())
    assert torch.equal(ratio.tilt, calibrated.tilt)


@pytest.mark.parametrize("member_episodes", ["jackknife", "bootstrap"])
def test_the_error_of_the_mean_has_the_members_standard_error(bed, member_episodes):
    """4 standard errors of a standard deviation of n draws, σ / √(2 n)."""
    data, fitted = bed
    dynamics = fitted.with_noise("none")
    dynamics.config = ope.DynamicsConfig(members=4, hidden=(16,), member_episodes=member_episodes)
    state, action = (torch.from_numpy(of[:1]) for of in (data.states, data.actions))
    predicted = dynamics.predict(state, action)
    draws = 20_000
    many = predicted.expand(-1, draws, -1)
    found = dynamics.mean_error(many, torch.Generator().manual_seed(0)).double()
    means = dynamics.targets.inverse(predicted[:, 0, : dynamics.target_size])
    for entry in range(dynamics.target_size):
        values = means[:, entry].tolist()
        expected = spread_of(values, jackknife=member_episodes == "jackknife").standard_error
        assert float(found[:, entry].std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * draws))
        assert abs(float(found[:, entry].mean())) < 4 * expected / math.sqrt(draws)


def test_one_member_knows_no_error(bed):
    dynamics = bed[1]
    one = torch.zeros((1, 3, dynamics.target_size))
    assert not dynamics.mean_error(one, torch.Generator()).any()


def test_smoothing_hides_what_is_smaller_than_the_models_error(bed):
    """A model without noise is told from a noisy log, and not under 100 standard errors.

    By luck, 240 held-out transitions are told apart with an accuracy of 0.5 ± 0.5 / √240 = 0.032.
    """
    nets = ope.FitConfig(updates=1000, evaluate_every=100, batch_size=64, learning_rate=3e-3)
    without = bed[0], bed[1].with_noise("none")
    sharp, blurred = (ratio_of(without, smoothing=s, fit=nets).report for s in (0.0, 100.0))
    assert sharp.accuracy > 0.5 + 8 * 0.032
    assert blurred.accuracy < 0.5 + 4 * 0.032


@pytest.mark.parametrize("smoothing", [-1.0, "much", math.nan, math.inf])
def test_a_smoothing_that_is_none_is_refused(smoothing):
    with pytest.raises(ope.ConfigError, match="smoothing"):
        ope.RatioConfig(smoothing=smoothing)


def test_the_default_resamples_by_calibrated_ratios_and_named_forms_do_not(bed):
    dynamics = ope.DynamicsConfig(members=2, hidden=(16,), fit=NETS)
    ratio = ope.RatioConfig(members=2, hidden=(16,), fit=NETS)
    config = ope.LFIWConfig(dynamics=dynamics, ratio=ratio, rollouts=60)
    fit = ope.LFIW(ope.Estimand(6), config).fit(bed[0], 0)
    assert sorted(fit.calibrated_ratios) == [4, 16]
    assert not fit.ratio.tilt.any()
    assert fit.with_candidate(Candidate("bootstrap", 4)).weighting.calibrated
    plain = ope.Weighting(form="uniform", candidates=4)
    calibrated = ope.Weighting(form="uniform", candidates=4, calibrated=True)
    assert fit.ratio_for(plain) is fit.ratio
    assert fit.ratio_for(calibrated) is fit.calibrated_ratios[4]
    _, _, policy = linear_gaussian()
    [[one, other]] = fit.estimate_forms([policy], [plain, calibrated])
    assert other.diagnostics["moments.gap"] == fit.calibrated_ratios[4].moments.gap
    assert not any(name.startswith("moments") for name in one.diagnostics)
    named = ope.LFIWConfig(dynamics=dynamics, ratio=ratio, weighting=plain)
    fit = ope.LFIW(ope.Estimand(6), named).fit(bed[0], 0)
    assert not fit.calibrated_ratios
    with pytest.raises(ope.ConfigError, match="not calibrated for 4 candidates"):
        fit.estimate_forms([policy], [calibrated])
    with pytest.raises(ope.ConfigError, match="not calibrated for 4 candidates"):
        fit.with_candidate(Candidate("bootstrap", 4))
    named = ope.LFIWConfig(dynamics=dynamics, ratio=ratio, weighting=calibrated)
    assert list(ope.LFIW(ope.Estimand(6), named).fit(bed[0], 0).calibrated_ratios) == [4]


@pytest.mark.parametrize(("form", "candidates"), [("stepwise", 4), ("uniform", 1)])
def test_only_uniform_resampling_is_calibrated(form, candidates):
    with pytest.raises(ope.ConfigError, match="calibrated is of the form"):
        ope.Weighting(form=form, candidates=candidates, calibrated=True)


def test_fits_that_are_calibrated_for_other_numbers_are_not_shared():
    calibrated = (ope.Weighting(form="uniform", candidates=k, calibrated=True) for k in (4, 16))
    keys = [
        ope.LFIW(ope.Estimand(6), ope.LFIWConfig(weighting=weighting)).sharing_key
        for weighting in ("auto", ope.Weighting(), *calibrated)
    ]
    assert all(one != other for one, other in itertools.combinations(keys, 2))
    plain = ope.LFIWConfig(weighting=ope.Weighting(form="uniform", candidates=4))
    assert ope.LFIW(ope.Estimand(6), plain).sharing_key == keys[1]

"""The ratio of two sets of samples: what goes in, and what does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from testbeds import linear_gaussian, log_of

import lfiw_ope as ope
from lfiw_ope.data import DeviceLog
from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.nn import Standardiser
from lfiw_ope.ratios import episode_boundary, source_of

CONFIG = ope.ClassifierConfig(
    members=3, hidden=(8,), fit=ope.FitConfig(updates=40, evaluate_every=10, batch_size=32)
)


def rows(count=200, shift=0.0, seed=0):
    return torch.randn((count, 2), generator=torch.Generator().manual_seed(seed)) + shift


def drawn(shift=0.0):
    return lambda count, generator: (
        torch.randn((count, 2), generator=generator, device=generator.device) + shift
    )


def fit(numerator=None, denominator=None, config=CONFIG, seed=0, **more):
    numerator = rows() if numerator is None else numerator
    denominator = rows(300, shift=0.5, seed=1) if denominator is None else denominator
    return ope.fit_density_ratio(numerator, denominator, config, seed=seed, **more)


def at(ratio):
    return ratio.log_ratio(rows(20, seed=7))


@pytest.mark.parametrize(
    ("numerator", "says"),
    [
        (torch.randn(50), r"the shape \[50\]; samples are expected as \[R, D\]"),
        (torch.randn(50, 2, 2), r"the shape \[50, 2, 2\]"),
        (torch.randn(50, 0), r"the shape \[50, 0\]"),
        (torch.randn(9, 2), "has 9 samples; 10 or more are needed"),
        (torch.randn(50, 3), "have 3 entries and the denominator's 2"),
        (torch.tensor([[1.0, np.nan], [np.inf, 0.0]] * 5), "hold 10 of 20 entries that are NaN"),
        (np.full((20, 2), 1e300), "hold 40 of 40 entries that are NaN, infinite or too large"),
        (np.full((20, 2), "a"), "holds <U1 values; pass real numbers"),
        (np.full((20, 2), 1j), "holds complex128 values"),
        (torch.full((20, 2), 1j), "holds torch.complex64 values"),
        (lambda count, generator: torch.zeros(count), "drew an array of the shape"),  # noqa: ARG005
        (lambda count, generator: np.zeros((3, 2)), r"so \[500, 2\] was expected"),  # noqa: ARG005
        (lambda count, generator: torch.full((count, 2), np.nan), "hold 1000 of 1000"),  # noqa: ARG005
        (
            rows().double().numpy() + np.array([0.0, 1e9]),
            "Column 1 of the numerator's samples varies by",
        ),
        (rows().double() - 1e9, "Column 0 of the numerator's samples varies by"),
        (
            np.arange(60).reshape(30, 2) + 10**9,
            "Column 0 .* varies by 17.3 about 1e",
        ),
        (
            lambda count, generator: drawn()(count, generator).double() + 1e9,
            "subtract the offset from both sides' samples",
        ),
    ],
)
def test_what_are_no_samples_is_refused(numerator, says):
    with pytest.raises(ope.DataError, match=says):
        fit(numerator, held_out_draws=500)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"balance": "both"}, "balance is 'both'; it must be one of equal, pooled"),
        ({"balance": "pooled", "numerator": drawn()}, "has no size to be drawn in proportion"),
        ({"held_out": 0.0}, "held_out is 0.0"),
        ({"held_out_draws": 5}, "held_out_draws is 5"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"seed": -1}, "seed is -1"),
        ({"config": {"members": 3}}, "config is a dict; give a ClassifierConfig, or None"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, says):
    with pytest.raises(ope.ConfigError, match=says):
        fit(**setting)


def test_offsets_that_float32_bears_and_constant_columns_are_samples():
    given = rows().double() + torch.tensor([1e4, 0.0])
    given[:, 1] = 0.3
    given[::2, 1] = 0.1 + 0.2  # the next number
    assert fit(given, given).report.log_loss == pytest.approx(np.log(2), abs=0.1)


@pytest.mark.parametrize("given", [None, "rows", [object()]])
def test_a_function_that_draws_no_array_is_refused(given):
    says = f"The numerator drew a {type(given).__name__}; a function that draws must give"
    with pytest.raises(ope.ConfigError, match=says):
        fit(lambda count, generator: given)  # noqa: ARG005


def test_a_function_that_changes_its_mind_is_refused():
    def draw(count, generator):
        return torch.randn((count, 2 if count == 500 else 3), generator=generator)

    with pytest.raises(ope.DataError, match=r"shape \[96, 3\]; 96 samples were asked for"):
        fit(draw, held_out_draws=500)


def test_a_function_that_leaves_the_numbers_diverges():
    def draw(count, generator):
        return torch.randn((count, 2), generator=generator) * (1.0 if count == 500 else np.nan)

    with pytest.raises(ope.DivergedError, match="classifier diverged"):
        fit(draw, held_out_draws=500)


@pytest.mark.parametrize("sides", [(None, None), (drawn(), drawn(0.5)), (None, drawn(0.5))])
def test_a_seed_decides_all(sides):
    state = torch.get_rng_state()
    first, same, other = (at(fit(*sides, seed=seed, held_out_draws=100)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_arrays_of_any_number_type_are_the_same_samples():
    tensors = [(rows(60) * 100).round(), (rows(80, shift=0.5, seed=1) * 100).round()]
    expected = at(fit(*tensors))
    for kind in (np.float64, np.float32, np.int32):
        arrays = [x.numpy().astype(kind) for x in tensors]
        arrays[0].flags.writeable = False
        assert torch.equal(at(fit(*arrays)), expected)
    assert torch.equal(at(fit(*(x.half() for x in tensors))), expected)


def test_the_ratio_reads_as_samples_do():
    ratio = fit()
    x = rows(24, seed=7)
    flat = ratio.log_ratio(x)
    assert flat.shape == (24,)
    assert torch.equal(ratio.log_ratio(x.view(2, 3, 4, 2)).flatten(), flat)
    assert torch.equal(ratio.log_ratio(x.double().numpy()), flat)
    assert ratio.log_ratio(x[0]).shape == ()
    assert ratio.log_ratio(x[:0]).shape == (0,)
    with pytest.raises(ope.DataError, match=r"shape \[24, 1\].*must be 2"):
        ratio.log_ratio(x[:, :1])
    x[3:5, 1] = torch.tensor([torch.nan, -torch.inf])
    with pytest.raises(ope.DataError, match="2 of the samples' 48 entries are NaN"):
        ratio.log_ratio(x)


def test_samples_are_not_changed_and_those_held_out_are_kept_apart():
    given = torch.arange(50.0)[:, None]
    source = source_of("numerator", given, 0.2, 100, 0, torch.device("cpu"))
    assert len(source.held_out) == 10
    both = torch.cat((source.train, source.held_out)).flatten()
    assert both.sort().values.tolist() == given.flatten().tolist()
    assert source.held_out.flatten().tolist() != list(range(10))
    source.train.zero_()
    assert torch.equal(given, torch.arange(50.0)[:, None])
    drawn = source_of("numerator", given, 0.2, 100, 0, torch.device("cpu"))
    assert set(drawn.draw(500, torch.Generator()).flatten().tolist()) == set(
        drawn.train.flatten().tolist()
    )


def test_what_estimates_average_is_left_to_them():
    config = replace(CONFIG, average="estimates")
    ratio = fit(config=config)
    x = rows(12, seed=7).view(3, 4, 2)
    own = ratio.log_ratio(x)
    assert own.shape == (3, 3, 4)
    logits = ratio.classifiers.member_logits(ratio.inputs(x).flatten(0, 1)).view(3, 3, 4)
    slope = ratio.classifiers.calibration.slope
    torch.testing.assert_close(own, logits * slope[..., None])
    assert len(set(slope.flatten().tolist())) == 3
    assert ratio.report.temperature == pytest.approx(float((1 / slope).mean()), rel=1e-5)


def test_a_curve_of_several_estimates_is_of_the_samples_there_are():
    """3 classifiers of 40 and 60 held-out samples: 96 in effect, and not 288."""
    report = fit(config=replace(CONFIG, average="estimates")).report
    for curve in (report.reliability, report.uncalibrated_reliability):
        assert len(curve.count) == 5
        # Each count is rounded.
        assert sum(curve.count) == pytest.approx(100, abs=0.5 * len(curve.count))
        assert min(curve.standard_error) > 0.5 * (0.2 / 20) ** 0.5


@pytest.mark.parametrize("sides", [(None, None), (drawn(), drawn(0.5))])
def test_averages_and_calibrations_come_after_the_same_training(sides):
    plain = replace(CONFIG, calibration="none")
    logits = at(fit(*sides, config=plain, held_out_draws=100))
    config = replace(CONFIG, average="estimates", calibration="platt")
    ratio = fit(*sides, config=config, held_out_draws=100)
    report = ratio.report
    calibrated = ratio.classifiers.calibration
    member_logits = (at(ratio) - calibrated.offset) / calibrated.slope
    torch.testing.assert_close(member_logits.mean(0), logits)
    assert (report.calibration, report.temperature) == ("platt", None)
    assert report.slope == pytest.approx(float(calibrated.slope.mean()))


def test_a_reported_calibration_is_not_judged_by_what_it_was_fitted_to():
    """Isotonic regression fits 20 held-out samples of noise at will, and the report sees it."""
    noise = rows(50, seed=3), rows(50, seed=4)
    config = replace(CONFIG, calibration="isotonic")
    report = fit(*noise, config=config).report
    assert report.log_loss > np.log(2)


def test_held_out_episodes_are_cut_between_two():
    truth, _, policy = linear_gaussian()
    data = log_of(truth, policy, episodes=6, horizon=10, seed=0)
    log = DeviceLog.of(data, "cpu")
    assert episode_boundary(log, log.rows_of([4, 0, 5])) in (10, 20)
    assert episode_boundary(log, log.rows_of([4, 0])) == 10
    assert episode_boundary(log, log.rows_of([3])) == 5
    thinned = log.rows_of([5, 2, 1])[torch.tensor([0, 11, 12, 13, 14, 15, 25])]
    assert episode_boundary(log, thinned) == 1
    assert episode_boundary(log, log.rows_of([3])[:1]) == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"train": []}, r"train is \[\]; it must be one or more episodes' numbers"),
        ({"held_out": range(0)}, "held_out is range"),
        ({"train": [0.5]}, "train is"),
        ({"train": [2, 6]}, "train names the episode 6; the data have episodes 0 to 5"),
        ({"held_out": [-1]}, "held_out names the episode -1"),
        ({"held_out": [1, 3, 4]}, "2 episodes are in train and in held_out, the first 3"),
        ({"config": ope.ClassifierConfig()}, "config is a ClassifierConfig; give a RatioConfig"),
    ],
)
def test_a_ratio_of_transitions_without_its_episodes_is_refused(given, says):
    truth, model, policy = linear_gaussian()
    data = log_of(truth, policy, episodes=6, horizon=10, seed=0)
    settings = {"config": ope.RatioConfig(), "train": [2, 3, 4, 5], "held_out": [0, 1]}
    with pytest.raises(ope.ConfigError, match=says):
        ope.fit_transition_ratio(data, model, seed=0, **(settings | given))


def test_dynamics_of_other_sizes_are_refused():
    truth, _, policy = linear_gaussian()
    data = log_of(truth, policy, episodes=6, horizon=10, seed=0)
    config = ope.DynamicsConfig(members=1, hidden=(4,))
    parts = [Standardiser(torch.zeros(size), torch.ones(size)) for size in (6, 5)]
    bounds = torch.zeros(5), torch.ones(5)
    other = EnsembleDynamics(config, *parts, bounds, state_size=4, learns_termination=False)
    with pytest.raises(ope.DataError, match=r"3 entries and actions of 2; the dynamics .* 4 and 2"):
        ope.fit_transition_ratio(data, other, ope.RatioConfig(), 0, train=[1, 2], held_out=[0])


@pytest.mark.gpu
def test_a_gpu_gives_a_ratio_too():
    there = fit(device="cuda")
    assert there.report.log_loss == pytest.approx(fit().report.log_loss, abs=0.05)
    assert there.log_ratio(rows(5)).device.type == "cuda"
    assert at(fit(drawn(), drawn(0.5), device="cuda", held_out_draws=100)).isfinite().all()

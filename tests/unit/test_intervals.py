"""Intervals of estimates over logged episodes, against scipy, closed forms and slow references."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lfiw_envs import TabularPolicy
from scipy import stats
from testbeds import log_of, tabular

import lfiw_ope as ope
from lfiw_ope.core import numpy_generator
from lfiw_ope.estimators import Terms, lengths_of, magic, resample_counts, weighted_doubly_robust
from lfiw_ope.estimators.doubly_robust_terms import doubly_robust
from lfiw_ope.stats import (
    LEVELS,
    Interval,
    RatioSums,
    best_cut,
    bootstrap_ends,
    degrees_of_freedom,
    episode_intervals,
    lower_bound,
    member_intervals,
    weighted_bernstein,
)

HORIZON, EPISODES = 4, 60
ESTIMAND = ope.Estimand(HORIZON, 0.9)
FORMS = {"IS": ope.IS, "PDIS": ope.PDIS, "WIS": ope.WIS, "WPDIS": ope.WPDIS}


def policies():
    rng = np.random.default_rng(2)
    behaviour, other = (rng.dirichlet(np.ones(3), 6) for _ in range(2))
    behaviour = 0.7 * behaviour + 0.1
    return TabularPolicy(behaviour), TabularPolicy(0.8 * behaviour + 0.2 * other)


def log(episodes=EPISODES, cut=None):
    truth, _, _ = tabular()
    return log_of(truth, policies()[0], episodes, HORIZON, seed=4, cut=cut)


def ratio_sums(seed=0, episodes=EPISODES, ratios=3):
    rng = np.random.default_rng(seed)
    return RatioSums(rng.normal(size=(episodes, ratios)), rng.lognormal(size=(episodes, ratios)))


def terms(seed=0, cut=False):
    """Doubly robust terms with weights far from equal; with a cut, standings that differ."""
    generator = torch.Generator().manual_seed(seed)
    standing = torch.ones((EPISODES, HORIZON), dtype=torch.float64)
    if cut:
        standing[: EPISODES // 3, 2:] = 0.0
        standing[EPISODES // 3 :, 2:] = 1.5
    residual = torch.randn((EPISODES, HORIZON), generator=generator, dtype=torch.float64)
    return Terms(
        torch.randn(EPISODES, generator=generator, dtype=torch.float64),
        residual,
        torch.randn((EPISODES, HORIZON), generator=generator, dtype=torch.float64),
        standing,
    )


@pytest.mark.parametrize("cut", [None, 0.3])
@pytest.mark.parametrize("name", [*FORMS, "BehaviourMean"])
def test_sums_are_what_the_estimate_is_made_of(name, cut, monkeypatch):
    """f(Σ x) is the estimate, and its influence the standard error, whatever the form."""
    seen = []

    def spy(sums, **given):
        seen.append(sums)
        return episode_intervals(sums, **given)

    for place in ("estimators.importance", "estimators.behaviour"):
        monkeypatch.setattr(f"lfiw_ope.{place}.episode_intervals", spy)
    asked = {"interval": ope.IntervalConfig()} if name == "BehaviourMean" else {}
    made = getattr(ope, name)(ESTIMAND, **asked)
    found = made.fit(log(cut=cut), seed=0).estimate(policies()[1])
    (sums,) = seen
    assert sums.value == pytest.approx(found.value, rel=1e-12)
    n = found.episodes
    error = math.sqrt(np.square(sums.influence).sum() * n / (n - 1))
    assert error == pytest.approx(found.standard_error, rel=1e-9)


def test_the_behaviour_s_mean_claims_nothing_of_other_policies():
    found = ope.BehaviourMean(ESTIMAND).fit(log(), seed=0).estimate(policies()[1])
    assert not found.intervals
    assert "another policy's value" in found.no_interval


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("form", ["dr", "wdr", "magic"])
def test_doubly_robust_values_are_such_sums(form, cut):
    made = terms(cut=cut)
    if form == "magic":
        counts = resample_counts(EPISODES, 50, torch.Generator().manual_seed(0))
        found = magic(made, lengths_of(HORIZON, 9), counts)
    else:
        found = {"dr": doubly_robust, "wdr": weighted_doubly_robust}[form](made)
    assert found.sums.value == pytest.approx(found.value, rel=1e-12)
    assert found.sums.influence.sum() == pytest.approx(0.0, abs=1e-12)


def test_a_sample_s_value_is_that_of_its_episodes_copied():
    """Counting an episode twice is having it twice; a slow reference fits the sample itself."""
    sums, rng = ratio_sums(), np.random.default_rng(1)
    drawn = rng.integers(EPISODES, size=(5, EPISODES))
    counts = np.stack([np.bincount(row, minlength=EPISODES) for row in drawn]).astype(float)
    copied = [RatioSums(sums.numerator[row], sums.denominator[row]).value for row in drawn]
    np.testing.assert_allclose(sums.counted(counts), copied, rtol=1e-10)
    left_out = [
        RatioSums(np.delete(sums.numerator, i, 0), np.delete(sums.denominator, i, 0)).value
        for i in range(EPISODES)
    ]
    np.testing.assert_allclose(sums.counted(1.0 - np.eye(EPISODES)), left_out, rtol=1e-9)
    np.testing.assert_allclose(
        # The jackknife's deviations are the influence's to first order.
        np.corrcoef(sums.value - np.array(left_out), sums.influence)[0, 1],
        1.0,
        atol=5e-3,
    )


def test_a_sample_without_a_weight_takes_all_the_log_s_ratio():
    sums = RatioSums(np.array([[2.0], [0.0], [0.0]]), np.array([[1.0], [0.0], [0.0]]))
    np.testing.assert_allclose(sums.counted(np.array([[0.0, 2.0, 1.0]])), [2.0])
    assert RatioSums(np.zeros((3, 1)), np.zeros((3, 1))).value == 0.0


def test_equal_denominators_become_one_ratio():
    x = torch.randn((5, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, several = RatioSums.of(x, torch.ones_like(x)), RatioSums.of(x, torch.rand_like(x) + 1)
    assert one.numerator.shape == (5, 1)
    assert several.numerator.shape == (5, 3)
    assert one.value == pytest.approx(float(x.sum() / 5))


@pytest.mark.parametrize("at_once", [1 << 22, 7 * EPISODES])
@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_bootstrap_intervals_are_scipy_s_on_gathered_episodes(method, at_once, monkeypatch):
    monkeypatch.setattr("lfiw_ope.stats.intervals.NUMBERS_AT_ONCE", at_once)
    sums = ratio_sums(seed=3)
    config = ope.IntervalConfig(method=method, resamples=400)

    def statistic(places, axis):
        x, y = (part[places].sum(axis=-2) for part in (sums.numerator, sums.denominator))
        assert axis == -1
        return (x / y).sum(-1)

    for level, ends in zip(LEVELS, bootstrap_ends(sums, config, seed=0), strict=True):
        told = stats.bootstrap(
            (np.arange(EPISODES),),
            statistic,
            n_resamples=400,
            vectorized=True,
            confidence_level=level,
            method=method,
            rng=numpy_generator(0, "interval"),
        ).confidence_interval
        assert ends == pytest.approx((told.low, told.high), rel=1e-9)


def test_bca_says_nothing_where_all_samples_lie_on_one_side(monkeypatch):
    sums = ratio_sums()
    monkeypatch.setattr(RatioSums, "value", 1e6)
    config = ope.IntervalConfig(method="bca", resamples=100)
    told = episode_intervals(sums, standard_error=1.0, config=config, seed=0)
    assert not told.intervals
    assert "one side of the estimate" in told.no_interval


def test_degrees_of_freedom_count_what_carries_the_spread():
    rng = np.random.default_rng(0)
    u = rng.normal(size=400)
    # κ of 400 normal numbers is 3 ± 0.25 (2 SE, √(24 / 400)): ν within 2 · 400 / (2 ∓ 0.5).
    assert 320 < degrees_of_freedom(u) <= 399
    one = np.zeros(400)
    one[0] = 1.0
    assert degrees_of_freedom(one) == pytest.approx(2.0, rel=0.01)
    assert degrees_of_freedom(np.zeros(5)) == 4
    assert degrees_of_freedom(np.array([1.0, -1.0])) == 1
    # k equal terms among many 0 have κ = N / k: 2 N / (κ − 1) is near 2 k.
    few = np.zeros(10_000)
    few[:10] = 1.0
    assert degrees_of_freedom(few) == pytest.approx(20, rel=0.01)


def test_the_t_interval_of_a_mean_is_the_textbook_s_but_for_its_freedom():
    x = np.random.default_rng(0).normal(size=50)
    sums = RatioSums(x[:, None], np.ones((50, 1)))
    error = x.std(ddof=1) / math.sqrt(50)
    told = episode_intervals(
        sums, standard_error=error, config=ope.IntervalConfig(levels=(0.9,)), seed=0
    )
    freedom = degrees_of_freedom(x - x.mean())
    low, high = stats.t.interval(0.9, freedom, x.mean(), error)
    (found,) = told.intervals
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize("method", ["t", "percentile", "bca"])
@pytest.mark.parametrize("form", FORMS)
def test_one_seed_gives_one_interval_in_any_company(form, method):
    config = ope.ImportanceConfig(interval=ope.IntervalConfig(method=method))
    fit = FORMS[form](ESTIMAND, config).fit(log(), seed=3)
    mine, other = policies()
    alone = fit.estimate(other)
    assert fit.estimate([mine, other])[1].intervals == alone.intervals
    again = FORMS[form](ESTIMAND, config).fit(log(), seed=3).estimate(other)
    assert again.intervals == alone.intervals
    assert [one.method for one in alone.intervals] == [method] * len(LEVELS)
    nested(alone)
    moved = FORMS[form](ESTIMAND, config).fit(log(), seed=4).estimate(other)
    assert (moved.intervals == alone.intervals) == (method == "t")


def nested(estimate):
    for inner, outer in zip(estimate.intervals, estimate.intervals[1:], strict=False):
        assert inner.level < outer.level
        assert outer.low <= inner.low <= inner.high <= outer.high


def test_there_is_no_interval_where_none_is_honest():
    data, (mine, other) = log(), policies()
    deterministic = TabularPolicy(np.eye(3)[np.zeros(6, int)])
    none = ope.IS(ESTIMAND).fit(data, seed=0).estimate(deterministic)
    assert none.intervals == ()
    assert "Too few episodes" in none.no_interval
    for shaping in ({"clip": (0.0, 1.01)}, {"exponent": 0.5}, {"temper": 0.99}, {"temper": 1.0}):
        config = ope.ImportanceConfig(**shaping)
        shaped = ope.WIS(ESTIMAND, config).fit(data, seed=0).estimate(other)
        assert shaped.intervals == ()
        assert "clipped or flattened" in shaped.no_interval
    off = ope.ImportanceConfig(interval=ope.IntervalConfig(method="none"))
    assert "'none'" in ope.IS(ESTIMAND, off).fit(data, seed=0).estimate(mine).no_interval


def test_magic_has_none_of_its_own_but_where_asked_for():
    data, (_, other) = log(), policies()
    quick = ope.FitConfig(updates=20, evaluate_every=10, batch_size=32, patience=None)
    given = {"fqe": ope.FQEConfig(hidden=(8,), members=2, fit=quick)}
    found = ope.MAGIC(ESTIMAND, ope.MAGICConfig(**given)).fit(data, seed=0).estimate(other)
    assert found.intervals == ()
    assert "Refitted" in found.no_interval
    asked = ope.MAGICConfig(**given, interval=ope.IntervalConfig(method="bca"))
    nested(ope.MAGIC(ESTIMAND, asked).fit(data, seed=0).estimate(other))
    told = ope.DR(ESTIMAND, ope.DoublyRobustConfig(**given)).fit(data, seed=0).estimate(other)
    assert told.interval().covers(told.value)


def test_no_interval_where_heavy_weights_are_missing():
    """Episodes that the target would have had more of are taken out: weights average below 1."""
    data, (_, other) = log(episodes=200), policies()
    fit = ope.IS(ESTIMAND).fit(data, seed=0)
    weight = fit.padded.spread(fit.ratio.log_ratio(other)).sum(1).exp().numpy()
    light = np.flatnonzero(weight < np.quantile(weight, 0.3))
    found = ope.WIS(ESTIMAND).fit(data.select(light.tolist()), seed=0).estimate(other)
    assert found.diagnostics["mean_weight"] < 0.8
    assert "missing" in found.no_interval
    assert ope.WIS(ESTIMAND).fit(data, seed=0).estimate(other).no_interval is None


RANGE = (-15.0, 15.0)
BERNSTEIN = ope.IntervalConfig(method="bernstein", return_range=RANGE)


def test_a_bernstein_bound_is_maurer_and_pontil_s():
    y = np.array([0.0, 1.0, 1.0, 2.0])
    log_term = math.log(2 / 0.05)
    expected = 1.0 - math.sqrt(2 * (2 / 3) * log_term / 4) - 7 * 2.0 * log_term / 9
    assert lower_bound(y, 2.0, 0.05) == pytest.approx(expected)


def test_a_cut_trades_bias_for_width():
    rng = np.random.default_rng(0)
    y = rng.lognormal(sigma=2.0, size=1000)
    cut = best_cut(y, 4000, 0.025)
    assert y.min() < cut < y.max()

    def predicted(c):
        kept = np.minimum(y, c)
        noise = math.sqrt(2 * kept.var(ddof=1) * math.log(80) / 4000)
        return kept.mean() - noise - 7 * c * math.log(80) / (3 * 3999)

    assert predicted(cut) >= max(predicted(cut / 2), predicted(2 * cut))
    assert best_cut(np.zeros(5), 10, 0.1) > 0


def test_bernstein_intervals_lie_in_the_range_and_nest():
    data, (mine, other) = log(episodes=400), policies()
    mean = ope.BehaviourMean(ESTIMAND, interval=BERNSTEIN).fit(data, seed=0).estimate(mine)
    config = ope.ImportanceConfig(interval=BERNSTEIN)
    weighed = [kind(ESTIMAND, config).fit(data, seed=0).estimate(other) for kind in FORMS.values()]
    for found in (mean, *weighed):
        nested(found)
        widest = found.intervals[-1]
        assert RANGE[0] <= widest.low < widest.high <= RANGE[1]
        assert widest.width < RANGE[1] - RANGE[0]
    # Whole-episode weights, whichever form gives the value.
    assert len({found.intervals for found in weighed}) == 1
    assert mean.interval().covers(mean.value)


def test_a_bernstein_bound_is_refused_where_it_would_not_hold():
    mine, other = policies()
    config = ope.ImportanceConfig(interval=BERNSTEIN)
    cut = ope.IS(ESTIMAND, config).fit(log(cut=0.3), seed=0).estimate(other)
    assert "cut short" in cut.no_interval
    mean = ope.BehaviourMean(ESTIMAND, interval=BERNSTEIN)
    assert "cut short" in mean.fit(log(cut=0.3), seed=0).estimate(mine).no_interval
    narrow = ope.IntervalConfig(method="bernstein", return_range=(0.0, 1.0))
    with pytest.raises(ope.DataError, match="return_range is"):
        ope.BehaviourMean(ESTIMAND, interval=narrow).fit(log(), seed=0)
    with pytest.raises(ope.DataError, match="return_range is"):
        ope.IS(ESTIMAND, ope.ImportanceConfig(interval=narrow)).fit(log(), seed=0)
    with pytest.raises(ope.ConfigError, match="nothing was fitted"):
        ope.DoublyRobustConfig(interval=BERNSTEIN)
    with pytest.raises(ope.ConfigError, match="nothing was fitted"):
        ope.CorrectedModelConfig(interval=BERNSTEIN)
    assert "too few" in weighted_bernstein(np.ones(5), np.ones(5), BERNSTEIN, 0).no_interval


@pytest.mark.parametrize("weight", [50.0, 1e300, math.inf])
def test_weights_that_cannot_be_right_have_no_bernstein_bound(weight):
    # Their mean is 1 in expectation, so that of W (G − low) is in the range's width.
    returns = np.linspace(*RANGE, 200)
    told = weighted_bernstein(np.full(200, weight), returns, BERNSTEIN, 0)
    assert told.intervals == ()
    assert "likelihoods that were logged" in told.no_interval


def test_bernstein_bounds_that_cross_at_a_low_level_stay_in_the_range():
    returns = np.full(200, RANGE[1])
    config = replace(BERNSTEIN, levels=(1e-6, 0.95))
    low, high = weighted_bernstein(np.full(200, 1.05), returns, config, 0).intervals
    assert RANGE[0] <= low.low <= low.high <= RANGE[1]
    assert high.high == RANGE[1]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"method": "magic"}, "method is 'magic'"),
        ({"levels": ()}, "levels is"),
        ({"levels": (0.9, 1.5)}, "confidence level"),
        ({"resamples": 5}, "resamples is 5"),
        ({"method": "bernstein"}, "takes the lowest and the highest"),
        ({"return_range": (0, 1)}, "takes the lowest and the highest"),
        ({"method": "bernstein", "return_range": (1, 0)}, "lowest and the highest return"),
        ({"method": "bernstein", "return_range": (0, math.inf)}, "lowest and the highest return"),
        ({"method": "bernstein", "return_range": 3}, "lowest and the highest return"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, match):
    with pytest.raises(ope.ConfigError, match=match):
        ope.IntervalConfig(**given)


@pytest.mark.parametrize("given", ["t", None, ope.SimulatedIntervalConfig()])
def test_settings_of_another_interval_are_refused(given):
    kinds = [ope.ImportanceConfig, ope.DoublyRobustConfig, ope.CorrectedModelConfig, ope.FQEConfig]
    for config in kinds:
        with pytest.raises(ope.ConfigError, match=r"interval is .* must be of the class"):
            config(interval=given)
    if given is not None:
        with pytest.raises(ope.ConfigError, match=r"interval is .* must be of the class"):
            ope.BehaviourMean(ESTIMAND, interval=given)


def test_a_level_is_told_with_all_its_digits():
    assert str(Interval(0.995, 0.0, 1.0, "t")) == "99.5% [0, 1]"
    assert str(Interval(0.95, 0.0, 1.0, "t")) == "95% [0, 1]"
    found = ope.Estimate(
        estimator="IS",
        estimand=ESTIMAND,
        value=0.5,
        seed=0,
        intervals=(Interval(0.975, 0.0, 1.0, "t"),),
    )
    assert "97.5% [" in str(found)


def test_members_spread_is_their_t_interval():
    members = (1.0, 2.0, 4.0, 5.0)
    error, told = member_intervals(3.0, members, ope.MemberIntervalConfig(levels=(0.95,)))
    assert error == pytest.approx(np.std(members, ddof=1) * math.sqrt(1.25))
    low, high = stats.t.interval(0.95, 3, 3.0, error)
    assert (told.intervals[0].low, told.intervals[0].high) == pytest.approx((low, high))
    error, told = member_intervals(3.0, (3.0,), ope.MemberIntervalConfig())
    assert error is None
    assert "single member" in told.no_interval
    off = member_intervals(3.0, members, ope.MemberIntervalConfig(method="none"))
    assert off.standard_error is not None
    assert "'none'" in off.told.no_interval

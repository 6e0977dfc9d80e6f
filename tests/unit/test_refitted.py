"""Refits of any estimator to halves of the log."""

import math
import re
import sys

import numpy as np
import pytest
from lfiw_envs import TabularPolicy
from testbeds import log_of, tabular

import lfiw_ope as ope

HORIZON = 4
ESTIMAND = ope.Estimand(HORIZON)
QUICK = ope.FitConfig(updates=20, evaluate_every=10, batch_size=32, patience=None)


@pytest.fixture(scope="module")
def bed():
    truth, _, policy = tabular()
    other = TabularPolicy(np.full((6, 3), 1 / 3))
    return truth, policy, other, log_of(truth, policy, 301, HORIZON, seed=0)


class Recorder:
    """An estimator that notes what it is fitted to."""

    def __init__(self, inner):
        self.inner, self.estimand, self.fits = inner, inner.estimand, []

    def fit(self, data, seed, *, progress=lambda *_: None):
        self.fits.append((data, seed))
        return self.inner.fit(data, seed, progress=progress)


def test_the_spread_of_halves_is_the_standard_error_of_a_mean(bed):
    _, policy, _, data = bed
    mean = ope.BehaviourMean(ESTIMAND)
    known = mean.fit(data, seed=0).estimate(policy)
    found = ope.Refitted(mean, refits=400).fit(data, seed=0).estimate(policy)
    assert found.value == known.value
    assert found.estimator == known.estimator
    # A standard deviation of 400 has a relative error of 1 / √800 = 0.035.
    assert found.standard_error == pytest.approx(known.standard_error, rel=4 * 0.035)
    assert found.interval().method == "refits"
    assert abs(found.diagnostics["refit_mean"] - known.value) < known.standard_error


def test_percentiles_are_those_of_the_refits_about_the_value(bed):
    _, policy, _, data = bed
    mean = ope.BehaviourMean(ESTIMAND)
    many = ope.Refitted(mean, refits=400, method="percentile").fit(data, seed=0).estimate(policy)
    normal = ope.Refitted(mean, refits=400).fit(data, seed=0).estimate(policy)
    for level in (0.5, 0.95):
        one, other = many.interval(level), normal.interval(level)
        assert one.method == "refits, percentile"
        # Refits of a mean are nearly normal; a quantile of 400 at 97.5 % has a standard error of
        # √(0.025 · 0.975 / 400) / φ(1.96) = 0.13 standard deviations, and at 75 % of 0.07.
        close = 4 * {0.5: 0.07, 0.95: 0.13}[level] * normal.standard_error
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=close)
    with pytest.raises(ope.ConfigError, match=r"need 40 or more"):
        ope.Refitted(mean, refits=39, method="percentile")
    ope.Refitted(mean, refits=10, method="percentile", levels=(0.8,))


def test_halves_are_halves_of_their_own_seeds(bed):
    data = bed[3]
    recorder = Recorder(ope.BehaviourMean(ESTIMAND))
    ope.Refitted(recorder, refits=6).fit(data, seed=0)
    (whole, seed), *halves = recorder.fits
    assert (whole.num_episodes, seed) == (301, 0)
    assert [half.num_episodes for half, _ in halves] == [150] * 6
    assert len({seed for _, seed in halves}) == 6
    assert len({half.rewards.tobytes() for half, _ in halves}) == 6


def test_policies_of_a_call_share_the_refits(bed):
    _, policy, other, data = bed
    recorder = Recorder(ope.WIS(ESTIMAND))
    fit = ope.Refitted(recorder, refits=5).fit(data, seed=1)
    together = fit.estimate([policy, other])
    assert len(recorder.fits) == 6
    for one, alone in zip(together, map(fit.estimate, (policy, other)), strict=True):
        assert one.intervals == alone.intervals
    assert fit.estimate([]) == []


def test_jobs_give_the_same_numbers(bed):
    pytest.importorskip("joblib")
    _, policy, _, data = bed
    fqe = ope.FQE(ESTIMAND, ope.FQEConfig(hidden=(8,), members=2, fit=QUICK))
    one, two = (
        ope.Refitted(fqe, refits=3, jobs=jobs).fit(data, seed=0).estimate(policy) for jobs in (1, 2)
    )
    assert two.intervals[-1].width == pytest.approx(one.intervals[-1].width, rel=1e-4)
    assert all(math.isfinite(i.low) for i in one.intervals)


def test_without_joblib_nothing_is_fitted(bed, monkeypatch):
    _, _, _, data = bed
    recorder = Recorder(ope.WIS(ESTIMAND))
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ope.MissingDependencyError, match=r"pip install 'lfiw-ope\[compare\]'"):
        ope.Refitted(recorder, refits=3, jobs=2).fit(data, seed=0)
    assert recorder.fits == []


def test_dice_has_no_interval_of_its_own_and_one_by_refits(bed):
    _, policy, _, data = bed
    dice = ope.DICE(ESTIMAND, ope.DICEConfig(hidden=(8,), fit=QUICK))
    assert "Refitted" in dice.fit(data, seed=0).estimate(policy).no_interval
    found = ope.Refitted(dice, refits=3, levels=(0.8,)).fit(data, seed=0).estimate(policy)
    assert found.no_interval is None
    assert found.interval(0.8).covers(found.value)


def test_refits_do_not_make_up_for_weights_that_the_log_lacks(bed):
    _, policy, _, data = bed
    elsewhere = TabularPolicy(np.eye(3)[policy.table.argmin(1)])
    off = ope.IntervalConfig(method="none")
    lost = [
        (ope.ImportanceConfig(), elsewhere, "mean weight|Too few"),
        (ope.ImportanceConfig(interval=off), elsewhere, "Too few"),
        (ope.ImportanceConfig(exponent=0.5), bed[2], "clipped or flattened"),
    ]
    few = data.select(range(40))
    for config, target, why in lost:
        wrapped = ope.Refitted(ope.IS(ESTIMAND, config), refits=4)
        found = wrapped.fit(few, seed=0).estimate(target)
        assert found.intervals == ()
        assert re.search(why, found.no_interval)
        assert found.standard_error is None or config.exponent != 1.0
        assert found.diagnostics["refits"] == 4
    off_only = ope.Refitted(ope.IS(ESTIMAND, ope.ImportanceConfig(interval=off)), refits=4)
    assert off_only.fit(data, seed=0).estimate(policy).interval() is not None


def test_refusals(bed):
    data = bed[3]
    mean = ope.BehaviourMean(ESTIMAND)
    with pytest.raises(ope.ConfigError, match="no estimator"):
        ope.Refitted("fqe")
    with pytest.raises(ope.ConfigError, match="refits is 2"):
        ope.Refitted(mean, refits=2)
    with pytest.raises(ope.ConfigError, match="jobs is 0"):
        ope.Refitted(mean, jobs=0)
    with pytest.raises(ope.DataError, match="at least 4"):
        ope.Refitted(mean).fit(data.select([0, 1, 2]), seed=0)
    with pytest.raises(ope.DataError, match="more than once"):
        ope.Refitted(mean).fit(data.select([0, 1, 2, 3, 3]), seed=0)
    assert ope.Refitted(mean).estimand == ESTIMAND

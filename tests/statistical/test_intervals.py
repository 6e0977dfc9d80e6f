"""Coverage of intervals where the value is known: right ones hold, and wrong ones are seen to fail.

Over R independent repeats a right 95 % interval covers R · 0.95 times, give or take
3 √(0.95 · 0.05 / R): all bounds are of that kind, at two levels.
"""

import functools
import math

import numpy as np
import pytest
from lfiw_envs import TabularMDP, TabularPolicy
from scipy import stats
from testbeds import log_of

import lfiw_ope as ope
from lfiw_ope.stats import (
    IntervalConfig,
    MemberIntervalConfig,
    RatioSums,
    episode_intervals,
    member_intervals,
    weigh,
    weighted_bernstein,
)
from lfiw_ope.stats.bernstein import bernstein

REPEATS, EPISODES, HORIZON, DISCOUNT = 300, 200, 4, 0.95
LEVELS = (0.8, 0.95)
ESTIMAND = ope.Estimand(HORIZON, DISCOUNT)
FORMS = {"IS": ope.IS, "PDIS": ope.PDIS, "WIS": ope.WIS, "WPDIS": ope.WPDIS}


def allowed(level, repeats=REPEATS):
    return 3 * math.sqrt(level * (1 - level) / repeats)


@functools.cache
def bed():
    """Rewards, log-ratios, weights of a target that is apart from the behaviour, and its value."""
    mdp = TabularMDP.random(states=6, actions=3, seed=1, terminal=1)
    rng = np.random.default_rng(2)
    behaviour, other = (rng.dirichlet(np.ones(3), 6) for _ in range(2))
    behaviour = 0.7 * behaviour + 0.1
    target = TabularPolicy(0.6 * behaviour + 0.4 * other)
    data = log_of(mdp, TabularPolicy(behaviour), REPEATS * EPISODES, HORIZON, seed=3)
    fit = ope.IS(ESTIMAND).fit(data, seed=0)
    log_ratio = fit.padded.spread(fit.ratio.log_ratio(target))
    rewards = fit.padded.discounted(DISCOUNT)
    return rewards, log_ratio, mdp.value(target, HORIZON, DISCOUNT)


def coverage(intervals, value):
    """By level, of many repeats."""
    return np.mean([[one.covers(value) for one in of_one] for of_one in intervals], axis=0)


@functools.cache
def covered(form, method):
    """Intervals of 300 repeats of 200 episodes, and their standard errors and values."""
    rewards, log_ratio, _ = bed()
    made = FORMS[form](ESTIMAND)
    weighting = made.config.weighting(made.form, self_normalised=made.self_normalised)
    config = IntervalConfig(method=method, levels=LEVELS, resamples=200)
    found = []
    pairs = zip(rewards.split(EPISODES), log_ratio.split(EPISODES), strict=True)
    for seed, (r, w) in enumerate(pairs):
        one = weigh(r, w, weighting, keep_sums=True)
        told = episode_intervals(
            one.sums, standard_error=one.mc_standard_error, config=config, seed=seed
        )
        found.append((told.intervals, one.value, one.mc_standard_error))
    return found


@pytest.mark.parametrize(
    ("form", "method"),
    [
        *((form, "t") for form in FORMS),
        *((form, "percentile") for form in ("IS", "WPDIS")),
        *((form, "bca") for form in ("PDIS", "WIS")),
    ],
)
def test_weighted_values_are_covered(form, method):
    value = bed()[2]
    for level, share in zip(
        LEVELS, coverage([one[0] for one in covered(form, method)], value), strict=True
    ):
        assert abs(share - level) < allowed(level)


@pytest.mark.parametrize("wrong", [0.5, math.sqrt(EPISODES)])
def test_a_wrong_standard_error_is_seen(wrong):
    """Half of it, and that of a single episode: the bounds above are tight enough to tell."""
    value = bed()[2]
    _, values, errors = zip(*covered("WIS", "t"), strict=True)
    half = np.array(errors) * wrong
    for level in LEVELS:
        share = np.mean(abs(np.array(values) - value) < stats.norm.ppf(0.5 + level / 2) * half)
        assert abs(share - level) > allowed(level)


def test_the_mean_of_few_normal_returns_is_covered():
    """ν from the sample is at most N − 1, so that 10 normal returns are not covered too little."""
    rng, config = np.random.default_rng(0), IntervalConfig(levels=LEVELS)
    found = []
    for seed in range(1000):
        x = rng.normal(size=10)
        sums = RatioSums(x[:, None], np.ones((10, 1)))
        error = x.std(ddof=1) / math.sqrt(10)
        found.append(
            episode_intervals(sums, standard_error=error, config=config, seed=seed).intervals
        )
    for level, share in zip(LEVELS, coverage(found, 0.0), strict=True):
        assert share > level - allowed(level, 1000)


def test_bernstein_covers_at_least_as_often_as_it_says():
    rng = np.random.default_rng(0)
    config = IntervalConfig(method="bernstein", levels=LEVELS, return_range=(0, 1))
    # Rare high returns: the hard case, in which the normal interval falls short.
    returns = (rng.random((2000, 60)) < 0.03).astype(float)
    found = [bernstein(one, config).intervals for one in returns]
    for level, share in zip(LEVELS, coverage(found, 0.03), strict=True):
        assert share > level - allowed(level, 2000)
    error = returns.std(1, ddof=1) / math.sqrt(60)
    normal = np.mean(abs(returns.mean(1) - 0.03) <= 1.96 * error)
    assert normal < 0.95 - allowed(0.95, 2000)


def test_weighted_bernstein_covers_and_says_something():
    rewards, log_ratio, value = bed()
    returns, weights = rewards.sum(1).numpy(), log_ratio.sum(1).exp().numpy()
    span = (float(returns.min()) - 0.5, float(returns.max()) + 0.5)
    config = IntervalConfig(method="bernstein", levels=LEVELS, return_range=span)
    found = [
        weighted_bernstein(weights[part], returns[part], config, seed).intervals
        for seed, part in enumerate(np.array_split(np.arange(len(returns)), 100))
    ]
    for level, share in zip(LEVELS, coverage(found, value), strict=True):
        assert share > level - allowed(level, 100)
    # 600 episodes each: narrower than the range, which needs no data.
    assert np.mean([one[-1].width for one in found]) < 0.8 * (span[1] - span[0])


@pytest.mark.parametrize("members", [3, 10])
def test_members_that_differ_as_bootstrap_samples_do_cover(members):
    """The mean of 50 normal numbers, estimated by the mean of M bootstrap means."""
    rng, config = np.random.default_rng(0), MemberIntervalConfig(levels=LEVELS)
    found = []
    for _ in range(1000):
        x = rng.normal(size=50)
        fits = x[rng.integers(50, size=(members, 50))].mean(1)
        found.append(member_intervals(float(fits.mean()), fits.tolist(), config).told.intervals)
    for level, share in zip(LEVELS, coverage(found, 0.0), strict=True):
        assert abs(share - level) < allowed(level, 1000)


def test_refits_of_a_ratio_cover():
    """WIS by 20 halves: what resampling says of it, without its own standard error."""
    mdp = TabularMDP.random(states=6, actions=3, seed=1, terminal=1)
    rng = np.random.default_rng(2)
    behaviour = 0.7 * rng.dirichlet(np.ones(3), 6) + 0.1
    target = TabularPolicy(0.8 * behaviour + 0.2 * rng.dirichlet(np.ones(3), 6))
    repeats, episodes = 60, 100
    data = log_of(mdp, TabularPolicy(behaviour), repeats * episodes, HORIZON, seed=3)
    found = []
    for seed in range(repeats):
        part = data.select(list(range(seed * episodes, (seed + 1) * episodes)))
        refitted = ope.Refitted(ope.WIS(ESTIMAND), refits=20, levels=LEVELS)
        found.append(refitted.fit(part, seed).estimate(target).intervals)
    value = mdp.value(target, HORIZON, DISCOUNT)
    for level, share in zip(LEVELS, coverage(found, value), strict=True):
        assert abs(share - level) < allowed(level, repeats)

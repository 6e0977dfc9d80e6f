"""Do intervals of simulated values cover? On logs drawn anew, with nets small enough for a test."""

import pytest
from lfiw_envs import LinearGaussianPolicy
from scipy import stats
from testbeds import linear_gaussian, log_of, tabular

import lfiw_ope as ope
from lfiw_ope.stats import student_t

LOGS, EPISODES, HORIZON = 20, 50, 6
LEAST = 15
"""Of the logs, those that 95 % intervals must cover. Where they cover 95 % of the time, fewer are
covered once in 3000 runs; where they cover 40 %, as many once in 600."""

NETS = ope.FitConfig(updates=100, evaluate_every=50, batch_size=64, learning_rate=6e-3)
CONFIG = ope.ModelBasedConfig(
    dynamics=ope.DynamicsConfig(members=5, hidden=(16,), fit=NETS), rollouts=500
)


def linear():
    truth, _, behaviour = linear_gaussian()
    near = LinearGaussianPolicy(
        gain=0.7 * behaviour.gain, bias=behaviour.bias + 0.1, scale=behaviour.scale
    )
    return truth, behaviour, near


def discrete():
    truth, _, behaviour = tabular()
    return truth, behaviour, behaviour


def test_the_bound_is_what_it_says():
    assert stats.binom.cdf(LEAST - 1, LOGS, 0.95) < 1 / 2500
    assert stats.binom.sf(LEAST - 1, LOGS, 0.4) < 1 / 500


@pytest.mark.parametrize("bed", [linear, discrete], ids=lambda bed: bed.__name__)
def test_total_intervals_cover_and_simulation_noise_alone_does_not(bed):
    truth, behaviour, target = bed()
    value = truth.value(target, HORIZON)
    covered = by_noise = 0
    for seed in range(LOGS):
        data = log_of(truth, behaviour, EPISODES, HORIZON, seed=100 + seed)
        found = ope.ModelBased(ope.Estimand(HORIZON), CONFIG).fit(data, seed).estimate(target)
        covered += found.interval(0.95).covers(value)
        (noise,) = student_t(found.value, found.mc_standard_error, 999, levels=(0.95,))
        by_noise += noise.covers(value)
    assert covered >= LEAST
    assert by_noise < LEAST

"""Logs of which half the episodes were cut at random, where many others terminate early.

An episode that terminated is seen for good, while one that lives on may still be cut: the plain
mean over those that are seen has too many that terminated.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lfiw_envs import TabularMDP, TabularPolicy
from testbeds import log_of

import lfiw_ope as ope
from lfiw_ope.data import PaddedEpisodes
from lfiw_ope.estimators import Terms
from lfiw_ope.estimators import dice_lagrangian as flow
from lfiw_ope.estimators.doubly_robust_terms import doubly_robust
from lfiw_ope.stats import cumulate

HORIZON, GAMMA, EPISODES, SIZE = 6, 0.95, 40_000, 100
ESTIMAND = ope.Estimand(HORIZON, GAMMA)


class Bed:
    """A log of a behaviour that earns 1 a step while it lives, and a target near it."""

    def __init__(self):
        made = TabularMDP.random(states=5, actions=2, seed=3, terminal=1)
        self.mdp = replace(made, reward=1.0 + 0.3 * made.reward)
        table = np.random.default_rng(1).dirichlet(np.ones(2), 5)
        self.behaviour = TabularPolicy(0.6 * table + 0.2)
        self.target = TabularPolicy(0.4 * table + 0.2 * table[:, ::-1] + 0.2)
        self.data = log_of(self.mdp, self.behaviour, EPISODES, HORIZON, seed=0, cut=0.5)
        self.padded = PaddedEpisodes.of(self.data, HORIZON)

    def value(self, policy):
        return self.mdp.value(policy, HORIZON, GAMMA)

    @property
    def terms(self):
        """Of the target, with half of its Q and noise at every step, state and action."""
        q = self.mdp.action_values(self.target, HORIZON, GAMMA)
        q = 0.5 * q + np.random.default_rng(0).normal(0.0, 0.5, q.shape)
        v = np.concatenate(((q * self.target.table).sum(-1), np.zeros((1, 5))))
        rows = self.data.transitions()
        step = np.concatenate([np.arange(length) for length in self.data.lengths])
        state, action, after = (x.argmax(1) for x in (rows.state, rows.action, rows.next_state))
        following = np.where(rows.terminated, 0.0, v[step + 1, after])
        residual = rows.reward + GAMMA * following - q[step, state, action]
        ratio = np.log(self.target.table / self.behaviour.table)[state, action]
        spread = self.padded.spread
        return Terms(
            torch.from_numpy(v[0, self.data.initial_states.argmax(1)]),
            spread(torch.from_numpy(GAMMA**step * residual)),
            cumulate(spread(torch.from_numpy(ratio))),
            self.padded.standing,
        )


@pytest.fixture(scope="module")
def bed():
    return Bed()


def plainly(padded):
    """All that are observed at a step count the same: as if standings were not thought of."""
    seen = padded.observed.double()
    return replace(padded, standing=seen * len(seen) / seen.sum(0))


def test_the_plain_mean_over_the_observed_is_wrong_and_that_by_standing_is_right(bed):
    assert bed.padded.cut_short > 0.2 * EPISODES
    assert bed.data.terminated.mean() > 0.2
    found = ope.BehaviourMean(ESTIMAND).fit(bed.data, 0).estimate(bed.target)
    value = bed.value(bed.behaviour)
    assert abs(found.value - value) < 3 * found.standard_error
    discounted, seen = bed.padded.discounted(GAMMA), bed.padded.observed
    plain = float((torch.where(seen, discounted, 0.0).sum(0) / seen.sum(0)).sum())
    assert abs(plain - value) > 5 * found.standard_error
    # So is the mean of the whole episodes.
    assert abs(float(discounted.sum(1)[seen[:, -1]].mean()) - value) > 5 * found.standard_error
    # And the distribution of returns is theirs by standing.
    assert abs(found.distribution.mean - value) < 3 * found.standard_error


@pytest.mark.parametrize("make", [ope.IS, ope.PDIS, ope.WIS, ope.WPDIS])
def test_importance_sampling_gives_the_value(bed, make):
    fitted = make(ESTIMAND).fit(bed.data, 0)
    found, value = fitted.estimate(bed.target), bed.value(bed.target)
    assert abs(found.value - value) < 3 * found.standard_error
    assert found.standard_error < 0.02 * value
    # Weights of whole episodes average 1 only by standing, and nothing is warned of but the cuts.
    assert len(found.warnings) == 1
    off = replace(fitted, padded=plainly(bed.padded)).estimate(bed.target)
    assert abs(off.value - value) > 5 * found.standard_error


def test_dr_with_a_wrong_q_gives_the_value(bed):
    terms, value = bed.terms, bed.value(bed.target)
    found = doubly_robust(terms)
    assert abs(found.direct - value) > 10 * found.standard_error
    assert abs(found.value - value) < 3 * found.standard_error
    off = doubly_robust(replace(terms, standing=plainly(bed.padded).standing))
    assert abs(off.value - value) > 5 * found.standard_error


def test_standard_errors_are_the_spread_over_logs(bed):
    """Standings are estimated too, which makes the spread a little less than with known ones."""
    starts = range(0, EPISODES // 2, SIZE)
    logs = [bed.data.select(range(start, start + SIZE)) for start in starts]
    for make in (ope.BehaviourMean, ope.WPDIS):
        found = [make(ESTIMAND).fit(log, 0).estimate(bed.target) for log in logs]
        told = np.sqrt(np.mean([one.standard_error**2 for one in found]))
        spread = np.std([one.value for one in found], ddof=1)
        # A spread over 200 logs is known to 5 %: three times that, and a little on the safe side.
        assert 0.85 < told / spread < 1.2


FEW = ope.DICEConfig(
    fit=ope.FitConfig(updates=1, batch_size=8, evaluate_every=1, learning_rate=1e-9, patience=None),
    time="input",
)


def test_the_behaviours_own_occupancy_obeys_the_flow_equation_over_time(bed, monkeypatch):
    log = bed.data.first(EPISODES // 4)

    def behaviour_z():
        return ope.fit_dice(log, [bed.behaviour], ESTIMAND, FEW, 0).reports[0].behaviour_z

    # The largest of 28 test functions: 28 · P(|z| > 3.6) is below a hundredth.
    assert behaviour_z() < 3.6

    class Plain(PaddedEpisodes):
        @classmethod
        def of(cls, data, horizon):
            return plainly(PaddedEpisodes.of(data, horizon))

    monkeypatch.setattr(flow, "PaddedEpisodes", Plain)
    assert behaviour_z() > 8

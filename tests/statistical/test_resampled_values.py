"""SIR and SMC with exact ratios hit the true value, and slips in them are seen to miss it.

The test-beds and the manner are those of `test_exact_values`.
"""

import math

import numpy as np
import pytest
import torch
from testbeds import ExactRatio, linear_gaussian, tabular

import lfiw_ope.dynamics.rollout
from lfiw_ope.dynamics import simulate
from lfiw_ope.stats import Resampling, RunningWeights, Weighting, weigh, weigh_populations

BEDS = {"linear-Gaussian": (linear_gaussian, 15), "tabular": (tabular, 12)}
CANDIDATES = 4
SIZE = 10  # of a population: so small that a bias of O(1 / size) would be seen
FORMS = [(form, sn) for form in ("trajectory", "stepwise") for sn in (True, False)]


class Bed:
    """A test-bed, its true value, and rollouts of any resampling in the wrong model."""

    def __init__(self, name, discount):
        make, self.horizon = BEDS[name]
        self.truth, self.model, self.policy = make()
        self.discount = discount
        self.starts = self.truth.initial_states(100_000, torch.Generator().manual_seed(100))
        self.value = self.truth.value(self.policy, self.horizon, discount)
        self.of_model = self.model.value(self.policy, self.horizon, discount)

    def play(self, resampling, rollouts):
        return simulate(
            self.policy,
            self.model,
            self.starts,
            horizon=self.horizon,
            rollouts=rollouts,
            seed=0,
            ratio=ExactRatio(self.truth, self.model),
            resampling=resampling,
        )

    def weigh(self, rollout, form, self_normalised):
        """SIR's rollouts, with the candidates' mean weight carried or, for "uniform", dropped."""
        rewards = rollout.discounted(self.discount)[0]
        weighting = Weighting(form=form, self_normalised=self_normalised)
        return weigh(rewards, rollout.log_ratio[0], weighting)

    def weigh_populations(self, rollout, form, self_normalised):
        return weigh_populations(
            rollout.discounted(self.discount)[0],
            rollout.log_weight[0],
            rollout.ancestors[0],
            populations=rollout.rewards.shape[1] // SIZE,
            form=form,
            self_normalised=self_normalised,
        )


@pytest.fixture(scope="module", params=[(n, g) for n in BEDS for g in (1.0, 0.9)], ids=str)
def bed(request):
    return Bed(*request.param)


@pytest.fixture(scope="module")
def chosen(bed):
    return bed.play(Resampling(candidates=CANDIDATES), 20_000)


@pytest.mark.parametrize(("form", "self_normalised"), FORMS)
def test_sir_that_carries_the_mean_weight_is_right_at_any_number_of_candidates(
    bed, chosen, form, self_normalised
):
    found = bed.weigh(chosen, form, self_normalised)
    # |z| > 3 has probability 0.0027 for each check; the seed is fixed.
    assert abs(found.value - bed.value) < 3 * found.mc_standard_error
    # The check can fail: the plain model's value is out of reach.
    assert abs(bed.of_model - bed.value) > 5 * found.mc_standard_error


def test_sir_that_drops_it_is_biased(bed, chosen):
    """The mean weight dropped where it should be carried: the test above would see it."""
    dropped = bed.weigh(chosen, "uniform", True)
    assert abs(dropped.value - bed.value) > 4 * dropped.mc_standard_error


def test_the_bias_of_dropping_shrinks_as_one_over_candidates():
    """Linear-Gaussian: 2.35 with one candidate, 1.06 with 2, 0.51 with 4, 0.22 with 8.

    The leading term is c / k: a halving from each k to the next, to 3 standard errors of the
    difference. No bias at all, or one that fell as 1 / √k, is more than those away.
    """
    bed = Bed("linear-Gaussian", 1.0)
    bias, error = {}, {}
    for k in (1, 2, 4, 8):
        dropped = bed.weigh(bed.play(Resampling(candidates=k), 80_000), "uniform", True)
        bias[k], error[k] = dropped.value - bed.value, dropped.mc_standard_error
    assert abs(bias[1] - (bed.of_model - bed.value)) < 3 * error[1]
    assert 4 * error[8] < bias[8] < bias[4] < bias[2] < bias[1]
    for k in (4, 8):
        allowed = 3 * math.hypot(error[k], error[k // 2] / 2)
        assert abs(bias[k] - bias[k // 2] / 2) < allowed
        assert allowed < bias[k // 2] * (2**-0.5 - 0.5)  # 1 / √k would be seen


@pytest.fixture(scope="module", params=[{}, {"candidates": 2}], ids=["SMC", "SMC of SIR"])
def populations(bed, request):
    return bed.play(Resampling(below=0.8, populations=100_000 // SIZE, **request.param), 100_000)


@pytest.mark.parametrize(("form", "self_normalised"), FORMS)
def test_smc_is_right(bed, populations, form, self_normalised):
    found = bed.weigh_populations(populations, form, self_normalised)
    assert found.resampled > 1000
    assert float(found.ess_by_step.min()) > 0.01 * 100_000
    assert abs(found.value - bed.value) < 3 * found.standard_error
    assert abs(bed.of_model - bed.value) > 5 * found.standard_error


class ForgetsTheCarry(RunningWeights):
    """Weights of 1 after resampling, where the population's mean should be carried."""

    def resample(self, t):
        ancestors = super().resample(t)
        changed = (ancestors != self.slot).view(-1, self.populations, self.size).any(-1)
        self.now = torch.where(changed.repeat_interleave(self.size, -1), 0.0, self.now)
        return ancestors


class KeepsTheWeights(RunningWeights):
    """Slots keep their ancestors' weights, which count twice then."""

    def resample(self, t):
        before = self.now
        ancestors = super().resample(t)
        self.now = before.gather(-1, ancestors)
        return ancestors


class TakesFromTheNext(RunningWeights):
    """Slots continue slots of the population beside their own."""

    def resample(self, t):
        self.ancestors[t] = super().resample(t).roll(self.size, -1)
        return self.ancestors[t]


@pytest.mark.parametrize("slip", [ForgetsTheCarry, KeepsTheWeights, TakesFromTheNext])
@pytest.mark.parametrize("name", BEDS)
def test_slips_in_resampling_miss(monkeypatch, name, slip):
    bed = Bed(name, 1.0)
    monkeypatch.setattr(lfiw_ope.dynamics.rollout, "RunningWeights", slip)
    rollout = bed.play(Resampling(below=0.8, populations=10_000), 100_000)
    found = bed.weigh_populations(rollout, "trajectory", True)
    assert abs(found.value - bed.value) > 4 * found.standard_error


@pytest.mark.parametrize("name", BEDS)
def test_rewards_along_another_ancestry_miss(name):
    """The final weight met with its slot's own rewards, though the slot's past is another's."""
    bed = Bed(name, 1.0)
    rollout = bed.play(Resampling(below=0.5, populations=10_000), 100_000)
    untraced = torch.arange(100_000)[:, None].expand_as(rollout.ancestors[0])
    found = weigh_populations(
        rollout.rewards[0], rollout.log_weight[0], untraced, populations=10_000
    )
    assert abs(found.value - bed.value) > 4 * found.standard_error


@pytest.fixture(scope="module")
def repeats():
    """400 repeats of 10 populations of 50 rollouts, out of one simulation of 4000 populations."""
    bed = Bed("linear-Gaussian", 1.0)
    rollout = bed.play(Resampling(below=0.8, populations=4000), 200_000)
    first = torch.arange(0, 200_000, 500)[:, None, None]
    cut = (rollout.rewards, rollout.log_weight, rollout.ancestors)
    rewards, log_weight, ancestors = (values[0].view(400, 500, -1) for values in cut)
    return [*zip(rewards, log_weight, ancestors - first, strict=True)]


@pytest.mark.parametrize(("form", "self_normalised"), FORMS)
def test_the_standard_error_is_the_spread_over_repeats(repeats, form, self_normalised):
    """To 15 %.

    The spread over repeats is known to a relative 1 / sqrt(2 · 399) = 3.5 %. A repeat's squared
    error has a relative deviation of sqrt(2 / 9) = 47 %, their mean 2.4 %, its root 1.2 %: 3.7 %
    together, times four.
    """
    how = {"form": form, "self_normalised": self_normalised}
    found = [weigh_populations(*one, populations=10, **how) for one in repeats]
    spread = np.std([one.value for one in found], ddof=1)
    reported = np.array([one.standard_error for one in found])
    assert np.sqrt(np.mean(reported**2)) == pytest.approx(spread, rel=0.15)
    # Slots taken as independent: too small, for those that share ancestors are alike.
    alone = [weigh_populations(*one, populations=500, **how).standard_error for one in repeats]
    assert np.sqrt(np.mean(np.square(alone))) < 0.85 * spread

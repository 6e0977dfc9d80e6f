"""SIR with exact ratios hits the true value, and slips in them are seen to miss it.

The test-beds and the manner are those of `test_exact_values`.
"""

import math

import pytest
import torch
from testbeds import ExactRatio, linear_gaussian, tabular

from lfiw_ope.dynamics import simulate
from lfiw_ope.stats import Weighting, weigh

BEDS = {"linear-Gaussian": (linear_gaussian, 15), "tabular": (tabular, 12)}
CANDIDATES = 4
FORMS = [(form, sn) for form in ("trajectory", "stepwise") for sn in (True, False)]


class Bed:
    """A test-bed, its true value, and rollouts in the wrong model."""

    def __init__(self, name, discount):
        make, self.horizon = BEDS[name]
        self.truth, self.model, self.policy = make()
        self.discount = discount
        self.starts = self.truth.initial_states(100_000, torch.Generator().manual_seed(100))
        self.value = self.truth.value(self.policy, self.horizon, discount)
        self.of_model = self.model.value(self.policy, self.horizon, discount)

    def play(self, candidates, rollouts):
        return simulate(
            self.policy,
            self.model,
            self.starts,
            horizon=self.horizon,
            rollouts=rollouts,
            seed=0,
            ratio=ExactRatio(self.truth, self.model),
            candidates=candidates,
        )

    def weigh(self, rollout, form, self_normalised):
        """SIR's rollouts, with the candidates' mean weight carried or, for "uniform", dropped."""
        rewards = rollout.discounted(self.discount)[0]
        weighting = Weighting(form=form, self_normalised=self_normalised)
        return weigh(rewards, rollout.log_ratio[0], weighting)


@pytest.fixture(scope="module", params=[(n, g) for n in BEDS for g in (1.0, 0.9)], ids=str)
def bed(request):
    return Bed(*request.param)


@pytest.fixture(scope="module")
def chosen(bed):
    return bed.play(CANDIDATES, 20_000)


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
        dropped = bed.weigh(bed.play(k, 80_000), "uniform", True)
        bias[k], error[k] = dropped.value - bed.value, dropped.mc_standard_error
    assert abs(bias[1] - (bed.of_model - bed.value)) < 3 * error[1]
    assert 4 * error[8] < bias[8] < bias[4] < bias[2] < bias[1]
    for k in (4, 8):
        allowed = 3 * math.hypot(error[k], error[k // 2] / 2)
        assert abs(bias[k] - bias[k // 2] / 2) < allowed
        assert allowed < bias[k // 2] * (2**-0.5 - 0.5)  # 1 / √k would be seen

"""Weights with exact ratios hit closed forms, and broken ones are seen to miss them.

Linear-Gaussian: actions and states unbounded, nothing bounded in the model, T = 15, model noise
above the true noise, so weights have finite variance. Tabular: with termination.
"""

import math
from dataclasses import replace

import pytest
import torch
from testbeds import ExactRatio, linear_gaussian, tabular

from lfiw_ope.dynamics import simulate
from lfiw_ope.stats import Weighting, conditional_normalise, cumulate, weigh

ROLLOUTS = 100_000
FIRST = 6
BEDS = {"linear-Gaussian": (linear_gaussian, 15), "tabular": (tabular, 12)}


class Bed:
    """A test-bed, its rollouts in the wrong model, and the values that they should give."""

    def __init__(self, name, discount):
        make, self.horizon = BEDS[name]
        self.truth, self.model, self.policy = make()
        self.discount = discount
        starts = self.truth.initial_states(ROLLOUTS, torch.Generator().manual_seed(100))
        rollout = simulate(
            self.policy,
            self.model,
            starts,
            horizon=self.horizon,
            rollouts=ROLLOUTS,
            seed=0,
            ratio=ExactRatio(self.truth, self.model),
        )
        self.rewards = rollout.discounted(discount)[0]
        self.log_ratio = rollout.log_ratio[0].double()

    def value(self, after=None):
        after = None if after is None else (after, self.model)
        return self.truth.value(self.policy, self.horizon, self.discount, after=after)

    def errors(self, weighting, value, log_ratio=None):
        """Standard errors between an estimate and a value."""
        ratios = self.log_ratio if log_ratio is None else log_ratio
        found = weigh(self.rewards, ratios, weighting)
        return (found.value - value) / found.mc_standard_error


@pytest.fixture(scope="module", params=[(n, g) for n in BEDS for g in (1.0, 0.9)], ids=str)
def bed(request):
    return Bed(*request.param)


def test_the_check_can_fail(bed):
    """Enough rollouts carry the weights, and the plain model is far off."""
    found = weigh(bed.rewards, bed.log_ratio, Weighting())
    assert float(found.ess_by_step.min()) > 0.01 * ROLLOUTS
    plain = Weighting(form="uniform")
    assert abs(bed.errors(plain, bed.model.value(bed.policy, bed.horizon, bed.discount))) < 3
    assert abs(bed.errors(plain, bed.value())) > 5


FORMS = [
    replace(Weighting(form=form), self_normalised=normalised)
    for form in ("trajectory", "stepwise")
    for normalised in (True, False)
]


@pytest.mark.parametrize("weighting", FORMS, ids=lambda w: w.label)
def test_every_form_hits_its_own_target(bed, weighting):
    # |z| > 3 has probability 0.0027 for each check; the seed is fixed.
    assert abs(bed.errors(weighting, bed.value())) < 3
    first = replace(weighting, first=FIRST)
    assert abs(bed.errors(first, bed.value(after=FIRST))) < 3
    # First-H is no estimate of the true value, nor of a neighbour's target.
    assert abs(bed.errors(first, bed.value())) > 5
    none = replace(weighting, first=0)
    plain = bed.model.value(bed.policy, bed.horizon, bed.discount)
    assert abs(bed.errors(none, plain)) < 3


@pytest.mark.parametrize("weighting", FORMS, ids=lambda w: w.label)
def test_broken_weights_miss(bed, weighting):
    """What a slip in the code would do, done on purpose: the checks above would see it."""
    broken = {
        "inverted": -bed.log_ratio,
        "doubled": 2 * bed.log_ratio,
        "no product": torch.diff(bed.log_ratio, dim=1, prepend=torch.zeros(ROLLOUTS, 1)),
        "of other rollouts": bed.log_ratio.roll(1, 0),
    }
    for name, log_ratio in broken.items():
        assert abs(bed.errors(weighting, bed.value(), log_ratio)) > 3, name


def test_stepwise_needs_the_ratio_of_its_own_step():
    """The reward of a tabular step depends on s': a product that stops one short is biased."""
    bed = Bed("tabular", 1.0)
    late = torch.cat((torch.zeros(ROLLOUTS, 1), bed.log_ratio[:, :-1]), 1)
    assert abs(bed.errors(Weighting(form="stepwise"), bed.value(), late)) > 5


def test_ended_rollouts_keep_their_weight():
    """Dropping ended rollouts from later sums, or letting them gather ratios, is seen."""
    bed = Bed("tabular", 1.0)
    weight = cumulate(bed.log_ratio)
    ended = bed.log_ratio == 0
    assert 0.05 < float(ended[:, -1].double().mean()) < 0.95
    dropped = torch.where(ended, -torch.inf, weight)
    share = torch.softmax(dropped, 0)
    value = float((share * bed.rewards).sum())
    kept = weigh(bed.rewards, bed.log_ratio, Weighting(form="stepwise"))
    assert abs(value - bed.value()) > 5 * kept.mc_standard_error


def test_bias_of_conditional_normalisation_shrinks_as_one_over_draws():
    """w_1 / mean(w_1..w_K) weighs towards the model by O(1/K), here E[w̃ f] − E_p[f] of one step.

    Exact ratios, f the sum of the step's moves, the same draws for every K, each of eight of them
    in turn the own one. E_p[f] = E_{p_θ}[w f], so that the bias is the mean of (w̃ − w) f, of the
    same draws: its standard error is a fiftieth of what it is for K = 8. Bounds are 3 standard
    errors, and twice the next term, O(1/K²), which for K = 8 is about a tenth of the first.
    """
    truth, model, policy = linear_gaussian()
    generator = torch.Generator().manual_seed(7)
    n, most, owns = 50_000, 128, 8
    state = truth.initial_states(n, generator)[None]
    action = policy.act(state, generator)
    exact = ExactRatio(truth, model)
    steps = [model.sample(state, action, generator) for _ in range(most)]
    ratios = torch.stack([exact.log_ratio(state, action, step)[0] for step in steps]).double()
    move = torch.stack([(step.next_state - state)[0].sum(-1) for step in steps]).double()
    plain_bias = float(((1 - ratios[:owns].exp()) * move[:owns]).mean())
    bias, error = {}, {}
    for k in (8, 32, most):
        excess = torch.stack(
            [
                conditional_normalise(torch.cat((ratios[j:k], ratios[:j]))).exp() - ratios[j].exp()
                for j in range(owns)
            ]
        )
        of_state = (excess * move[:owns]).mean(0)
        bias[k], error[k] = float(of_state.mean()), float(of_state.std()) / n**0.5
    assert 10 * error[8] < bias[8] < plain_bias / 2
    for k in (32, 128):
        allowed = 3 * math.hypot(error[k], error[8] * 8 / k) + 0.2 * bias[8] * 8 / k
        assert abs(bias[k] - bias[8] * 8 / k) < allowed
        # Neither no bias at all nor one that falls as 1 / √K would pass.
        assert allowed < bias[8] * 8 / k
        assert allowed < bias[8] * ((8 / k) ** 0.5 - 8 / k)

"""The induced model is the truth where the ratio is exact, and seen not to be where it is broken.

Target N(1, 1), model N(0, 1.5²): heavier than the target, so that weights have finite variance.
"""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import kstest, norm
from testbeds import ExactRatio, linear_gaussian, tabular
from torch.distributions import Normal

import lfiw_ope as ope

TARGET, MODEL = Normal(1.0, 1.0), Normal(0.0, 1.5)


def draw(count, generator):
    return 1.5 * torch.randn(count, generator=generator)


def exact(x):
    return TARGET.log_prob(x) - MODEL.log_prob(x)


def inverted(x):
    return -exact(x)


def too_large(x):
    """The exact ratio times 1.3: its shape is right, its mean is not."""
    return exact(x) + math.log(1.3)


def functions(x):
    return torch.stack((x, x.square(), (x > 2.5).double()), 1)


TRUTH = torch.tensor([1.0, 2.0, norm.sf(1.5)])


def found(log_ratio, **kwargs):
    return ope.InducedModel(draw, log_ratio).expectation(
        functions, 50_000, torch.Generator().manual_seed(0), **kwargs
    )


def errors(log_ratio, **kwargs):
    """Standard errors, those of the exact ratio, between estimates and the truth."""
    return (found(log_ratio, **kwargs).value - TRUTH) / found(exact, **kwargs).standard_error


@pytest.mark.parametrize("self_normalised", [True, False])
def test_expectations_hit_the_truth(self_normalised):
    # |z| > 3.5 has probability 0.0005 for each of three; the seed is fixed.
    assert errors(exact, self_normalised=self_normalised).abs().max() < 3.5


@pytest.mark.parametrize("self_normalised", [True, False])
@pytest.mark.parametrize("broken", [inverted, lambda x: 0 * x, lambda x: 2 * exact(x)])
def test_broken_ratios_miss(broken, self_normalised):
    assert errors(broken, self_normalised=self_normalised).abs().max() > 5


def test_only_self_normalisation_forgives_a_wrong_scale():
    assert errors(too_large).abs().max() < 3.5
    assert errors(too_large, self_normalised=False).abs().min() > 5


@pytest.mark.parametrize("self_normalised", [True, False])
def test_standard_errors_are_the_spread_over_repeats(self_normalised):
    generator = torch.Generator().manual_seed(1)
    model = ope.InducedModel(draw, exact)
    repeats = 800
    several = [
        model.expectation(functions, 1000, generator, self_normalised=self_normalised)
        for _ in range(repeats)
    ]
    spread = torch.stack([one.value for one in several]).std(0)
    stated = torch.stack([one.standard_error for one in several]).square().mean(0).sqrt()
    # A standard deviation of so many Gaussians has a relative standard error of 1 / √(2 · 800) =
    # 2.5 %; 4 of them, of which the delta method's own error at 1000 draws takes little.
    assert ((stated / spread - 1).abs() < 4 / math.sqrt(2 * repeats)).all()


def test_the_normaliser_of_an_exact_ratio_is_one():
    for log_ratio, hits in ((exact, True), (too_large, False)):
        mass = ope.InducedModel(draw, log_ratio).normaliser(
            20_000, torch.Generator().manual_seed(2)
        )
        assert (abs(float((mass.value - 1) / mass.standard_error)) < 3.5) == hits


COUNT = 20_000
NOISE = math.sqrt(math.log(2 / 1e-4) / (2 * COUNT))
"""An empirical distribution function of so many draws strays farther from its own with probability
1e-4 (Dvoretzky, Kiefer, Wolfowitz; Massart 1990)."""


def distance(candidates, log_ratio=exact, seed=3):
    """sup |F_k − F| between SIR samples and the target."""
    model = ope.InducedModel(draw, log_ratio)
    x = model.sample(COUNT, candidates, torch.Generator().manual_seed(seed))
    return kstest(x.numpy(), norm(1, 1).cdf).statistic


def farthest(candidates):
    """Bound on the distance of the SIR distribution itself, at k candidates.

    Its density is p(x) E[k / (w(x) + Σ_{j<k} w_j)] ≥ p(x) k / (w(x) + k − 1) (Jensen), so that the
    total variation from p is at most E_p[(w − 1)⁺ / (w + k − 1)].
    """
    x = torch.linspace(-9, 11, 20_001, dtype=torch.float64)
    weight = exact(x).exp()
    short = (weight - 1).clamp_min(0) / (weight + candidates - 1)
    return float(torch.trapezoid(TARGET.log_prob(x).exp() * short, x))


@pytest.mark.parametrize("candidates", [1, 2, 8, 64])
def test_sir_goes_to_the_target_as_candidates_grow(candidates):
    assert distance(candidates) < farthest(candidates) + NOISE


def test_sir_s_distance_falls_and_can_be_seen_to_fail():
    assert distance(1) > distance(2) + NOISE > distance(8) + 2 * NOISE
    assert distance(64, inverted) > farthest(64) + NOISE
    assert distance(64, lambda x: 0 * x) > farthest(64) + NOISE  # no choice among candidates


def test_expectations_at_each_state_hit_the_truth_s():
    truth, model, policy = linear_gaussian()
    generator = torch.Generator().manual_seed(4)
    state = truth.initial_states(30, generator)
    action = policy.act(state, generator)
    dynamics = ope.InducedDynamics(model, ExactRatio(truth, model))
    mean = truth._mean(state, action)
    for self_normalised in (True, False):
        moved = dynamics.expectation(
            lambda step: step.next_state,
            state,
            action,
            4000,
            generator,
            self_normalised=self_normalised,
        )
        # Of 90 numbers, one is beyond 4.5 standard errors with probability 6e-4.
        assert ((moved.value - mean) / moved.standard_error).abs().max() < 4.5
        misses = (moved.value - model._mean(state, action)) / moved.standard_error
        assert misses.abs().max() > 5


BEDS = {"linear-Gaussian": (linear_gaussian, 15), "tabular": (tabular, 12)}
ROLLOUTS = 20_000


@pytest.mark.parametrize("name", BEDS)
def test_rollouts_in_the_induced_dynamics_go_to_the_true_value(name):
    make, horizon = BEDS[name]
    truth, model, policy = make()
    starts = truth.initial_states(ROLLOUTS, torch.Generator().manual_seed(100))
    true, plain = truth.value(policy, horizon), model.value(policy, horizon)

    def simulated(dynamics):
        rollout = ope.simulate(policy, dynamics, starts, horizon=horizon, rollouts=ROLLOUTS, seed=0)
        returns = rollout.rewards[0].sum(-1).double()
        return rollout.rewards, float(returns.mean()), float(returns.std()) / ROLLOUTS**0.5

    dynamics = ope.InducedDynamics(model, ExactRatio(truth, model))
    rewards, value, error = simulated(dynamics)
    assert torch.equal(rewards, simulated(model)[0])  # k = 1 is the model
    assert abs(value - plain) < 3 * error
    assert abs(value - true) > 5 * error
    for candidates in (4, 16):
        # The bias is O(1/k); at one step it is below 1/k of the model's (see `farthest`), and twice
        # that is allowed over a rollout.
        _, value, error = simulated(replace(dynamics, candidates=candidates))
        assert abs(value - true) < 2 / candidates * abs(plain - true) + 3 * error
        assert abs(value - plain) > 5 * error
    backwards = ope.InducedDynamics(model, ExactRatio(model, truth), 16)
    _, value, error = simulated(backwards)
    assert abs(value - true) > 2 / 16 * abs(plain - true) + 3 * error

"""Sampling-importance-resampling of bootstrap noise with an exact ratio, against exact values.

s' = 0.8 s + 0.5 a + e with e in {−1/2, 0, 1/2}, and the reward is s'. In the truth the chances of
the three values depend on s (logistic); the model draws them from a bank with fixed shares, as
bootstrap noise does. The policy is deterministic and the horizon 6, so that 3^6 paths are all there
are: values of the truth, of the model and of SIR with k candidates are finite sums.
"""

import math

import numpy as np
import pytest
import torch
from scipy.special import gammaln, softmax

from lfiw_ope.dynamics import Draws, Noise, simulate
from lfiw_ope.stats import Weighting, weigh

HORIZON, START, ROLLOUTS = 6, 0.3, 40_000
VALUES = np.array([-0.5, 0.0, 0.5])
BANK = torch.tensor([-0.5] * 3 + [0.0] * 4 + [0.5] * 3).view(1, 10, 1)
SHARES = np.array([0.3, 0.4, 0.3])
CANDIDATES = (1, 4, 16, 64)


def chances(state):
    """`[..., 3]`, p(e | s)."""
    return softmax(np.array([0.2, 0.0, 0.1]) + np.multiply.outer(state, [-1.0, 0.0, 1.0]), -1)


def mean_step(state, action):
    return 0.8 * state + 0.5 * action


class Linear:
    """a = 0.4 s + 0.1."""

    state_size = action_size = 1

    def act(self, state, generator):  # noqa: ARG002
        return 0.4 * state + 0.1


class Model:
    """The mean step with noise out of the bank."""

    noise = Noise("bootstrap", BANK)

    def sample(self, state, action, generator):
        member = torch.zeros(state.shape[-2], dtype=torch.int64)
        reached = mean_step(state, action) + self.noise.draw(member, 1, generator)
        never = torch.zeros(state.shape[:-1], dtype=torch.bool)
        return Draws(reached, reached[..., 0], never, never)


class Exact:
    """log p(e | s) − log q(e)."""

    def log_ratio(self, state, action, transition):
        e = (transition.next_state - mean_step(state, action))[..., 0]
        index = torch.round(2 * e).long() + 1
        ratio = torch.from_numpy(np.log(chances(state[..., 0].double().numpy()) / SHARES))
        return ratio.expand(*e.shape, 3).gather(-1, index[..., None])[..., 0]


def value_of(kernel):
    """Σ over all paths, where `kernel(states)` gives the chances `[..., 3]` of the values of e."""
    states, weight, total = np.array([START]), np.array([1.0]), 0.0
    for _ in range(HORIZON):
        weight = (weight[:, None] * kernel(states)).ravel()
        states = np.add.outer(mean_step(states, 0.4 * states + 0.1), VALUES).ravel()
        total += float(weight @ states)
    return total


def sir_kernel(candidates):
    """Chances of the values of e with k candidates: over the counts that a multinomial draws."""
    first, second = np.meshgrid(*(np.arange(candidates + 1),) * 2, indexing="ij")
    counts = np.stack((first, second, candidates - first - second), -1).reshape(-1, 3)
    counts = counts[(counts >= 0).all(1)]
    log_chance = gammaln(candidates + 1) - gammaln(counts + 1).sum(1) + counts @ np.log(SHARES)

    def kernel(states):
        weighted = counts * (chances(states) / SHARES)[:, None]  # [states, counts, 3]
        chosen = weighted / weighted.sum(-1, keepdims=True)
        return np.einsum("c,scj->sj", np.exp(log_chance), chosen)

    return kernel


TRUTH = value_of(chances)
OF_SIR = {k: value_of(sir_kernel(k)) for k in CANDIDATES}


@pytest.fixture(scope="module")
def rollouts():
    def play(candidates):
        return simulate(
            Linear(),
            Model(),
            torch.full((1, 1), START),
            horizon=HORIZON,
            rollouts=ROLLOUTS,
            seed=0,
            ratio=Exact(),
            candidates=candidates,
        )

    return {k: play(k) for k in CANDIDATES}


def weighed(rollout, **form):
    return weigh(rollout.discounted(1.0)[0], rollout.log_ratio[0], Weighting(**form))


def test_one_candidate_is_the_model():
    assert OF_SIR[1] == pytest.approx(value_of(lambda s: np.broadcast_to(SHARES, (*s.shape, 3))))


@pytest.mark.parametrize("candidates", CANDIDATES)
def test_the_value_of_uniform_sir_is_the_exact_one(rollouts, candidates):
    """Within 4 standard errors of the sum over all paths, at every number of candidates."""
    found = weighed(rollouts[candidates], form="uniform")
    assert abs(found.value - OF_SIR[candidates]) < 4 * found.mc_standard_error


def test_the_bias_of_uniform_sir_falls_with_the_number_of_candidates(rollouts):
    """With k candidates of ratios w_j, the ratio Σ w_j f_j / Σ w_j has the bias

        −(1/k) E_q[w² (f − E_p f)] + O(1/k²)

    (delta method; f the value from the next state on), whatever the step. So biases fall as 1/k:
    fourfold from 16 to 64, where the next order, 1/k² against 1/k, is some 1/16 of it. The
    allowance at 64 is therefore a quarter of the exact bias at 16, and a sixteenth more.
    """
    found = {k: weighed(rollouts[k], form="uniform") for k in CANDIDATES}
    bias = {k: abs(one.value - TRUTH) for k, one in found.items()}
    error = {k: one.mc_standard_error for k, one in found.items()}
    assert bias[1] > bias[4] + 4 * math.hypot(error[1], error[4])
    assert bias[4] > bias[16] + 4 * math.hypot(error[4], error[16])
    allowance = abs(OF_SIR[16] - TRUTH) / 4 * (1 + 1 / 16)
    assert bias[64] < 4 * error[64] + allowance
    # The plain model, and 4 candidates, would not pass for 64.
    assert min(bias[1], bias[4]) > 4 * error[64] + allowance
    assert (OF_SIR[64] - TRUTH) / (OF_SIR[16] - TRUTH) == pytest.approx(1 / 4, rel=1 / 16)


@pytest.mark.parametrize("form", ["trajectory", "stepwise"])
@pytest.mark.parametrize("self_normalised", [True, False])
def test_carried_weights_are_unbiased_at_few_candidates(rollouts, form, self_normalised):
    """4 standard errors; self-normalised, the bias of order 1 / 40 000 is far below them."""
    found = weighed(rollouts[4], form=form, self_normalised=self_normalised)
    assert abs(found.value - TRUTH) < 4 * found.mc_standard_error
    # Dropped weights have a bias beyond that: the check can fail.
    assert abs(OF_SIR[4] - TRUTH) > 4 * found.mc_standard_error


def test_steps_of_sir_choose_with_the_exact_chances(rollouts):
    """The first step's three values, with 4 candidates: 4 standard errors of each share."""
    first = rollouts[4].rewards[0, :, 0].double().numpy()
    possible = mean_step(START, 0.4 * START + 0.1) + VALUES
    share = np.array([np.isclose(first, one, atol=1e-5).mean() for one in possible])
    expected = sir_kernel(4)(np.array([START]))[0]
    assert share.sum() == pytest.approx(1.0)
    assert (np.abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / ROLLOUTS)).all()
    # Neither the model's shares nor the truth's.
    for other in (SHARES, chances(np.array([START]))[0]):
        apart = np.abs(share - other) / np.sqrt(other * (1 - other) / ROLLOUTS)
        assert apart.max() > 4

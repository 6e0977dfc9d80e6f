import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from testbeds import standings

import lfiw_ope as ope
from lfiw_ope.estimators import (
    Terms,
    least_on_simplex,
    lengths_of,
    magic,
    resample_counts,
    weighted_doubly_robust,
)
from lfiw_ope.estimators.doubly_robust_terms import doubly_robust

GAMMA = 0.98


def fixture():
    """An arithmetic oracle: (rewards, ratios of each step, Q at the action, V), each [40, 4]."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 2, (40, 4))
    rewards = rng.normal(size=(40, 4))
    q = rng.normal(size=(40, 4, 2))
    target, behaviour = np.array([0.2, 0.8]), np.array([0.8, 0.2])
    of_action = np.take_along_axis(q, actions[..., None], 2)[..., 0]
    return rewards, (target / behaviour)[actions], of_action, q @ target


def terms_of(rewards, ratios, q, v, discount=GAMMA):
    """Terms from arrays [N, T], by the definition: V after the last step is 0."""
    n, horizon = rewards.shape
    standing = np.ones((n, horizon))
    after = np.concatenate((v[:, 1:], np.zeros((n, 1))), 1)
    residual = discount ** np.arange(horizon) * (rewards + discount * after - q)
    with np.errstate(divide="ignore"):
        log_weight = np.log(ratios).cumsum(1)
    return Terms(*(torch.from_numpy(x) for x in (v[:, 0].copy(), residual, log_weight, standing)))


def test_the_arithmetic_oracle():
    # Numbers that independent implementations agree on.
    terms = terms_of(*fixture())
    assert terms.direct == pytest.approx(-0.082704977944, abs=1e-10)
    assert doubly_robust(terms).value == pytest.approx(-11.733522894360, abs=1e-10)
    assert weighted_doubly_robust(terms).value == pytest.approx(-0.664165594492, abs=1e-10)
    assert doubly_robust(terms).direct == terms.direct


def test_the_recursive_form_is_the_same():
    """Jiang and Li's recursion, backwards from the last step, episode by episode."""
    rewards, ratios, q, v = fixture()
    values = np.zeros(40)
    for t in reversed(range(4)):
        values = v[:, t] + ratios[:, t] * (rewards[:, t] + GAMMA * values - q[:, t])
    found = doubly_robust(terms_of(rewards, ratios, q, v))
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    assert found.standard_error is None  # its weights rest on fewer than ten episodes
    error = values.std(ddof=1) / math.sqrt(40)
    assert float(found.influence.norm()) == pytest.approx(error, rel=1e-12)


def slow(rewards, log_ratio, q, after, v0, taken, terminated, *, weighted):
    """Each step over the episodes by their standing there, in loops."""
    n, horizon = rewards.shape
    value, stands = v0.mean(), standings(taken.sum(1), terminated, horizon)
    for t in range(horizon):
        weights, errors = [], []
        for i in range(n):
            if taken[i, t]:
                error = rewards[i, t] + GAMMA * after[i, t] - q[i, t]
            elif terminated[i]:
                error = 0.0
            else:
                continue
            weight = stands[i, t]
            for u in range(t + 1):
                weight *= math.exp(log_ratio[i, u]) if taken[i, u] else 1.0
            weights.append(weight)
            errors.append(GAMMA**t * error)
        total = sum(weights) if weighted else n
        value += sum(w * e for w, e in zip(weights, errors, strict=True)) / total
    return value


def ragged(seed=0):
    rng = np.random.default_rng(seed)
    rewards, q, after, log_ratio = rng.normal(size=(4, 12, 5))
    length, terminated = rng.integers(1, 6, 12), rng.random(12) < 0.5
    length[0] = 5
    taken = np.arange(5) < length[:, None]
    return rewards, 0.3 * log_ratio, q, after, rng.normal(size=12), taken, terminated


@pytest.mark.parametrize("weighted", [False, True])
def test_ragged_episodes_follow_the_convention(weighted):
    rewards, log_ratio, q, after, v0, taken, terminated = ragged()
    residual = np.where(taken, GAMMA ** np.arange(5) * (rewards + GAMMA * after - q), 0.0)
    terms = Terms(
        torch.from_numpy(v0),
        torch.from_numpy(residual),
        torch.from_numpy(np.where(taken, log_ratio, 0.0).cumsum(1)),
        torch.from_numpy(standings(taken.sum(1), terminated, 5)),
    )
    estimate = weighted_doubly_robust if weighted else doubly_robust
    expected = slow(*ragged(), weighted=weighted)
    assert estimate(terms).value == pytest.approx(expected, abs=1e-12)


def test_a_step_without_any_weight_is_corrected_by_nothing():
    rewards, ratios, q, v = fixture()
    ratios = ratios.copy()
    ratios[:, 2] = 0.0
    terms = terms_of(rewards, ratios, q, v)
    first = terms_of(rewards[:, :2], ratios[:, :2], q[:, :2], v[:, :2])
    kept = first.residual[:, 1] + GAMMA**2 * torch.from_numpy(v[:, 2])  # V goes on after step 1
    first = Terms(
        first.initial,
        torch.stack((first.residual[:, 0], kept), 1),
        first.log_weight,
        first.standing,
    )
    for estimate in (doubly_robust, weighted_doubly_robust):
        assert estimate(terms).value == pytest.approx(estimate(first).value, abs=1e-12)
    assert terms.ess_by_step[2:].tolist() == [0.0, 0.0]


def test_what_is_not_finite_is_refused():
    rewards, ratios, q, v = fixture()
    with pytest.raises(ope.DivergedError, match="1 of 160 temporal-difference errors"):
        terms_of(np.where(np.arange(160).reshape(40, 4) == 7, np.nan, rewards), ratios, q, v)
    with pytest.raises(ope.DivergedError, match="log-weights are not finite"):
        terms_of(rewards, np.where(ratios > 1, np.inf, ratios), q, v)
    with pytest.raises(ope.DivergedError, match="use WDR"):
        doubly_robust(terms_of(rewards, ratios * 1e100, q, v))
    with pytest.raises(ope.DataError, match=r"expected \[N\]"):
        Terms(torch.zeros(3), torch.zeros(4, 2), torch.zeros(4, 2), torch.ones(4, 2))


def slow_magic(terms, lengths, counts, confidence):
    """MAGIC by its description: loops, and a general solver for the quadratic program."""
    v0, residual, log_weight, standing = (
        x.numpy() for x in (terms.initial, terms.residual, terms.log_weight, terms.standing)
    )
    n, horizon = residual.shape
    weight = standing * np.exp(log_weight)

    def wdr(chosen):
        value = np.mean([v0[i] for i in chosen])
        for t in range(horizon):
            total = sum(weight[i, t] for i in chosen)
            value += sum(weight[i, t] * residual[i, t] for i in chosen) / total
        return value

    shares = np.zeros((n, len(lengths)))
    for column, length in enumerate(lengths):
        for i in range(n):
            shares[i, column] = v0[i] / n
            for t in range(length):
                shares[i, column] += weight[i, t] / weight[:, t].sum() * residual[i, t]
    g = shares.sum(0)
    covariance = n * np.cov(shares.T, ddof=1)
    repeats = [wdr(np.repeat(np.arange(n), row.astype(int))) for row in counts.numpy()]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(repeats, [tail, 100 - tail])
    whole = wdr(range(n))
    low, high = min(low, whole), max(high, whole)
    bias = np.array([low - x if x < low else x - high if x > high else 0.0 for x in g])
    error = covariance + np.outer(bias, bias)
    unit = error.diagonal().min()
    solved = minimize(
        lambda x: x @ error @ x / unit,
        np.full(len(g), 1 / len(g)),
        jac=lambda x: 2 * error @ x / unit,
        bounds=[(0, 1)] * len(g),
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return solved.x, g, error


@pytest.mark.parametrize("case", ["full", "ragged"])
def test_magic_is_what_a_slow_reference_says(case):
    if case == "full":
        terms = terms_of(*fixture())
    else:
        rewards, log_ratio, q, after, v0, taken, terminated = ragged(3)
        residual = np.where(taken, rewards + after - q, 0.0)
        terminated |= np.arange(12) < 8  # so that every resample observes every step
        standing = standings(taken.sum(1), terminated, 5)
        assert standing.min() == 0 < 1 < standing.max()
        weight = np.where(taken, log_ratio, 0.0).cumsum(1)
        terms = Terms(*(torch.from_numpy(x) for x in (v0, residual, weight, standing)))
    n, horizon = terms.residual.shape
    lengths = lengths_of(horizon, 50)
    counts = resample_counts(n, 60, torch.Generator().manual_seed(0))
    assert counts.sum(1).tolist() == [n] * 60
    found = magic(terms, lengths, counts)
    weights, returns, error = slow_magic(terms, lengths.tolist(), counts, 0.9)
    np.testing.assert_allclose(found.returns, returns, atol=1e-12)
    ours = found.weights.numpy()
    assert ours.min() >= 0
    assert ours.sum() == pytest.approx(1, abs=1e-12)
    # An exact minimum is no more than a general solver's; and the blend is the same.
    assert ours @ error @ ours <= (weights @ error @ weights) * (1 + 1e-12)
    assert found.value == pytest.approx(float(weights @ returns), abs=1e-6)
    assert float(found.returns[0]) == pytest.approx(terms.direct, abs=1e-12)
    assert float(found.returns[-1]) == pytest.approx(weighted_doubly_robust(terms).value, abs=1e-12)


@pytest.mark.parametrize("size", [2, 5, 30])
def test_the_simplex_program_is_solved_exactly(size):
    rng = np.random.default_rng(size)
    for rank in (1, size):
        root = rng.normal(size=(rank, size))
        matrix = root.T @ root * 10.0 ** rng.uniform(-8, 8)
        weights = least_on_simplex(matrix)
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(1)
        gradient, level = matrix @ weights, weights @ matrix @ weights
        # The conditions of a minimum: no coordinate has a smaller slope than those in use.
        scale = matrix.diagonal().min()
        assert (gradient >= level - 1e-9 * scale).all()
        np.testing.assert_allclose(gradient[weights > 1e-9], level, atol=1e-9 * scale)
    assert least_on_simplex(np.zeros((size, size)))[-1] == 1


def test_the_simplex_program_ends_where_returns_are_of_sizes_far_apart():
    """Float64 leaves no more of such matrices than that a blend is no worse than a return alone."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        root = rng.normal(size=(48, 48)) * 10 ** rng.uniform(-4, 4, size=(1, 48))
        biases = np.abs(rng.normal(size=48)) * 10 ** rng.uniform(-3, 3)
        matrix = root.T @ root + np.outer(biases, biases)
        weights = least_on_simplex(matrix)
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(1)
        assert weights @ matrix @ weights <= matrix.diagonal().min() * (1 + 1e-6)


def test_lengths_hold_both_ends():
    assert lengths_of(4, 50).tolist() == [0, 1, 2, 3, 4]
    assert lengths_of(1000, 5).tolist() == [0, 250, 500, 750, 1000]
    assert lengths_of(1, 2).tolist() == [0, 1]

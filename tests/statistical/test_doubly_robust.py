"""Doubly robust estimates against exact values, with value functions that are right or wrong."""

import numpy as np
import pytest
import torch
from lfiw_envs import TabularPolicy, model_win, taxi
from testbeds import log_of, tabular

import lfiw_ope as ope
from lfiw_ope.data import DeviceLog, PaddedEpisodes
from lfiw_ope.estimators import (
    Fold,
    LoggedSteps,
    ModelValue,
    Terms,
    corrected_value,
    corrections,
    judge,
    lengths_of,
    magic,
    resample_counts,
    weighted_doubly_robust,
)
from lfiw_ope.estimators.doubly_robust_terms import doubly_robust
from lfiw_ope.stats import cumulate

HORIZON, GAMMA, REPEATS, EPISODES = 6, 0.9, 2000, 20


class TableValue:
    """An exact `ActionValue` of one policy, from a table Q [T, S, A]."""

    def __init__(self, q, policy):
        self.q = torch.from_numpy(q)
        self.v = torch.from_numpy(np.concatenate(((q * policy.table).sum(-1), 0 * q[:1, :, 0])))

    def action_value(self, state, action, step):
        return self.q[step, state.argmax(-1), action.argmax(-1)][None]

    def state_value(self, state, step):
        return self.v[step, state.argmax(-1)][None]


def away_from(policy):
    """A target that the behaviour's log covers."""
    rng = np.random.default_rng(4)
    other = rng.dirichlet(np.ones(policy.action_size), policy.state_size)
    return TabularPolicy(0.5 * policy.table + 0.5 * other)


def terms_of(data, value, target, horizon=HORIZON, discount=GAMMA):
    padded = PaddedEpisodes.of(data, horizon)
    everyone = np.arange(data.num_episodes)
    judged = judge(
        *(data, padded, (Fold(everyone, everyone),), lambda _: value),
        policies=1,
        discount=discount,
        device="cpu",
    )
    rows = data.transitions()
    state, action = torch.from_numpy(rows.state), torch.from_numpy(rows.action)
    log_ratio = target.log_prob(state, action).double() - torch.from_numpy(data.log_prob).double()
    step = discount ** torch.arange(horizon, dtype=torch.float64)
    return Terms(
        judged.initial[0],
        padded.spread(judged.residual[0]) * step,
        cumulate(padded.spread(log_ratio)),
        padded.standing,
    )


def parts(terms, size):
    """The same terms as logs of `size` episodes each."""
    of = (terms.initial, terms.residual, terms.log_weight, terms.standing)
    return [Terms(*some) for some in zip(*(x.split(size) for x in of), strict=True)]


def at(estimate, terms):
    found = [estimate(part).value for part in terms]
    return np.mean(found), np.std(found, ddof=1) / np.sqrt(len(found))


@pytest.fixture(scope="module")
def bed():
    """(truth, target, value, log of 2000 repeats, the target's exact Q)"""
    truth, _, behaviour = tabular(terminal=1)
    target = away_from(behaviour)
    data = log_of(truth, behaviour, REPEATS * EPISODES, HORIZON, seed=1)
    q = truth.action_values(target, HORIZON, GAMMA)
    return truth, target, truth.value(target, HORIZON, GAMMA), data, q


def wrong(q):
    return values_of(q + np.random.default_rng(0).normal(0.5, 1.0, q.shape))


def values_of(q):
    return lambda policy: TableValue(q, policy)


def test_dr_with_a_wrong_q_is_unbiased_and_its_standard_error_is_right(bed):
    _, target, value, data, q = bed
    terms = terms_of(data, wrong(q)(target), target)
    # The wrong Q is wrong: its own value is off by many standard errors.
    error = float(terms.initial.std()) / np.sqrt(len(terms.initial))
    assert abs(terms.direct - value) > 10 * error
    logs = parts(terms, EPISODES)
    mean, noise = at(doubly_robust, logs)
    assert abs(mean - value) < 3 * noise
    # Of the whole log, whose standard error is that of the repeats' mean.
    whole = doubly_robust(terms)
    assert whole.value == pytest.approx(mean, abs=1e-9)
    assert whole.standard_error == pytest.approx(noise, rel=0.1)  # 4 / sqrt(2 · 2000) = 6 %


def test_dr_with_the_right_q_has_far_less_variance():
    """The taxi's moves are certain, so the right Q leaves the spread of initial states alone."""
    task = taxi()
    truth, target, horizon = task.mdp, task.target, task.horizon
    value = truth.value(target, horizon)
    data = log_of(truth, task.behaviour, 2000, horizon, seed=1)
    q = truth.action_values(target, horizon)
    right, nothing = (
        doubly_robust(terms_of(data, TableValue(table, target), target, horizon, 1.0))
        for table in (q, 0 * q)  # Q̂ = 0 is PDIS
    )
    assert abs(right.value - value) < 3 * float(right.influence.norm())
    assert abs(right.value - right.direct) < 1e-4
    assert float(right.influence.norm()) < 0.1 * float(nothing.influence.norm())


def test_wdr_is_consistent_with_a_wrong_q(bed):
    _, target, value, data, q = bed
    terms = terms_of(data, wrong(q)(target), target)
    biases = []
    for size in (5, 50):
        mean, noise = at(weighted_doubly_robust, parts(terms, size))
        biases.append((abs(mean - value), noise))
    # The bias of a ratio of means is O(1/n): it shows at 5 episodes, and a tenth of it is left.
    assert biases[0][0] > 5 * biases[0][1]
    assert biases[1][0] < 0.2 * biases[0][0] + 3 * biases[1][1]
    whole = weighted_doubly_robust(terms)
    assert abs(whole.value - value) < 3 * whole.standard_error
    noise = at(weighted_doubly_robust, parts(terms, 400))[1]  # of 100 logs, so of all of it too
    assert whole.standard_error == pytest.approx(noise, rel=0.28)  # 4 / sqrt(2 · 100)


def test_a_simulated_q_is_the_models_own(bed):
    truth, target, _, data, q = bed
    some = data.first(600)
    log = DeviceLog.of(some, "cpu")
    logged = log.at(torch.arange(some.num_transitions))
    step = torch.cat([torch.arange(n) for n in some.lengths])
    value = ModelValue.of(
        [target, TabularPolicy(target.table[:, ::-1].copy())],
        *(truth, ope.Estimand(HORIZON, GAMMA)),
        rollouts=20,
        seed=0,
    )
    exact = TableValue(q, target)
    for simulated, known in (
        (
            value.action_value(logged.state, logged.action, step),
            exact.action_value(logged.state, logged.action, step),
        ),
        (value.state_value(logged.state, step), exact.state_value(logged.state, step)),
    ):
        assert simulated.shape == (2, len(step))
        for t in range(HORIZON):
            error = (simulated[0] - known[0])[step == t]
            # Rows are independent; 3.5 because 12 means are looked at.
            noise = float(error.std()) / np.sqrt(len(error))
            assert abs(float(error.mean())) < 3.5 * noise
    ended = torch.full_like(step, HORIZON)
    assert (value.state_value(logged.state, ended) == 0).all()


def test_a_models_residuals_have_little_noise_of_their_own(bed):
    """V at s' and Q at (s, a) share what is random after the first transition."""
    truth, target, _, data, _ = bed
    some = data.first(500)
    padded = PaddedEpisodes.of(some, HORIZON)
    log, rows = DeviceLog.of(some, "cpu"), padded.row[padded.taken]
    steps = padded.taken.nonzero()[:, 1]
    logged, spreads = log.at(rows), []
    for other in (0, 1):  # the same seed, or another
        now, after = (
            ModelValue.of([target], truth, ope.Estimand(HORIZON, GAMMA), seed=seed)
            for seed in (0, other)
        )
        following = after.state_value(logged.next_state, steps + 1)[0]
        residual = logged.reward + GAMMA * torch.where(logged.terminated, 0.0, following)
        spreads.append(
            float((residual - now.action_value(logged.state, logged.action, steps)).std())
        )
    assert spreads[0] < 0.9 * spreads[1]


class TableRatio:
    def __init__(self, table):
        self.table = torch.from_numpy(np.nan_to_num(table))

    def ratio(self, state, action, step):
        return self.table[step, state.argmax(-1), action.argmax(-1)][None]


@pytest.mark.parametrize("kind", ["finite", "stationary"])
def test_a_wrong_model_is_corrected_by_the_right_occupancy_ratio(kind):
    horizon, discount = (HORIZON, GAMMA) if kind == "finite" else (40, 0.8)
    truth, model, behaviour = tabular(terminal=1)
    model = truth.perturbed(seed=2, amount=0.9)
    target = away_from(behaviour)
    value = truth.value(target, horizon, discount)
    data = log_of(truth, behaviour, 6000, horizon, seed=3, cut=0.1 if kind == "finite" else None)
    if kind == "finite":
        with np.errstate(invalid="ignore"):
            omega = truth.occupancies(target, horizon) / truth.occupancies(behaviour, horizon)
    else:
        # Episodes are logged to their end but for a share of nearly 0, so that the log's rows are
        # distributed as the undiscounted visits, normalised.
        visits = truth.occupancies(behaviour, horizon).sum(0)
        with np.errstate(invalid="ignore"):
            omega = (truth.discounted_occupancy(target, discount) / (visits / visits.sum()))[None]
    logged = LoggedSteps.of(data, horizon if kind == "finite" else None)
    of_model = ModelValue.of([target], model, ope.Estimand(horizon, discount), seed=0)
    everyone = np.arange(data.num_episodes)
    found = corrections(
        *(data, logged, (Fold(everyone, everyone),), lambda _: (of_model, of_model)),
        lambda _: TableRatio(omega),
        policies=1,
        discount=discount,
        most=100_000,
        seed=0,
        device="cpu",
    )
    estimate = corrected_value(
        *(logged, found.initial[0], found.residual[0], found.ratio[0]),
        ope.Estimand(horizon, discount),
    )
    assert abs(estimate.value - value) < 3 * estimate.standard_error
    # The model alone is off by far more than the correction's noise.
    assert abs(estimate.direct - value) > 5 * estimate.standard_error
    off = model.value(target, horizon, discount)
    simulated = float(found.initial[0].std()) / np.sqrt(data.num_episodes)
    assert abs(estimate.direct - off) < 3.5 * simulated


def test_magic_leans_to_what_is_right():
    example = model_win()
    truth, target = example.mdp, example.target
    # Fifty episodes of twenty steps leave WDR nothing to stand on; six steps of many do.
    for horizon, episodes, error in ((20, 50, 0.0), (6, 4000, 1.0)):
        q = truth.action_values(target, horizon) + error
        data = log_of(truth, example.behaviour, episodes, horizon, seed=5)
        terms = terms_of(data, TableValue(q, target), target, horizon, 1.0)
        lengths = lengths_of(horizon, 50)
        counts = resample_counts(episodes, 200, torch.Generator().manual_seed(0))
        found = magic(terms, lengths, counts)
        value = truth.value(target, horizon)
        wdr = weighted_doubly_robust(terms).value
        if error == 0.0:
            assert float(found.weights @ lengths.double()) < 0.3 * horizon
            assert abs(found.value - value) < 0.5 * abs(wdr - value)
        else:
            assert abs(terms.direct - value) == pytest.approx(1.0, abs=1e-6)
            assert float(found.weights[0]) < 0.1
            assert abs(found.value - value) < 0.3

"""Importance sampling against exact values: what is unbiased, what is consistent, what is neither.

One log of 100 000 short episodes in a random MDP is cut into 2000 repeats of 50.
"""

import functools
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lfiw_envs import TabularMDP, TabularPolicy
from testbeds import log_of

import lfiw_ope as ope
from lfiw_ope.policies import GaussianHead
from lfiw_ope.stats import weigh

REPEATS, EPISODES, HORIZON, DISCOUNT = 2000, 50, 4, 0.95
ESTIMAND = ope.Estimand(HORIZON, DISCOUNT)
FORMS = {"IS": ope.IS, "PDIS": ope.PDIS, "WIS": ope.WIS, "WPDIS": ope.WPDIS}


class Bed:
    """A log in a random MDP with a terminal state, a target policy and its exact value."""

    def __init__(self):
        self.mdp = TabularMDP.random(states=6, actions=3, seed=1, terminal=1)
        rng = np.random.default_rng(2)
        behaviour, other = (rng.dirichlet(np.ones(3), 6) for _ in range(2))
        behaviour = 0.7 * behaviour + 0.1
        self.behaviour = TabularPolicy(behaviour)
        self.target = TabularPolicy(0.4 * behaviour + 0.6 * other)
        self.value = self.mdp.value(self.target, HORIZON, DISCOUNT)
        self.data = log_of(self.mdp, self.behaviour, REPEATS * EPISODES, HORIZON, seed=3)
        fitted = ope.IS(ESTIMAND).fit(self.data, seed=0)
        self.rewards = fitted.padded.discounted(DISCOUNT)
        self.log_ratio = fitted.padded.spread(fitted.ratio.log_ratio(self.target))

    @functools.cache  # noqa: B019 (one bed lives as long as the module)
    def repeats(self, form, episodes):
        """Values and standard errors of 2000 repeats with so many episodes each."""
        pairs = zip(self.rewards.split(EPISODES), self.log_ratio.split(EPISODES), strict=True)
        made = FORMS[form](ESTIMAND)
        weighting = made.config.weighting(made.form, self_normalised=made.self_normalised)
        found = [weigh(r[:episodes], w[:episodes], weighting) for r, w in pairs]
        return (
            np.array([one.value for one in found]),
            np.array([one.mc_standard_error for one in found], float),
        )


@pytest.fixture(scope="module")
def bed():
    return Bed()


def test_the_check_can_fail(bed):
    """The behaviour's own value is far from the target's, and weights are far from equal."""
    found = ope.BehaviourMean(ESTIMAND).fit(bed.data, seed=0).estimate(bed.target)
    assert abs(found.value - bed.value) > 20 * found.standard_error
    weights = bed.log_ratio.sum(1).exp()
    assert weights.std() > 0.7


@pytest.mark.parametrize("form", FORMS)
def test_all_of_a_large_log_gives_the_value(bed, form):
    found = FORMS[form](ESTIMAND).fit(bed.data, seed=0).estimate(bed.target)
    assert abs(found.value - bed.value) < 3 * found.standard_error
    assert found.standard_error < 0.02
    # E[w] = 1, to 4 standard errors: what is told in the diagnostics is what is warned by.
    error = float(bed.log_ratio.sum(1).exp().std()) / math.sqrt(found.episodes)
    assert abs(found.diagnostics["mean_weight"] - 1) < 4 * error
    assert found.warnings == ()


@pytest.mark.parametrize("form", ["IS", "PDIS"])
def test_unnormalised_forms_are_unbiased(bed, form):
    values, _ = bed.repeats(form, EPISODES)
    assert abs(values.mean() - bed.value) < 3 * values.std() / math.sqrt(REPEATS)


@pytest.mark.parametrize("form", ["WIS", "WPDIS"])
def test_self_normalised_forms_lose_their_bias_as_the_log_grows(bed, form):
    bias, error = {}, {}
    for episodes in (2, 10, 50):
        values, _ = bed.repeats(form, episodes)
        bias[episodes] = abs(values.mean() - bed.value)
        error[episodes] = values.std() / math.sqrt(REPEATS)
    assert bias[2] > 3 * error[2]  # else the check proves nothing
    # The bias is O(1/n): a fifth of it, and a twenty-fifth.
    assert bias[10] < bias[2] / 5 * 1.5 + 3 * error[10]
    assert bias[50] < bias[2] / 25 * 1.5 + 3 * error[50]


@pytest.mark.parametrize("form", FORMS)
def test_standard_errors_are_the_spread_over_repeats(bed, form):
    values, errors = bed.repeats(form, EPISODES)
    assert np.isfinite(errors).mean() > 0.95  # the others have an effective sample size below 10
    # A standard deviation of 2000 normal draws is known to 1.6 %; weights are skewed, so 3 times
    # that and as much again, and the delta method's own error is O(1/50).
    assert np.nanmean(errors**2) ** 0.5 == pytest.approx(values.std(), rel=0.1)


def paths(mdp, policy, horizon):
    """Every return of an MDP without terminal states, and its probability."""
    returns, chances = [], []
    size = range(mdp.num_states)
    for states in itertools.product(size, repeat=horizon + 1):
        for actions in itertools.product(range(mdp.num_actions), repeat=horizon):
            chance, total = mdp.initial[states[0]], 0.0
            for s, a, after in zip(states, actions, states[1:], strict=False):
                chance *= policy.table[s, a] * mdp.transition[s, a, after]
                total += mdp.reward[s, a, after]
            returns.append(total)
            chances.append(chance)
    return np.array(returns), np.array(chances)


def test_the_distribution_of_returns_is_the_exact_one():
    mdp = TabularMDP.random(states=3, actions=2, seed=5)
    behaviour, target = (TabularPolicy(np.tile(row, (3, 1))) for row in ([0.5, 0.5], [0.8, 0.2]))
    returns, chances = paths(mdp, target, 3)
    assert chances.sum() == pytest.approx(1)
    data = log_of(mdp, behaviour, 20_000, 3, seed=1)
    found = ope.WIS(ope.Estimand(3)).fit(data, seed=0).estimate(target)
    points = np.quantile(returns, np.linspace(0.01, 0.99, 60)) + 1e-5  # logs are float32
    exact = np.array([chances[returns <= x].sum() for x in points])
    logged = ope.BehaviourMean(ope.Estimand(3)).fit(data, seed=0).estimate(target)
    # The largest deviation of an empirical distribution of n draws exceeds 1.95/√n once in 1000
    # (Kolmogorov); of weighted ones, with n their effective number.
    limit = 1.95 / math.sqrt(found.ess)
    assert np.abs(found.distribution.cdf(points) - exact).max() < limit
    assert np.abs(logged.distribution.cdf(points) - exact).max() > 3 * limit
    order = np.argsort(returns)
    worst = np.diff(np.minimum(np.concatenate(([0.0], np.cumsum(chances[order]))), 0.2))
    cvar = worst @ returns[order] / 0.2
    # |CVaR_α(F) − CVaR_α(G)| ≤ range · sup|F − G| / α
    assert abs(found.distribution.cvar(0.2) - cvar) < np.ptp(returns) * limit / 0.2


LOW, HIGH = -1.0, 1.0
STEPS = 3


def actor(mean, std):
    """A normal distribution with the same moments at every state, clipped to ±1: PPO's kind."""
    bound = torch.ones(1, 1)
    head = GaussianHead(math.log(std) * bound, LOW * bound, HIGH * bound)
    return ope.MLPPolicy.from_layers(
        [torch.zeros(1, 1)], [torch.tensor([mean])], head, activation="tanh"
    )


def clipped_log(episodes, *, log_prob, proposed):
    """Episodes of 3 steps; each earns 1 where the action was clipped to the upper bound.

    Args:
        log_prob: "none", "density" of the executed action, which is what is wrong on a bound,
            or "draws", that of what was drawn.
        proposed: whether what was drawn is logged.
    """
    rng = np.random.default_rng(0)
    behaviour, rows = actor(0.2, 0.8), episodes * STEPS
    drawn = rng.normal(0.2, 0.8, (rows, 1))
    executed = drawn.clip(LOW, HIGH)
    state = torch.zeros(rows, 1)
    of = {"none": None, "density": executed, "draws": drawn}[log_prob]
    said = None
    if of is not None:
        said = behaviour.proposal_log_prob(state, torch.tensor(of).float()).numpy()
    return ope.Trajectories(
        states=rng.normal(size=(rows + episodes, 1)),
        actions=executed,
        rewards=(executed[:, 0] >= HIGH).astype(float),
        lengths=np.full(episodes, STEPS),
        terminated=np.zeros(episodes, bool),
        truncated=np.ones(episodes, bool),
        action_spec=ope.ActionSpec.continuous([LOW], [HIGH]),
        log_prob=said,
        proposed_actions=drawn if proposed else None,
    )


TARGET = actor(0.5, 0.7)
VALUE = STEPS * 0.5 * math.erfc((HIGH - 0.5) / 0.7 / math.sqrt(2))
CLONES = ope.BehaviourConfig(
    source="cloned",
    folds=2,
    fit=ope.FitConfig(updates=300, evaluate_every=50, patience=3, learning_rate=3e-3),
)


@pytest.mark.parametrize(
    ("log_prob", "proposed", "config"),
    [
        ("draws", True, ope.BehaviourConfig()),
        ("none", True, CLONES),
        ("density", False, CLONES),
    ],
)
def test_clipped_actions_are_weighed_by_their_draws_or_by_masses(log_prob, proposed, config):
    data = clipped_log(4000, log_prob=log_prob, proposed=proposed)
    settings = ope.ImportanceConfig(behaviour=config)
    fitted = ope.PDIS(ope.Estimand(STEPS), settings).fit(data, seed=0)
    for weighting in (fitted.weighting, replace(fitted.weighting, self_normalised=True)):
        found = replace(fitted, weighting=weighting).estimate(TARGET)
        # A clone of 6000 transitions knows log σ and the mean over σ to 0.01 each, and so the mass
        # beyond the bound, 0.16, to 2 %: three times that over three steps.
        learned = 0.06 * VALUE if config is CLONES else 0.0
        assert abs(found.value - VALUE) < 3 * found.standard_error + learned
        assert found.standard_error < 0.03 * VALUE
        assert not any("lie on an action bound" in said for said in found.warnings)
    # Φ(−1) above, and Φ(−1.5) below.
    assert found.diagnostics["actions_on_bounds"] == pytest.approx(0.1587 + 0.0668, abs=0.012)


def test_a_density_on_the_bounds_is_wrong_and_told_of():
    data = clipped_log(4000, log_prob="density", proposed=False)
    found = ope.PDIS(ope.Estimand(STEPS)).fit(data, seed=0).estimate(TARGET)
    assert abs(found.value - VALUE) > 8 * found.standard_error
    assert any("lie on an action bound" in said for said in found.warnings)


def test_draws_that_a_policy_cannot_meet_are_refused_unless_the_behaviour_is_cloned():
    class Executed:
        """The target, which says only how likely its executed actions are."""

        state_size = action_size = 1
        act, log_prob = TARGET.act, TARGET.log_prob

    data = clipped_log(4000, log_prob="draws", proposed=True)
    with pytest.raises(ope.PolicyError, match=r"no proposal_log_prob.*source='cloned'"):
        ope.WIS(ope.Estimand(STEPS)).fit(data, seed=0).estimate(Executed())
    settings = ope.ImportanceConfig(behaviour=CLONES)
    found = ope.WIS(ope.Estimand(STEPS), settings).fit(data, seed=0).estimate(Executed())
    assert abs(found.value - VALUE) < 3 * found.standard_error + 0.06 * VALUE

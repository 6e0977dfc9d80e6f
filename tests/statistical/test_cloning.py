"""Behaviour cloning against behaviours that are known exactly."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lfiw_envs import TabularPolicy
from testbeds import linear_gaussian, log_of, tabular, unsaid

import lfiw_ope as ope
from lfiw_ope.core import has_density
from lfiw_ope.policies import Bounds, GaussianHead, SquashedGaussianHead
from lfiw_ope.ratios import marginal_normal

NETS = ope.FitConfig(
    updates=500, learning_rate=2e-3, weight_decay=1.0, evaluate_every=50, patience=4
)
CLONES = ope.BehaviourConfig(source="cloned", folds=2, hidden=(32,), fit=NETS)
LONGER = replace(CLONES, fit=replace(NETS, updates=1000, weight_decay=0.0))
EPISODES = 800


@pytest.fixture(scope="module", params=[(tabular, 8), (linear_gaussian, 6)], ids=["table", "LQ"])
def cloned(request):
    """(data, behaviour, clones)"""
    make, horizon = request.param
    truth, _, behaviour = make()
    data = log_of(truth, behaviour, EPISODES, horizon, seed=0)
    return data, behaviour, ope.fit_behaviour(data, CLONES, seed=0)


def test_held_out_likelihood_is_nearly_that_of_the_behaviour(cloned):
    data, _, found = cloned
    assert found.log_prob.shape == (data.num_transitions,)
    gap = data.log_prob.mean() - found.report.log_likelihood
    plain = data.log_prob.mean() - found.report.state_independent_log_likelihood
    # The gap estimates KL(μ ‖ clone), about (parameters it needs) / (2 · 4000 rows): 10 to 20 of
    # them for these behaviours, a few thousandths of a nat. Stated tolerance: 0.02.
    assert -0.005 < gap < 0.02
    assert plain > 0.1  # states matter here, else the check proves nothing


def test_cloned_likelihoods_give_the_value(cloned):
    data, behaviour, _ = cloned
    truth = (tabular if isinstance(behaviour, TabularPolicy) else linear_gaussian)()[0]
    horizon = 4
    settings = ope.ImportanceConfig(behaviour=CLONES)
    found = ope.WPDIS(ope.Estimand(horizon), settings).fit(data, seed=0).estimate(behaviour)
    assert abs(found.value - truth.value(behaviour, horizon)) < 3 * found.standard_error
    assert (
        found.diagnostics["behaviour_log_likelihood"]
        > (found.diagnostics["state_independent_log_likelihood"])
    )
    assert found.ess > EPISODES / 3  # on-policy, exact weights are equal


@pytest.mark.parametrize("grows", [True, False], ids=["state", "constant"])
def test_sigma_depends_on_the_state_only_if_so_configured(grows):
    rng = np.random.default_rng(0)
    state = rng.normal(size=(2000, 1))
    sigma = np.exp(0.5 * state) if grows else np.ones((2000, 1))
    z = rng.normal(size=(2000, 1))
    last = np.concatenate((state, state), 1).reshape(-1, 1)  # two states, one transition
    data = ope.Trajectories(
        states=last,
        actions=0.3 * state + sigma * z,
        rewards=np.zeros(2000),
        lengths=np.ones(2000, int),
        terminated=np.zeros(2000, bool),
        truncated=np.ones(2000, bool),
        action_spec=ope.ActionSpec.continuous([-np.inf], [np.inf]),
    )
    exact = float(np.mean(-0.5 * z**2 - np.log(sigma)) - 0.5 * math.log(2 * math.pi))
    found = {
        kind: ope.fit_behaviour(data, replace(CLONES, sigma=kind), seed=0)
        for kind in ("constant", "state")
    }
    gap = {kind: exact - of.report.log_likelihood for kind, of in found.items()}
    # A constant σ loses log E[σ²]/2 − E[log σ] = 0.25 nats on average here; parameters cost
    # thousandths, as above.
    assert gap["state"] < 0.03
    assert gap["constant"] > 0.1 if grows else gap["constant"] < 0.01
    spread = [
        clone.outputs(torch.tensor([[-2.0], [2.0]])).value[:, 1].diff().abs().item()
        for clone in found["constant"].clones
    ]
    assert max(spread) < 1e-6


def test_an_episode_s_likelihood_comes_from_a_clone_that_did_not_see_it(cloned):
    data, _, found = cloned
    assert np.bincount(found.fold).tolist() == [EPISODES / 2] * 2
    episode = 7
    rows = slice(data.offsets[episode], data.offsets[episode + 1])
    states = torch.from_numpy(data.transitions().state[rows])
    actions = torch.from_numpy(data.actions[rows])
    own = found.clones[found.fold[episode]].log_prob(states, actions)
    torch.testing.assert_close(own.double(), found.log_prob[rows], atol=1e-5, rtol=1e-5)
    # Whatever happens in it: another episode in its place leaves that clone as it was.
    others = np.setdiff1d(np.flatnonzero(found.fold == found.fold[episode]), [episode])
    order = np.arange(EPISODES)
    order[episode] = others[0]
    order[others[0]] = episode
    again = ope.fit_behaviour(data.select(order), CLONES, seed=0)
    torch.testing.assert_close(
        again.clones[found.fold[episode]].log_prob(states, actions), own, atol=1e-4, rtol=1e-4
    )


def test_the_clone_is_a_policy_that_acts_as_the_behaviour_does(cloned):
    data, behaviour, found = cloned
    policy = found.policy
    assert has_density(policy)
    state = torch.from_numpy(data.initial_states[:1]).expand(20_000, -1)
    acted, meant = (
        one.act(state, torch.Generator().manual_seed(seed))
        for seed, one in enumerate((policy, behaviour))
    )
    # Its mean is off by 0.1 behaviour deviations at most, besides 4 standard errors of 20 000.
    tolerance = (0.1 + 4 * math.sqrt(2 / 20_000)) * meant.std(0).clamp_min(0.05)
    assert ((acted.mean(0) - meant.mean(0)).abs() < tolerance).all()


def test_a_log_without_likelihoods_is_cloned_unasked_and_one_seed_gives_one_number(cloned):
    data, behaviour, _ = cloned
    silent = unsaid(data).first(60)
    short = ope.FitConfig(updates=40, evaluate_every=20)
    settings = ope.ImportanceConfig(behaviour=ope.BehaviourConfig(folds=2, hidden=(8,), fit=short))
    before = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first, same, other = (
        ope.PDIS(ope.Estimand(4), settings).fit(silent, seed=seed).estimate(behaviour).value
        for seed in (0, 0, 1)
    )
    assert first == same != other
    assert before == (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # noqa: NPY002


def acted(head, outputs, rows=6000):
    """A log of one step of what a head draws, whose outputs follow the state's sign."""
    state = torch.randn((rows, 1), generator=torch.Generator().manual_seed(1))
    policy = ope.MLPPolicy.from_layers(
        [torch.tensor([[1.5]]), torch.tensor([outputs])],
        [torch.zeros(1), torch.zeros(len(outputs))],
        head,
        activation="tanh",
    )
    action = policy.act(state, torch.Generator().manual_seed(2))
    spec = policy.action_spec
    return policy, ope.Trajectories(
        states=torch.stack((state, state), 1).reshape(-1, 1).numpy(),
        actions=action.numpy(),
        rewards=np.zeros(rows),
        lengths=np.ones(rows, int),
        terminated=np.ones(rows, bool),
        truncated=np.zeros(rows, bool),
        action_spec=spec,
        log_prob=policy.log_prob(state, action).numpy(),
    )


def test_actions_on_the_bounds_are_learned_as_masses():
    """The likelihood is that of the censored normal distribution, masses included; in any unit."""
    scale = 50.0
    bound = torch.full((1, 1), scale)
    head = GaussianHead(torch.log(0.6 * bound), -bound, bound)
    _, data = acted(head, [0.8 * scale])
    assert (data.actions >= scale).mean() > 0.1
    found = ope.fit_behaviour(data, LONGER, seed=0)
    assert abs(data.log_prob.mean() - found.report.log_likelihood) < 0.02
    rows = torch.from_numpy(data.actions[:, 0] >= scale)
    # On the bound alone too, where a density would be off by a multiple of it.
    exact = torch.from_numpy(data.log_prob).double()[rows].mean()
    assert found.log_prob[rows].mean() == pytest.approx(float(exact), abs=0.03)


def test_squashed_actions_are_learned_through_a_tanh():
    bound = torch.full((1, 1), 2.0)
    _, data = acted(SquashedGaussianHead(-bound, bound), [1.2, 0.3])
    through = replace(LONGER, squashed=True, sigma="state")
    found, plain = (ope.fit_behaviour(data, config, seed=0) for config in (through, LONGER))
    assert abs(data.log_prob.mean() - found.report.log_likelihood) < 0.02
    assert found.report.log_likelihood > plain.report.log_likelihood + 0.05


def test_what_does_not_look_at_states_is_cloned_no_better_than_a_constant_and_says_so():
    bound = torch.ones(1, 1)
    policy, data = acted(GaussianHead(-bound, -bound, bound), [0.0], rows=1000)
    settings = ope.ImportanceConfig(behaviour=CLONES)
    found = ope.WIS(ope.Estimand(1), settings).fit(data, seed=0).estimate(policy)
    assert any("no better than a fit that does not look at states" in w for w in found.warnings)


def test_the_state_independent_fit_is_of_maximum_likelihood():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal([0.5, -3.0], [0.8, 2.0], (50_000, 2)))
    none, bounds = torch.full((2,), torch.inf).double(), torch.tensor([1.0, 2.0]).double()
    free = marginal_normal(values, Bounds(-none, none), censored=True)
    censored = marginal_normal(
        torch.clamp(values, -bounds, bounds), Bounds(-bounds, bounds), censored=True
    )
    for found, width in ((free, 4), (censored, 8)):
        # σ/√n for the mean and 1/√2n for log σ; censored entries say less, by less than a half.
        mean, log_std = found.chunk(2)
        error = width * np.array([0.8, 2.0]) / math.sqrt(50_000)
        assert (np.abs(mean.numpy() - [0.5, -3.0]) < error).all()
        assert (np.abs(log_std.exp().numpy() - [0.8, 2.0]) < error).all()


@pytest.mark.gpu
def test_a_gpu_gives_the_value_too(cloned):
    data, behaviour, _ = cloned
    settings = ope.ImportanceConfig(behaviour=CLONES)
    here, there = (
        ope.WPDIS(ope.Estimand(4), settings, device=device).fit(data, seed=0).estimate(behaviour)
        for device in ("cpu", "cuda")
    )
    assert abs(here.value - there.value) < here.standard_error

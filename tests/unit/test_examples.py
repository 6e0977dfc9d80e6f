"""The tabular examples: their exact values against simulation, and against each other."""

import numpy as np
import pytest
import torch
from lfiw_envs import TabularMDP, TabularPolicy, chain, model_fail, model_win, taxi
from testbeds import log_of

EXAMPLES = {"chain": chain, "ModelWin": model_win, "ModelFail": model_fail, "taxi": taxi}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("who", ["behaviour", "target"])
def test_exact_values_are_those_of_a_long_log(name, who):
    example = EXAMPLES[name]()
    policy = getattr(example, who)
    returns = log_of(example.mdp, policy, 4000, example.horizon, seed=1).returns()
    # 3 standard errors of 4000 episodes.
    bound = 3 * returns.std() / np.sqrt(4000)
    assert abs(returns.mean() - example.mdp.value(policy, example.horizon)) < bound


def test_the_examples_are_what_the_field_knows_them_by():
    # ModelWin: each pair of steps earns 0.2 (2p − 1) with p the share of action 1; ten pairs.
    win = model_win()
    assert win.mdp.value(win.target, 20) == pytest.approx(10 * 0.2 * (2 * 0.73 - 1))
    assert win.mdp.value(win.behaviour, 20) == pytest.approx(-10 * 0.2 * (2 * 0.73 - 1))
    # ModelFail: +1 with the share of action 0, else −1; every state looks alike.
    fail = model_fail()
    assert fail.mdp.value(fail.target, 2) == pytest.approx(2 * 0.12 - 1)
    assert len(np.unique(log_of(fail.mdp, fail.behaviour, 50, 2, seed=0).states, axis=0)) == 1
    # The taxi's way is the best: no other policy of 2000 tries, greedy or not, earns more.
    ride = taxi()
    knows = TabularPolicy(np.eye(6)[ride.target.table.argmax(1)])
    best = ride.mdp.value(knows, 15)
    improved = TabularPolicy(np.eye(6)[ride.mdp.action_values(knows, 15)[0].argmax(1)])
    assert best == pytest.approx(ride.mdp.value(improved, 15))
    # A trip of 8 steps at most in a 3 × 3 grid, and −1 a step but for the last, which pays 10.
    assert best == pytest.approx(np.mean([10 - (d + 4 + 1) for d in walk_to_the_passenger()]))


def walk_to_the_passenger():
    """Steps from each cell of a 3 × 3 grid to either corner."""
    cells = [(row, column) for row in range(3) for column in range(3)]
    return [abs(r - c) + abs(s - c) for r, s in cells for c in (0, 2)]


def test_action_values_and_occupancies_say_the_same_as_values():
    mdp = TabularMDP.random(7, 3, seed=4, terminal=1)
    policy = TabularPolicy(np.random.default_rng(0).dirichlet(np.ones(3), 7))
    value = mdp.value(policy, 9, 0.9)
    expected = np.einsum("sap,sap->sa", mdp.transition, mdp.reward)
    first = mdp.action_values(policy, 9, 0.9)[0]
    assert mdp.initial @ (policy.table * first).sum(1) == pytest.approx(value)
    weights = 0.9 ** np.arange(9)
    found = np.einsum("t,tsa,sa->", weights, mdp.occupancies(policy, 9), expected)
    assert found == pytest.approx(value)
    # Over 400 steps the finite sum is the stationary solution: 0.9^400 is 5e-19.
    long = np.einsum("t,tsa->sa", 0.1 * 0.9 ** np.arange(400), mdp.occupancies(policy, 400))
    np.testing.assert_allclose(mdp.discounted_occupancy(policy, 0.9), long, atol=1e-12)
    # What has entered a terminal state is gone: mass falls from 1.
    mass = mdp.occupancies(policy, 9).sum((1, 2))
    assert mass[0] == pytest.approx(1)
    assert (np.diff(mass) < 0).all()


def test_a_cut_log_ends_early_and_says_so():
    example = taxi()
    data = log_of(example.mdp, example.behaviour, 500, 15, seed=3, cut=0.5)
    whole = log_of(example.mdp, example.behaviour, 500, 15, seed=3)
    assert (data.lengths <= whole.lengths).all()
    assert (data.lengths < whole.lengths).mean() > 0.3
    assert not (data.terminated & (data.lengths < whole.lengths)).any()
    assert torch.equal(
        torch.from_numpy(data.rewards[: data.lengths[0]]),
        torch.from_numpy(whole.rewards[: data.lengths[0]]),
    )

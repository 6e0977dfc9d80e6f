"""Logged stretches, and what a model makes of them."""

import math

import numpy as np
import pytest
import torch
from testbeds import linear_gaussian, log_of

import lfiw_ope as ope
from lfiw_ope.data import DeviceLog
from lfiw_ope.dynamics import Continuations, score
from lfiw_ope.dynamics import replay as replaying
from lfiw_ope.dynamics.replay import replay
from lfiw_ope.policies import CategoricalHead, GaussianHead
from lfiw_ope.ratios import ClonedBehaviour


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


LENGTHS = (7, 6, 7, 7, 2)
ENDS = (False, True, True, False, True)
"""The log cuts its episodes off after 7 steps."""


@pytest.fixture(scope="module")
def log():
    """Episodes that end and that are cut short. States, actions and rewards name their place."""
    states, actions, rewards = [], [], []
    for episode, length in enumerate(LENGTHS):
        states.append(100 * episode + np.arange(length + 1.0))
        actions.append(100 * episode + np.arange(length) + 0.5)
        rewards.append(np.full(length, 1.0))
    data = ope.Trajectories(
        states=np.concatenate(states)[:, None],
        actions=np.concatenate(actions)[:, None],
        rewards=np.concatenate(rewards),
        lengths=np.array(LENGTHS),
        terminated=np.array(ENDS),
        truncated=~np.array(ENDS),
        action_spec=ope.ActionSpec.continuous([-np.inf], [np.inf]),
    )
    return DeviceLog.of(data, "cpu")


def stretches(log, episodes=(0, 1, 2, 3, 4), steps=3, most=100, seed=0):
    chosen = torch.tensor(episodes, dtype=torch.int64)
    return Continuations.of(log, chosen, steps, most, generator(seed))


def test_stretches_follow_each_other_to_the_episode_s_end(log):
    found = stretches(log)
    # 7 steps, cut or ended: two stretches; a third could not have been logged whole. 6 steps: two.
    # 2 steps, ended: one.
    assert found.episode.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert found.states[0, :, 0].tolist() == [0, 3, 100, 103, 200, 203, 300, 303, 400]
    assert len(found) == 9
    assert found.states.shape == (4, 9, 1)
    assert found.actions.shape == (3, 9, 1)
    assert found.rewards.shape == found.known.shape == (3, 9)


def test_after_the_end_rewards_and_actions_are_zero_and_the_state_stays(log):
    found = stretches(log)
    last = 8  # of 2 steps
    assert found.known[:, last].tolist() == [True, True, False]
    assert found.rewards[:, last].tolist() == [1.0, 1.0, 0.0]
    assert found.actions[:, last, 0].tolist() == [400.5, 401.5, 0.0]
    assert found.states[:, last, 0].tolist() == [400, 401, 402, 402]
    assert found.known[:, :last].all()
    assert found.states[:, 1, 0].tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("limits", [(40,), (35, 40, 60), (10, 80)])
def test_which_stretches_there_are_does_not_depend_on_how_they_end(limits):
    """Episodes of a limit at random that end with a chance of 3 % in each step, whatever the state.

    Of all stretches of 30 steps a share of 1 − 0.97²⁹ ends before its last step; with n of them,
    which overlap in threes at most, the standard error of that share p is below √(3 p (1 − p) / n).
    """
    rng = np.random.default_rng(0)
    ends, limit = rng.geometric(0.03, 2000), rng.choice(limits, 2000)
    found = long_stretches(np.minimum(ends, limit), ends <= limit)
    share = float((~found.known.all(0)).double().mean())
    expected = 1 - 0.97**29
    assert abs(share - expected) < 4 * math.sqrt(3 * expected * (1 - expected) / len(found))


def test_episodes_that_end_where_others_are_cut_were_not_seen_to_go_on():
    """Limits of 40 and 80, of which half the episodes end at step 40: G(41) is 1/2.

    Those that end at 40 would be cut there or not, which nobody saw. Taken for not cut, as they are
    by their length alone, they would make it 3/4. A share of n = 2000 · 1/2 episodes that go on has
    a standard error of √(1/4 / n).
    """
    rng = np.random.default_rng(0)
    terminated, limit = rng.random(2000) < 0.5, rng.choice([40, 80], 2000)
    lengths = np.where(terminated, 40, limit)
    log = log_of_lengths(lengths, terminated)
    assert abs(float(replaying._logged_whole(log, 30)[41]) - 0.5) < 4 * math.sqrt(0.25 / 1000)


def test_a_log_in_which_all_episodes_end_early_has_stretches():
    found = long_stretches(np.full(20, 12), np.ones(20, bool))
    assert found.episode.tolist() == [episode for episode in range(20) for _ in range(2)]


def long_stretches(lengths, terminated):
    """Of 30 steps, one begun every 10 steps."""
    log, every = log_of_lengths(lengths, terminated), torch.arange(len(lengths))
    return Continuations.of(log, every, 30, 10_000, generator(), stride=10)


def log_of_lengths(lengths, terminated):
    data = ope.Trajectories(
        states=np.zeros((int((lengths + 1).sum()), 1)),
        actions=np.zeros((int(lengths.sum()), 1)),
        rewards=np.ones(int(lengths.sum())),
        lengths=lengths,
        terminated=terminated,
        truncated=~terminated,
        action_spec=ope.ActionSpec.continuous([-np.inf], [np.inf]),
    )
    return DeviceLog.of(data, "cpu")


def test_stretches_may_overlap(log):
    """7 steps, cut: those of 3 steps alone. 2 steps, ended: its last state begins one too."""
    found = Continuations.of(log, torch.tensor([0, 4]), 3, 100, generator(), stride=1)
    assert found.states[0, :, 0].tolist() == [0, 1, 2, 3, 4, 400, 401]


def test_stretches_are_of_the_episodes_that_are_asked_for(log):
    found = stretches(log, [4, 1])
    assert found.episode.tolist() == [4, 1, 1]
    assert found.states[0, :, 0].tolist() == [400, 100, 103]


def test_too_many_stretches_are_thinned_at_random(log):
    every = stretches(log)
    count = torch.zeros(len(every))
    for seed in range(400):
        found = stretches(log, most=3, seed=seed)
        assert len(found) == 3
        chosen = torch.isin(every.states[0, :, 0], found.states[0, :, 0])
        assert found.states[0, :, 0].tolist() == every.states[0, chosen, 0].tolist()
        assert found.episode.tolist() == every.episode[chosen].tolist()
        count += chosen
    # A share of 400 draws has a standard error of √(1/3 · 2/3 / 400) = 2.4 %: 4.5 of them.
    assert (count / 400 - 1 / 3).abs().max() < 4.5 * math.sqrt(1 / 3 * 2 / 3 / 400)


@pytest.mark.parametrize("episodes", [[3], [3, 3], []])
def test_there_may_be_no_stretch_at_all(log, episodes):
    found = stretches(log, episodes, steps=8)
    assert len(found) == 0
    assert found.states.shape == (9, 0, 1)


class AsLogged:
    """A policy that is known: at other states it acts afresh."""

    def __init__(self, policy):
        self.policy = policy

    def act_like(self, state, logged_state, logged_action, known, generator):  # noqa: ARG002
        flat = self.policy.act(state.flatten(0, -2), generator)
        return flat.view(*state.shape[:-1], -1)


def test_the_true_dynamics_replay_the_logged_returns_and_states():
    truth, model, policy = linear_gaussian()
    steps, draws = 5, 8
    log = DeviceLog.of(log_of(truth, policy, episodes=1000, horizon=15, seed=0), "cpu")
    logged = Continuations.of(log, torch.arange(1000), steps, 400, generator())
    observed = logged.rewards.double().sum(0)

    def replayed(dynamics):
        return replay(dynamics, AsLogged(policy), logged, draws=draws, generator=generator(1))

    found = replayed(truth)
    assert found.returns.shape == (1, draws, 400)
    assert found.states.shape == (1, draws, 400, 3)
    # Paired by stretch, so that where stretches begin adds nothing; stretches of one episode are
    # independent given their first states. 4 standard errors of each mean difference.
    difference = found.returns[0].mean(0) - observed
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / 20
    moved = (found.states[0].mean(0) - logged.states[-1]).double()
    assert (moved.mean(0).abs() < 4 * moved.std(0) / 20).all()
    # The wrong model, whose drift is 0.03 a step too large, is seen to be wrong.
    wrong = (replayed(model).states[0].mean(0) - logged.states[-1]).double()
    assert (wrong.mean(0).abs() > 4 * wrong.std(0) / 20).any()
    of_return, of_state = score(found, logged, torch.ones(3))
    assert of_return.shape == of_state.shape == (1, 400)
    worse = score(replayed(model), logged, torch.ones(3))
    assert float(of_state.mean()) < float(worse[1].mean())


class Counting:
    """s' = s + 1 with reward s, which ends at `limit`."""

    def __init__(self, limit):
        self.limit = limit

    def sample(self, state, action, generator):  # noqa: ARG002
        reached = state + 1
        ended = reached[..., 0] >= self.limit
        return ope.dynamics.Draws(reached, state[..., 0], ended, torch.zeros_like(ended))


class Still:
    def act_like(self, state, logged_state, logged_action, known, generator):  # noqa: ARG002
        return torch.zeros_like(state)


def test_after_a_simulated_end_nothing_is_added(log):
    logged = stretches(log, [0])  # from states 0 and 3
    found = replay(Counting(4), Still(), logged, draws=2, generator=generator(), marks=(1, 2, 3))
    assert found.returns.tolist() == [[[0, 3]] * 2, [[0 + 1, 3]] * 2, [[0 + 1 + 2, 3]] * 2]
    assert found.states[..., 0].tolist() == [[[1, 4]] * 2, [[2, 4]] * 2, [[3, 4]] * 2]
    assert logged.returns(found.marks).tolist() == [[1, 1], [2, 2], [3, 3]]


def test_scores_are_in_units_of_the_state_scale(log):
    logged = stretches(log, [0])
    found = replay(Counting(1e9), Still(), logged, draws=2, generator=generator())
    of_return, of_state = score(found, logged, torch.tensor([0.5]))
    assert of_return.tolist() == [[0.0, (3 + 4 + 5) - 3.0]]  # the logged reward is 1 a step
    assert of_state.tolist() == [[0.0, 0.0]]
    shifted = ope.dynamics.Replayed(found.marks, found.returns, found.states + 1)
    assert score(shifted, logged, torch.tensor([0.5]))[1].tolist() == [[2.0, 2.0]]


def clone_of(policies):
    """A clone made by hand, of these policies."""
    nothing = torch.zeros(1)
    return ClonedBehaviour(policies, np.zeros(1, np.int64), nothing, nothing, report=None)


def networks(head, outputs, count=2):
    def layer(seed, *shape):
        return torch.randn(shape, generator=generator(seed))

    return tuple(
        ope.MLPPolicy.from_layers(
            [layer(seed, 3, 8), layer(seed + 10, 8, outputs)],
            [layer(seed + 20, 8), layer(seed + 30, outputs)],
            head,
            activation="tanh",
        )
        for seed in range(count)
    )


@pytest.fixture(scope="module")
def continuous():
    bound = torch.tensor([[1.0, 2.0]])
    return clone_of(networks(GaussianHead(-bound.log(), -bound, bound), 2))


@pytest.fixture(scope="module")
def discrete():
    return clone_of(networks(CategoricalHead(), 4))


def rows(count, seed=5):
    return torch.randn((count, 3), generator=generator(seed))


def acted(clone, state, logged_state, logged_action, known=None):
    known = torch.ones(len(logged_state), dtype=torch.bool) if known is None else known
    return clone.act_like(state, logged_state, logged_action, known, generator(7))


def test_continuous_actions_at_the_logged_state_are_the_logged_ones(continuous):
    state = rows(50)
    action = continuous.policy.act(state, generator())
    found = acted(continuous, state.expand(4, -1, -1), state, action)
    torch.testing.assert_close(found, action.expand(4, -1, -1), rtol=1e-5, atol=1e-5)


def test_continuous_actions_move_with_the_clones_mode_within_the_bounds(continuous):
    state, other = rows(200), rows(200, seed=6)
    action = continuous.policy.act(state, generator())
    found = acted(continuous, other[None], state, action)[0]
    mode = [
        torch.stack([one.outputs(at).value for one in continuous.clones]).mean(0)
        for at in (state, other)
    ]
    bound = torch.tensor([1.0, 2.0])
    expected = torch.clamp(action + mode[1] - mode[0], -bound, bound)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    on_bound = (found.abs() == bound).double().mean()
    assert 0.05 < float(on_bound) < 0.95  # the bounds are met, and not by all


def test_discrete_actions_at_the_logged_state_are_the_logged_ones(discrete):
    state = rows(500)
    action = discrete.policy.act(state, generator())
    found = acted(discrete, state.expand(4, -1, -1), state, action)
    # Whichever part of the logged action's interval is drawn; a boundary of two intervals is met
    # with the probability of rounding alone, 1e-6 of 2000.
    assert torch.equal(found, action.expand(4, -1, -1))


def test_discrete_actions_elsewhere_keep_the_clones_distribution(discrete):
    """Logged actions are drawn from the clones at one state; elsewhere, the clones' shares."""
    n = 20_000
    state, other = rows(1).expand(n, -1), rows(1, seed=6).expand(n, -1)
    action = discrete.policy.act(state, generator())
    found = acted(discrete, other[None], state, action)[0]
    chances = [
        torch.stack([one.outputs(at[:1]).value.softmax(-1) for one in discrete.clones]).mean(0)[0]
        for at in (state, other)
    ]
    assert (found.sum(-1) == 1).all()
    error = (chances[1] * (1 - chances[1]) / n).sqrt()  # of a share of n independent draws
    assert ((found.mean(0) - chances[1]).abs() < 4 * error).all()
    # The two states' distributions differ by more: keeping the logged action would be seen.
    assert (chances[0] - chances[1]).abs().max() > 8 * error.max()
    # And no more actions change than must: 1 − Σ min(p, q) at least, an independent draw changes
    # 1 − Σ p q. Inverse transforms of one uniform lie between them.
    changed = float((found != action).any(-1).double().mean())
    afresh = 1 - float((chances[0] * chances[1]).sum())
    assert changed < afresh - 4 * math.sqrt(afresh * (1 - afresh) / n)


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_where_no_action_was_logged_the_clones_act_afresh(kind, request):
    clone = request.getfixturevalue(kind)
    state = rows(200)
    action = clone.policy.act(state, generator())
    known = torch.arange(200) < 100
    found = acted(clone, state[None], state, action, known)[0]
    torch.testing.assert_close(found[:100], action[:100], rtol=1e-5, atol=1e-5)
    assert (found[100:] != action[100:]).any(-1).double().mean() > 0.1
    afresh = clone.policy.act(state, generator(7))[100:]
    torch.testing.assert_close(found[100:], afresh, rtol=1e-5, atol=1e-5)

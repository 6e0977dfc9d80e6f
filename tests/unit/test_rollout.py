import copy
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from testbeds import ExactRatio, linear_gaussian, tabular
from torch.utils._python_dispatch import TorchDispatchMode

import lfiw_ope as ope
from lfiw_ope.dynamics import simulate


class Counted(NamedTuple):
    next_state: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    bounded: torch.Tensor


@dataclass
class Counter:
    """s counts steps; the reward is s; the episode ends when the count reaches its limit.

    Its state is (count, limit). States of odd count are said to have been bounded.
    """

    def sample(self, state, action, generator):  # noqa: ARG002
        count = state[..., 0] + 1
        reached = torch.stack((count, state[..., 1]), -1)
        return Counted(reached, count, count >= state[..., 1], count % 2 == 1)

    def log_ratio(self, state, action, transition):  # noqa: ARG002
        return transition.reward / 100


@dataclass
class Still:
    state_size = 2
    action_size = 1

    def act(self, state, generator):  # noqa: ARG002
        return torch.zeros((*state.shape[:-1], 1))


def count(limit, horizon=5, **kwargs):
    return simulate(
        Still(),
        Counter(),
        torch.tensor([[0.0, limit]]),
        horizon=horizon,
        rollouts=3,
        seed=0,
        **kwargs,
    )


def test_the_terminal_reward_counts_and_nothing_after_it():
    rollout = count(limit=3)
    assert rollout.rewards[0, 0].tolist() == [1, 2, 3, 0, 0]
    assert rollout.alive[0, 0].tolist() == [True, True, True, False, False]
    assert float(rollout.bounded_share[0]) == pytest.approx(2 / 3)  # of the steps alive


def test_returns_are_discounted_from_the_first_step():
    assert count(limit=9).discounted(0.5)[0, 0].tolist() == [1, 1, 3 / 4, 4 / 8, 5 / 16]
    assert count(limit=9).discounted(0.0)[0, 0].tolist() == [1, 0, 0, 0, 0]


def test_log_ratios_stop_at_the_end():
    rollout = count(limit=2, ratio=Counter())
    assert rollout.log_ratio[0, 0].tolist() == pytest.approx([0.01, 0.02, 0, 0, 0])
    assert rollout.conditional_log_ratio is None


class RewardOf:
    """Draws whose reward is a function of the (s, a) that they were drawn at."""

    def __init__(self, model):
        self.model = model

    def sample(self, state, action, generator):
        return self.model.sample(state, action, generator)._replace(
            reward=state.sum(-1) + action.sum(-1)
        )

    def log_ratio(self, state, action, transition):  # noqa: ARG002
        return transition.reward


def test_draws_are_at_the_rollout_s_own_state_and_action():
    """All K draws at one (s, a) have one reward here, so weights of it normalise to exactly 1."""
    truth, model, policy = linear_gaussian()
    starts = truth.initial_states(40, torch.Generator().manual_seed(0))
    of = RewardOf(model)
    rollout = simulate(policy, of, starts, horizon=6, rollouts=500, seed=1, ratio=of, draws=5)
    assert rollout.log_ratio.std() > 0.1
    assert rollout.conditional_log_ratio.abs().max() < 1e-5


class DrawsSeen:
    """Remembers the K draws that a ratio is asked for."""

    def __init__(self):
        self.seen = []

    def log_ratio(self, state, action, transition):
        self.seen.append((state, action, transition.next_state))
        return transition.reward


def test_draws_are_independent_and_the_own_one_is_the_first():
    watching = DrawsSeen()
    simulate_bed(draws=6, ratio=watching, rollouts=4000)
    _, model, _ = linear_gaussian()
    for t, (state, action, drawn) in enumerate(watching.seen):
        assert drawn.shape == (6, 1, 4000, 3)
        if t + 1 < len(watching.seen):
            assert torch.equal(drawn[0], watching.seen[t + 1][0])  # the rollout goes on from it
        residual = (drawn - model._mean(state, action))[:, 0, :, 0]
        correlation = torch.corrcoef(residual) - torch.eye(6)
        # Of independent draws: standard error 1 / sqrt(4000) for each of 15 pairs.
        assert correlation.abs().max() < 4.5 / 4000**0.5


def simulate_bed(draws=1, ratio=True, **kwargs):
    truth, model, policy = linear_gaussian()
    starts = truth.initial_states(40, torch.Generator().manual_seed(0))
    settings = {"horizon": 6, "rollouts": 500, "seed": 1} | kwargs
    if ratio is True:
        ratio = ExactRatio(truth, model)
    return simulate(policy, model, starts, ratio=ratio or None, draws=draws, **settings)


def test_rollouts_are_the_same_with_and_without_a_ratio():
    plain, weighted, drawn = simulate_bed(ratio=False), simulate_bed(), simulate_bed(draws=5)
    assert torch.equal(plain.rewards, weighted.rewards)
    assert torch.equal(plain.rewards, drawn.rewards)
    assert torch.equal(weighted.log_ratio, drawn.log_ratio)


def test_starts_are_resampled_from_the_log():
    _, model, policy = tabular()
    starts = torch.eye(6)[[1, 4]]
    kept = []

    class Watching:
        def sample(self, state, action, generator):
            kept.append(state)
            return model.sample(state, action, generator)

    simulate(policy, Watching(), starts, horizon=1, rollouts=4000, seed=0)
    share = kept[0][0].mean(0)
    assert share[[0, 2, 3, 5]].sum() == 0
    assert abs(float(share[1]) - 0.5) < 4 * (0.25 / 4000) ** 0.5  # 4 standard errors


class HostCopies(TorchDispatchMode):
    """Operations that wait for the device: content handed to Python, or sizes that depend on it.

    On one device there are no transfers to see; the test on a GPU sees those.
    """

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in {"_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero"}:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def small_fit():
    from testbeds import log_of

    truth, _, policy = linear_gaussian()
    data = log_of(truth, policy, episodes=60, horizon=6, seed=0)
    fit = ope.FitConfig(updates=50, evaluate_every=50, batch_size=64)
    config = ope.LFIWConfig(
        dynamics=ope.DynamicsConfig(members=2, hidden=(16, 16), fit=fit),
        ratio=ope.RatioConfig(members=2, hidden=(16,), fit=fit),
        rollouts=50,
    )
    return ope.LFIW(ope.Estimand(6), config).fit(data, seed=0)


def small_policy():
    layers = torch.nn.Linear(3, 2)
    head = ope.policies.heads.GaussianHead(
        torch.zeros(1, 2), torch.full((1, 2), -1.0), torch.ones(1, 2)
    )
    return ope.MLPPolicy.from_layers([layers.weight.T], [layers.bias], head, activation="tanh")


RESAMPLED = [
    {"draws": 4},
    {"candidates": 4},
]


def watch(fit, horizon, settings):
    policy = small_policy()
    with HostCopies() as watched:
        simulate(
            policy,
            fit.dynamics,
            fit.initial_states,
            horizon=horizon,
            rollouts=20,
            seed=0,
            ratio=fit.ratio,
            **settings,
        )
    return watched.seen


@pytest.mark.parametrize("settings", RESAMPLED, ids=str)
def test_no_step_of_the_loop_copies_to_the_host(small_fit, settings):
    assert watch(small_fit, 2, settings) == watch(small_fit, 12, settings) == []


def test_the_watch_would_see_a_copy():
    with HostCopies() as watched:
        float(torch.ones(1).sum())
        bool(torch.ones(1) > 0)
    assert len(watched.seen) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("settings", RESAMPLED, ids=str)
def test_the_loop_synchronises_nothing_on_a_gpu(small_fit, settings):
    dynamics = copy.deepcopy(small_fit.dynamics).to("cuda")
    ratio = copy.deepcopy(small_fit.ratio).to("cuda")
    policy, starts = small_policy().to("cuda"), small_fit.initial_states.cuda()
    arguments = {"horizon": 5, "rollouts": 50, "seed": 0, "ratio": ratio, **settings}
    simulate(policy, dynamics, starts, **arguments)  # builds handles and caches
    torch.cuda.set_sync_debug_mode("error")
    try:
        simulate(policy, dynamics, starts, **arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["rollouts", "horizon", "draws"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ope.ConfigError, match=f"{name} is 0; it must be a whole number, 1 or more"):
        simulate_bed(**{name: 0})


def test_rollouts_start_where_they_are_told():
    limits = torch.tensor([[0.0, 2.0], [0.0, 9.0], [3.0, 9.0]])
    shared = {"horizon": 3, "seed": 0}
    found = simulate(Still(), Counter(), limits, rollouts=None, **shared)
    assert found.rewards[0].tolist() == [[1, 2, 0], [1, 2, 3], [4, 5, 6]]
    with pytest.raises(ope.ConfigError, match="rollouts is 0"):
        simulate(Still(), Counter(), limits, rollouts=0, **shared)


def test_a_first_action_is_taken_once_and_what_follows_draws_the_same_numbers():
    truth, _, policy = linear_gaussian()
    generator = torch.Generator().manual_seed(0)
    start = truth.initial_states(50, generator)
    shared = {"rollouts": None, "seed": 3, "policies": 2}
    seen = []

    def watch(t, state, action, alive):
        seen.append((t, state.clone(), action.clone(), alive.clone()))

    first = torch.full((50, 2), 0.7)
    found = simulate(policy, truth, start, horizon=4, first_action=first, watch=watch, **shared)
    assert [t for t, *_ in seen] == [0, 1, 2, 3]
    assert all(alive.all() and state.shape == (2, 50, 3) for _, state, _, alive in seen)
    torch.testing.assert_close(seen[0][1][1], start)
    torch.testing.assert_close(seen[0][2], first.expand(2, -1, -1))
    assert not torch.equal(seen[1][2][0], first)
    # From the states that the first action led to, a rollout without one goes the same way.
    after = simulate(policy, truth, seen[1][1][0], horizon=3, **shared)
    torch.testing.assert_close(after.rewards, found.rewards[..., 1:])

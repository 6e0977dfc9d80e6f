"""Torch modules, plain functions, tables, mixtures: policies that are no stable-baselines3 zip."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import distributions, nn

import lfiw_ope as ope
from lfiw_ope.core import (
    DensityPolicy,
    ProposingPolicy,
    StackablePolicy,
    group_policies,
    has_density,
    probe,
)
from lfiw_ope.policies import Output

DISCRETE = ope.ActionSpec.discrete(3)
BOX = ope.ActionSpec.continuous([-1.0, 0.0], [1.0, 4.0])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(*shape, seed=0):
    return torch.randn((*shape, 4), generator=generator(seed))


def linear(outputs, seed=0):
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs))
    torch.random.set_rng_state(torch_state)
    return module


class Spread(nn.Module):
    """Normal, independent or not, around a network's output."""

    def __init__(self, independent):
        super().__init__()
        self.mean, self.independent = linear(2), independent

    def forward(self, state):
        found = distributions.Normal(self.mean(state), 0.5)
        return distributions.Independent(found, 1) if self.independent else found


class Choice(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.logits, self.kind = linear(3), kind

    def forward(self, state):
        return self.kind(logits=self.logits(state))


class Soft(nn.Module):
    """Of draws that are no actions."""

    def forward(self, state):
        logits = torch.zeros(len(state), 3)
        return distributions.RelaxedOneHotCategorical(torch.tensor(1.0), logits=logits)


def of_module(module, spec, gives, **how):
    return ope.from_module(module, state_size=4, action_spec=spec, gives=gives, **how)


def of_function(function, spec, **how):
    return ope.from_function(function, state_size=4, action_spec=spec, **how)


def numpy_normal(rows, rng):
    return rows[:, :2] + 0.3 * rng.standard_normal((len(rows), 2))


def numpy_log_prob(rows, actions):
    z = (actions - rows[:, :2]) / 0.3
    return (-0.5 * z**2 - np.log(0.3) - 0.5 * np.log(2 * np.pi)).sum(1)


UNBOUNDED = ope.ActionSpec.continuous([-np.inf] * 2, [np.inf] * 2)

POLICIES = {
    "module actions": lambda: of_module(linear(2), BOX, "actions"),
    "module scaled": lambda: of_module(linear(2), BOX, "scaled actions"),
    "module logits": lambda: of_module(linear(3), DISCRETE, "logits"),
    "module best": lambda: of_module(linear(3), DISCRETE, "logits", deterministic=True),
    "module normal": lambda: of_module(Spread(False), BOX, "distribution"),
    "module independent": lambda: of_module(Spread(True), BOX, "distribution"),
    "module mode": lambda: of_module(Spread(True), BOX, "distribution", deterministic=True),
    "module categorical": lambda: of_module(
        Choice(distributions.Categorical), DISCRETE, "distribution"
    ),
    "module one-hot": lambda: of_module(
        Choice(distributions.OneHotCategorical), DISCRETE, "distribution"
    ),
    "function": lambda: of_function(lambda rows: rows[:, :2], BOX),
    "function discrete": lambda: of_function(lambda rows: (rows[:, 0] > 0) * 2, DISCRETE),
    "function one-hot": lambda: of_function(lambda rows: np.eye(3)[(rows[:, 0] > 0) * 2], DISCRETE),
    "function stochastic": lambda: of_function(numpy_normal, BOX, stochastic=True),
    "function with density": lambda: of_function(
        numpy_normal, UNBOUNDED, stochastic=True, log_prob=numpy_log_prob
    ),
    "function discrete stochastic": lambda: of_function(
        lambda rows, rng: rng.integers(3, size=len(rows)),
        DISCRETE,
        stochastic=True,
        log_prob=lambda rows, _: np.full(len(rows), -np.log(3)),
    ),
    "uniform": lambda: ope.UniformPolicy(4, BOX),
    "uniform discrete": lambda: ope.UniformPolicy(4, DISCRETE),
    "mixture": lambda: ope.Mixture(
        [of_module(Spread(True), BOX, "distribution"), ope.UniformPolicy(4, BOX)], [0.4, 0.6]
    ),
    "ε-greedy": lambda: ope.EpsilonGreedy(
        of_module(linear(3), DISCRETE, "logits", deterministic=True), 0.3
    ),
    "ε-greedy function": lambda: ope.EpsilonGreedy(
        of_function(lambda rows: (rows[:, 0] > 0) * 2, DISCRETE), 0.3
    ),
}
NO_DENSITY = {
    *("module actions", "module scaled", "module best", "module mode"),
    *("function", "function discrete", "function one-hot", "function stochastic"),
}


@pytest.fixture(params=POLICIES)
def name(request):
    return request.param


def test_every_policy_keeps_the_contract(name):
    """Shapes, dtype, bounds, its own generator alone, common random numbers, and densities."""
    policy = POLICIES[name]()
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    state = states(3, 50)
    probe(policy, state)
    together = policy.act(state, generator(1))
    assert together.shape == (3, 50, policy.action_size)
    assert together.dtype == torch.float32
    for place in range(3):
        alone = policy.act(state[place], generator(1))
        torch.testing.assert_close(together[place], alone, rtol=0, atol=1e-6)
    moved = policy.act(states(1, seed=1).expand(3, 50, 4), generator(2))
    assert torch.equal(moved[0], moved[2])  # the same states and numbers
    spec = policy.action_spec
    if spec.kind == "continuous":
        low, high = torch.tensor(spec.low), torch.tensor(spec.high)
        assert ((together >= low) & (together <= high)).all()
    else:
        assert (together.sum(-1) == 1).all()
    if name in NO_DENSITY:
        assert not has_density(policy)
        with pytest.raises(ope.PolicyError, match=r"LFIW, ModelBased"):
            policy.log_prob(state, together)
    else:
        assert has_density(policy)
        assert isinstance(policy, DensityPolicy)
        found = policy.log_prob(state, together)
        assert found.shape == (3, 50)
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        torch.testing.assert_close(found[1], policy.log_prob(state[1], together[1]))
    if isinstance(policy, ProposingPolicy):
        proposed = policy.propose(state, generator(1))
        assert torch.equal(policy.execute(proposed), together)
    assert torch.equal(before, torch.random.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


def test_a_policy_acts_in_a_group_as_alone(name):
    policy, other = POLICIES[name](), POLICIES[name]()
    state = states(40)
    for group in group_policies([policy, other, policy], "cpu", 8):
        together = group.policy.act(state.expand(len(group.indices), -1, -1), generator(1))
        for found in together:
            assert torch.equal(found, policy.act(state, generator(1)))


@pytest.mark.gpu
def test_a_policy_acts_on_a_gpu(name):
    state = states(40).cuda()
    (group,) = group_policies([POLICIES[name]()], "cuda", 8)
    seeded = torch.Generator("cuda").manual_seed(1)
    before = torch.cuda.get_rng_state()
    action = group.policy.act(state[None], seeded)
    assert action.shape[:2] == (1, 40)
    assert action.is_cuda
    assert torch.equal(before, torch.cuda.get_rng_state())
    if name not in NO_DENSITY:
        assert group.policy.log_prob(state[None], action).isfinite().all()


def test_ε_greedy_policies_of_one_network_s_shape_run_in_one_call():
    def greedy(seed):
        layers = [module for module in linear(3, seed) if isinstance(module, nn.Linear)]
        return ope.MLPPolicy.from_layers(
            [layer.weight.T for layer in layers],
            [layer.bias for layer in layers],
            ope.policies.heads.GreedyHead(),
            activation="tanh",
        )

    policies = [ope.EpsilonGreedy(greedy(seed), seed / 10) for seed in (1, 5, 9)]
    (group,) = group_policies(policies, "cpu", 8)
    assert isinstance(group.policy, StackablePolicy)
    state = states(500)
    together = group.policy.act(state.expand(3, -1, -1), generator(1))
    scored = group.policy.log_prob(state.expand(3, -1, -1), together)
    for place, policy in enumerate(policies):
        assert torch.equal(together[place], policy.act(state, generator(1)))
        torch.testing.assert_close(scored[place], policy.log_prob(state, together[place]))
        # ε/3 of the actions are the greedy one by chance; 4 standard errors.
        best = policy.policies[0].act(state, generator())
        share, p = float((together[place] == best).all(-1).float().mean()), 1 - (place * 4 + 1) / 15
        assert abs(share - p) < 4 * (p * (1 - p) / 500) ** 0.5


def test_a_module_is_copied_and_evaluated():
    module = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    policy = of_module(module, BOX, "actions")
    state = states(20)
    before = policy.act(state, generator())
    module[0].weight.data.zero_()
    assert module.training
    assert torch.equal(policy.act(state, generator()), before)
    assert not before.requires_grad


def test_modules_are_read_as_they_say():
    module, state = linear(2), states(30)
    with torch.no_grad():
        raw = module(state)
    low, high = torch.tensor(BOX.low), torch.tensor(BOX.high)
    actions = of_module(module, BOX, "actions").act(state, generator())
    torch.testing.assert_close(actions, raw.clamp(low, high))
    scaled = of_module(module, BOX, "scaled actions").act(state, generator())
    expected = (low + 0.5 * (raw + 1) * (high - low)).clamp(low, high)
    torch.testing.assert_close(scaled, expected)

    class Index(nn.Module):
        def forward(self, rows):
            return rows[:, :3].argmax(1)

    chosen = of_module(Index(), DISCRETE, "actions").act(state, generator())
    assert torch.equal(chosen.argmax(1), state[:, :3].argmax(1))
    with torch.no_grad():
        logits = linear(3)(state)
    policy = of_module(linear(3), DISCRETE, "logits")
    found = policy.log_prob(state, torch.eye(3)[[2] * 30])
    torch.testing.assert_close(found, logits.log_softmax(1)[:, 2])


def test_what_a_module_gives_must_go_with_its_actions():
    refused = [
        (lambda: of_module(linear(3), BOX, "logits"), "Logits are of discrete"),
        (lambda: of_module(linear(3), DISCRETE, "scaled actions"), "no bounds to scale"),
        (lambda: of_module(linear(2), UNBOUNDED, "scaled actions"), "infinite bounds"),
        (lambda: of_module(linear(2), BOX, "mean"), "gives is 'mean'"),
        (lambda: ope.UniformPolicy(4, UNBOUNDED), "no uniform distribution"),
    ]
    for make, words in refused:
        with pytest.raises((ope.PolicyError, ope.ConfigError), match=words):
            make()
    acts = [
        (of_module(linear(5), BOX, "actions"), r"gave \(30, 5\) at 30 states.*\(30, 2\)"),
        (of_module(nn.LSTM(4, 2), BOX, "actions"), "gave a tuple"),
        (of_module(linear(2), BOX, "distribution"), "expected a torch distribution"),
        (of_function(lambda rows: rows[:, 0], BOX), r"gave \(30,\)"),
        (of_function(lambda rows: 7 + 0 * rows[:, 0], DISCRETE), "outside 0 to 2"),
        (of_function(lambda rows: np.full((len(rows), 3), 1 / 3), DISCRETE), "not one-hot"),
        (of_function(lambda rows: np.tile([5.0, -3.0, 0.0], (len(rows), 1)), DISCRETE), "one-hot"),
        (of_function(lambda rows: np.ones((len(rows), 3), bool), DISCRETE), "not one-hot"),
        (of_function(lambda rows: np.zeros((len(rows), 3)), DISCRETE), "not one-hot"),
        (of_function(lambda rows: np.full((len(rows), 3), np.nan), DISCRETE), "not one-hot"),
        (of_module(linear(3), DISCRETE, "actions"), "not one-hot"),
        (of_module(Soft(), DISCRETE, "distribution"), "not one-hot"),
        (of_function(lambda rows: ["left"] * len(rows), DISCRETE), "expected numbers"),
    ]
    for policy, words in acts:
        with pytest.raises(ope.PolicyError, match=words):
            policy.act(states(30), generator())


def test_functions_are_told_what_they_get():
    with pytest.raises(ope.ConfigError, match="not stochastic has none"):
        of_function(lambda rows: rows[:, :2], BOX, log_prob=numpy_log_prob)
    short = of_function(numpy_normal, BOX, stochastic=True, log_prob=lambda *_: [0.0])
    with pytest.raises(ope.PolicyError, match=r"log_prob gave an array of shape \(1,\) for 30"):
        short.log_prob(states(30), torch.zeros(30, 2))


def test_an_unknown_action_space_is_asked_for():
    class Own:
        state_size, action_size = 4, 3

        def act(self, state, generator):  # noqa: ARG002
            return torch.eye(3)[[0]].expand(*state.shape[:-1], 3)

    with pytest.raises(ope.PolicyError, match=r"Own does not say .* pass action_spec"):
        ope.EpsilonGreedy(Own(), 0.1)
    policy = ope.EpsilonGreedy(Own(), 0.1, action_spec=DISCRETE)
    assert policy.act(states(100), generator()).sum(0)[0] > 80
    assert not policy.has_density
    with pytest.raises(ope.PolicyError, match="Own has no log_prob"):
        policy.log_prob(states(2), torch.eye(3)[[0, 1]])


def test_a_mixture_s_parts_must_go_together():
    uniform = ope.UniformPolicy(4, BOX)
    other = ope.UniformPolicy(4, ope.ActionSpec.continuous([-1.0, 0.0], [1.0, 5.0]))
    for parts, weights, words in [
        ([uniform, ope.UniformPolicy(4, DISCRETE)], [0.5, 0.5], "one is needed"),
        ([uniform, other], [0.5, 0.5], "share one action space"),
        ([uniform, uniform], [0.5, 0.6], "sum to 1"),
        ([uniform, uniform], [1.0], "give each policy one"),
        ([], [], "give each policy one"),
    ]:
        with pytest.raises(ope.PolicyError, match=words):
            ope.Mixture(parts, weights)
    with pytest.raises(ope.ConfigError, match="epsilon is 2"):
        ope.EpsilonGreedy(uniform, 2)


def test_a_table_reads_a_nearly_one_hot_state_as_the_nearest():
    """A learned model draws them, with entries below zero; a zero in the table must stay one."""
    policy = ope.TabularPolicy([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    drawn = torch.eye(3)[[0, 1]].repeat(500, 1)
    drawn = drawn + 0.05 * torch.randn(drawn.shape, generator=generator())
    action = policy.act(drawn, generator())
    assert torch.equal(action.argmax(-1), torch.tensor([1, 0]).repeat(500))
    assert policy.log_prob(drawn, action).abs().max() == 0


def test_nan_is_not_an_action():
    policy = ope.TabularPolicy(torch.eye(2))
    head = policy.head
    for noise in (generator(), None):
        drawn = head.propose(Output(torch.tensor([[torch.nan, 0.0], [0.0, 9.0]])), noise)
        assert drawn[0].isnan().all()
        assert drawn[1].tolist() == [0.0, 1.0]


def test_bounds_that_float32_tells_not_apart_are_one_action_space():
    """A policy's bounds are float32, and a log's may be what its user wrote."""
    rounded = ope.ActionSpec.continuous(np.float32([-0.4]), np.float32([0.4]))
    policy = ope.EpsilonGreedy(
        of_module(linear(1), rounded, "actions"),
        0.1,
        action_spec=ope.ActionSpec.continuous(-0.4, 0.4),
    )
    assert policy.act(states(5), generator()).abs().max() <= np.float32(0.4)
    unbounded = ope.ActionSpec.continuous(-np.inf, np.inf)
    with pytest.raises(ope.PolicyError, match="share one action space"):
        ope.EpsilonGreedy(of_module(linear(1), unbounded, "actions"), 0.1, action_spec=rounded)


def test_a_table_acts_and_scores():
    table = np.array([[0.2, 0.8, 0.0], [1.0, 0.0, 0.0]])
    policy = ope.TabularPolicy(table)
    state = torch.eye(2)[[0] * 20_000 + [1] * 100]
    action = policy.act(state, generator())
    assert (action[20_000:].argmax(1) == 0).all()
    share = float(action[:20_000, 1].mean())
    assert abs(share - 0.8) < 4 * (0.8 * 0.2 / 20_000) ** 0.5  # 4 standard errors
    found = policy.log_prob(torch.eye(2)[[0, 0, 0]], torch.eye(3)).exp()
    np.testing.assert_allclose(found.numpy(), table[0], atol=1e-6)
    best = ope.TabularPolicy(table, deterministic=True).act(state, generator())
    assert best[:20_000, 1].all()
    stacked = policy.stack([ope.TabularPolicy(table[::-1].copy())])
    both = stacked.log_prob(torch.eye(2).expand(2, -1, -1), torch.eye(3)[[0, 0]].expand(2, -1, -1))
    torch.testing.assert_close(both.exp(), torch.tensor([[0.2, 1.0], [1.0, 0.2]]))
    for bad in ([[0.5, 0.4]], [[1.5, -0.5]], [0.5, 0.5]):
        with pytest.raises(ope.PolicyError, match="table"):
            ope.TabularPolicy(bad)


@pytest.mark.parametrize("where", ["policy without bounds", "function", "ε-greedy"])
def test_collected_log_probabilities_are_the_policy_s(where):
    """Of proposals where the policy has any, else of what the environment executed."""
    env = gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 4)
    spec = ope.ActionSpec.discrete(2)

    def function(rows, rng):
        return (rng.random(len(rows)) < 0.25).astype(int)

    def log_prob(rows, actions):  # noqa: ARG001
        return np.log(np.where(actions == 1, 0.25, 0.75))

    policy = {
        "policy without bounds": lambda: ope.UniformPolicy(4, spec),
        "function": lambda: of_function(function, spec, stochastic=True, log_prob=log_prob),
        "ε-greedy": lambda: ope.EpsilonGreedy(of_function(lambda rows: rows[:, 2] > 0, spec), 0.5),
    }[where]()
    data = ope.collect(env, policy, episodes=6, seed=0)
    rows = data.transitions()
    expected = policy.log_prob(torch.tensor(rows.state), torch.tensor(rows.action))
    np.testing.assert_allclose(data.log_prob, expected.numpy(), rtol=1e-5)
    assert len(np.unique(data.log_prob)) == (1 if where == "policy without bounds" else 2)
    assert (data.proposed_actions is None) == (where != "ε-greedy")

"""A probability is one in all: the density between the bounds and the masses on them."""

import math
from itertools import pairwise

import pytest
import torch
from torch import distributions, nn

import lfiw_ope as ope
from lfiw_ope.policies import (
    CategoricalHead,
    DeterministicHead,
    GaussianHead,
    Output,
    SquashedGaussianHead,
    StateDependentHead,
)

BOXES = [(-2.0, 2.0), (-0.5, 3.0), (100.0, 101.0)]
STATE = torch.tensor([[0.3, -0.2]])


def box(low, high):
    return torch.tensor([[low]]), torch.tensor([[high]])


def network(head, bias):
    """A policy of two state entries and one hidden layer of ±1."""
    weights = 100 * torch.randn((2, 3), generator=torch.Generator().manual_seed(1))
    last = 0.1 * torch.randn((3, len(bias)), generator=torch.Generator().manual_seed(2))
    biases = [torch.zeros(3), torch.tensor(bias)]
    return ope.MLPPolicy.from_layers([weights, last], biases, head, activation="tanh")


def gaussian(low, high):
    spread = torch.full((1, 1), math.log(high - low) - 1)
    return network(GaussianHead(spread, *box(low, high)), [(low + high) / 2])


def squashed(low, high):
    """Wide: a sixth of the draws lies where float32's tanh is 1."""
    return network(SquashedGaussianHead(*box(low, high)), [1.0, 1.9])


def state_dependent(low, high, squash=False):
    std = torch.full((1, 3, 1), 4.0 if squash else (high - low) / 4)
    limit = torch.full((1, 1), torch.inf)
    head = StateDependentHead(std, limit, *box(low, high), squashed=squash)
    return network(head, [1.0 if squash else (low + high) / 2])


class Given(nn.Module):
    """Gives what `make` makes of a column of zeros, one for each state."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, state):
        return self.make(0 * state[:, :1])


def tanh(mean, std, low, high):
    """As a SAC actor of one's own has it, rescaled to the bounds."""

    def make(zero):
        squash = [
            distributions.TanhTransform(cache_size=1),
            distributions.AffineTransform((high + low) / 2, (high - low) / 2),
        ]
        base = distributions.Normal(mean + zero, std)
        return distributions.TransformedDistribution(base, squash)

    return make


def tanh_event(low, high):
    """The same with its transforms composed and the action's entries one event."""

    def make(zero):
        parts = [
            distributions.TanhTransform(),
            distributions.AffineTransform((high + low) / 2, (high - low) / 2),
        ]
        base = distributions.Independent(distributions.Normal(1.0 + zero, 6.0), 1)
        return distributions.TransformedDistribution(base, distributions.ComposeTransform(parts))

    return make


def tanh_beyond(low, high):
    """Reaches beyond the bounds, and is clipped there."""

    def make(zero):
        middle, half = (high + low) / 2, (high - low) / 2
        squash = [distributions.TanhTransform(), distributions.AffineTransform(middle, 1.4 * half)]
        return distributions.TransformedDistribution(distributions.Normal(zero, 1.0), squash)

    return make


def spread(kind):
    def make(low, high):
        return lambda zero: kind(low + 0.7 * (high - low) + zero, (high - low) / 2)

    return make


def two_normals(independent):
    def make(low, high):
        def give(zero):
            means = torch.stack([low + zero, high + zero], 1)  # [B, 2, A]
            part = distributions.Normal(means, (high - low) / 3)
            if not independent:
                part = distributions.Normal(means.movedim(1, -1), (high - low) / 3)
                weights = torch.tensor([0.3, 0.7]).expand(len(zero), 1, 2)
                return distributions.MixtureSameFamily(distributions.Categorical(weights), part)
            weights = torch.tensor([0.3, 0.7]).expand(len(zero), 2)
            return distributions.MixtureSameFamily(
                distributions.Categorical(weights), distributions.Independent(part, 1)
            )

        return give

    return make


def of_module(make):
    def policy(low, high):
        spec = ope.ActionSpec.continuous(low, high)
        how = {"state_size": 2, "action_spec": spec, "gives": "distribution"}
        return ope.from_module(Given(make(low, high)), **how)

    return policy


KINDS = {
    "Gaussian": gaussian,
    "squashed Gaussian": squashed,
    "gSDE": state_dependent,
    "gSDE squashed": lambda low, high: state_dependent(low, high, squash=True),
    "uniform": lambda low, high: ope.UniformPolicy(2, ope.ActionSpec.continuous(low, high)),
    "ε-greedy": lambda low, high: ope.EpsilonGreedy(gaussian(low, high), 0.3),
    "ε-greedy squashed": lambda low, high: ope.EpsilonGreedy(squashed(low, high), 0.3),
    "mixture": lambda low, high: ope.Mixture(
        [gaussian(low, high), squashed(low, high), state_dependent(low, high)], [0.5, 0.3, 0.2]
    ),
    "normal module": of_module(spread(distributions.Normal)),
    "tanh module": of_module(lambda low, high: tanh(0.1, 0.7, low, high)),
    "wide tanh module": of_module(lambda low, high: tanh(3.0, 6.0, low, high)),
    "tanh module of one event": of_module(tanh_event),
    "tanh module beyond the bounds": of_module(tanh_beyond),
    "Laplace module": of_module(spread(distributions.Laplace)),
    "Cauchy module": of_module(spread(distributions.Cauchy)),
    "uniform module": of_module(
        lambda low, high: lambda zero: distributions.Uniform(low + zero, high + zero)
    ),
    "mixture of events": of_module(two_normals(True)),
    "mixture of entries": of_module(two_normals(False)),
}


def masses(policy, low, high):
    ends = torch.tensor([[low], [high]])
    return policy.log_prob(STATE.expand(2, -1), ends).double().exp()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("low", "high"), BOXES)
def test_density_and_masses_are_one_in_all(kind, low, high):
    policy = KINDS[kind](low, high)
    # Nodes that crowd at the bounds, as a squashed density does, up to where float32 tells an
    # action from the bound; in float64, for the quadrature.
    resolved = 1 - torch.finfo(torch.float32).eps * max(1, 2 * max(abs(low), high) / (high - low))
    furthest = math.atanh(float(torch.tensor(resolved))) - 1e-9
    unit = torch.tanh(torch.linspace(-furthest, furthest, 20_001, dtype=torch.float64))
    nodes = low + (unit + 1) / 2 * (high - low)
    density = policy.log_prob(STATE.expand(len(nodes), -1), nodes[:, None]).double().exp()
    inside = float(torch.trapezoid(density, nodes))
    on_bounds = float(masses(policy, low, high).sum())
    assert inside + on_bounds == pytest.approx(1, abs=5e-5)
    if kind in ("Gaussian", "squashed Gaussian", "gSDE", "gSDE squashed", "mixture"):
        assert on_bounds > 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("low", "high"), BOXES)
def test_draws_have_the_distribution_that_log_prob_says(kind, low, high):
    policy, n = KINDS[kind](low, high), 50_000
    drawn = policy.act(STATE.expand(n, -1), torch.Generator().manual_seed(3))[:, 0]
    assert drawn.min() >= low
    assert drawn.max() <= high
    edges = torch.linspace(low, high, 12)
    for left, right in pairwise(edges):
        nodes = torch.linspace(float(left), float(right), 4001)[1:-1]
        density = policy.log_prob(STATE.expand(len(nodes), -1), nodes[:, None]).double().exp()
        expected = float(density.mean()) * float(right - left)
        inside = (drawn > left) & (drawn < right) & (drawn > low) & (drawn < high)
        # 5 standard errors, and the width that the grid leaves out next to its ends.
        error = 5 * math.sqrt(max(expected, 1e-4) / n) + 2e-3
        if low < left and right < high:  # squashed densities are infinitely steep at the bounds
            assert abs(float(inside.float().mean()) - expected) < error
    for bound, mass in zip((low, high), masses(policy, low, high).tolist(), strict=True):
        found = float((drawn == bound).float().mean())
        assert abs(found - mass) < 5 * math.sqrt(max(mass, 1e-4) / n)
    assert policy.log_prob(STATE.expand(n, -1), drawn[:, None]).isfinite().all()


def test_what_lies_beyond_a_bound_must_be_known():
    """A MultivariateNormal has no cdf; its own draws can still be scored."""
    spec = ope.ActionSpec.continuous([-1.0, -1.0], [1.0, 1.0])
    how = {"state_size": 2, "gives": "distribution"}

    def correlated(zero):
        covariance = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
        return distributions.MultivariateNormal(zero.expand(-1, 2), covariance)

    def student(zero):
        return distributions.StudentT(3.0, zero.expand(-1, 2))

    state, action = torch.zeros(4, 2), torch.full((4, 2), 0.5)
    for make in (correlated, student):
        policy = ope.from_module(Given(make), action_spec=spec, **how)
        with pytest.raises(ope.PolicyError, match=r"clipped .* puts a probability on them"):
            policy.log_prob(state, action)
        unbounded = ope.ActionSpec.continuous([-math.inf] * 2, [math.inf] * 2)
        free = ope.from_module(Given(make), action_spec=unbounded, **how)
        found = policy.proposal_log_prob(state, action)
        assert found.isfinite().all()
        torch.testing.assert_close(free.log_prob(state, action), found)


def test_an_action_outside_a_distribution_has_no_probability():
    spec = ope.ActionSpec.continuous(-1.0, 1.0)
    policy = ope.from_module(
        Given(lambda zero: distributions.Uniform(zero - 0.5, zero + 0.5)),
        state_size=2,
        action_spec=spec,
        gives="distribution",
    )
    found = policy.log_prob(torch.zeros(3, 2), torch.tensor([[-0.9], [0.1], [1.0]]))
    assert found.tolist() == [-math.inf, 0.0, -math.inf]


def test_a_density_that_is_not_finite_is_named():
    def arcsine(zero):
        return distributions.Beta(0.5 + zero, 0.5 + zero)

    policy = ope.from_module(
        Given(arcsine),
        state_size=2,
        action_spec=ope.ActionSpec.continuous(0.0, 1.0),
        gives="distribution",
    )
    assert policy.log_prob(torch.zeros(1, 2), torch.tensor([[0.5]])).isfinite().all()
    with pytest.raises(ope.PolicyError, match="Beta gave NaN or an infinite density"):
        policy.log_prob(torch.zeros(1, 2), torch.tensor([[0.0]]))


def test_unbounded_actions_have_no_masses():
    spread = torch.zeros(1, 1)
    policy = network(GaussianHead(spread, *box(-math.inf, math.inf)), [0.0])
    action = torch.linspace(-50, 50, 11)[:, None]
    state = STATE.expand(11, -1)
    assert torch.equal(policy.log_prob(state, action), policy.proposal_log_prob(state, action))


def test_the_clipped_density_is_scipy_s():
    from scipy import stats

    policy = gaussian(-2.0, 2.0)
    mean = float(policy.outputs(STATE).value)
    normal = stats.norm(mean, math.exp(math.log(4) - 1))
    actions = torch.tensor([[-2.0], [2.0], [0.3], [5.0]])
    expected = [normal.logcdf(-2), normal.logsf(2), normal.logpdf(0.3), normal.logsf(2)]
    found = policy.log_prob(STATE.expand(4, -1), actions)
    torch.testing.assert_close(found, torch.tensor(expected).float())
    unclipped = policy.proposal_log_prob(STATE.expand(4, -1), actions)
    torch.testing.assert_close(unclipped[3], torch.tensor(normal.logpdf(5.0)).float())


def test_entries_of_an_action_add_up():
    low, high = torch.tensor([[-1.0, -1.0]]), torch.tensor([[1.0, 2.0]])
    head = SquashedGaussianHead(low, high)
    output = Output(torch.tensor([[0.1, -0.4, 0.2, -0.3]]))
    action = torch.tensor([[1.0, 0.5]])
    together = head.log_prob(output, action)
    apart = sum(
        SquashedGaussianHead(low[:, i : i + 1], high[:, i : i + 1]).log_prob(
            Output(output.value[:, [i, i + 2]]), action[:, i : i + 1]
        )
        for i in range(2)
    )
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("mean", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("log_std", [-25.0, 0.0, 5.0])
def test_a_squashed_policy_scores_its_own_actions_finitely(mean, log_std):
    """Where tanh is 1, and beyond the range of log σ that SAC keeps to."""
    head = SquashedGaussianHead(*box(-2.0, 2.0))
    output = Output(torch.tensor([[mean, log_std]]).expand(1000, -1))
    action = head.propose(output, torch.Generator().manual_seed(0))
    assert action.abs().max() <= 2
    assert head.log_prob(output, action).isfinite().all()


@pytest.mark.parametrize("epsilon", [0.0, 0.25, 1.0])
def test_discrete_probabilities_are_one_in_all(epsilon):
    logits = ope.MLPPolicy.from_layers(
        [torch.randn((2, 4), generator=torch.Generator().manual_seed(0))],
        [torch.zeros(4)],
        CategoricalHead(),
        activation="tanh",
    )
    greedy = ope.from_module(
        nn.Linear(2, 4),
        state_size=2,
        action_spec=ope.ActionSpec.discrete(4),
        gives="logits",
        deterministic=True,
    )
    best = int(greedy.act(STATE, torch.Generator()).argmax())
    for base in (logits, greedy):
        policy = ope.EpsilonGreedy(base, epsilon)
        assert policy.has_density
        found = policy.log_prob(STATE.expand(4, -1), torch.eye(4)).exp()
        assert float(found.sum()) == pytest.approx(1, abs=1e-6)
        if base is greedy:
            expected = torch.full((4,), epsilon / 4)
            expected[best] += 1 - epsilon
            torch.testing.assert_close(found, expected)


def test_a_continuous_deterministic_policy_gets_no_density_from_noise_elsewhere():
    head = DeterministicHead(*box(-1.0, 1.0), squashed=True)
    policy = ope.EpsilonGreedy(network(head, [0.0]), 0.1)
    assert not policy.has_density
    with pytest.raises(ope.PolicyError, match="no density"):
        policy.log_prob(STATE, torch.zeros(1, 1))
    assert policy.act(STATE.expand(100, -1), torch.Generator()).unique().numel() > 2


@pytest.mark.parametrize("make", [gaussian, squashed])
def test_an_entry_that_its_bounds_fix_is_certain(make):
    policy = make(0.0, 1.0)
    policy.head.high.copy_(policy.head.low)
    action = policy.act(STATE, torch.Generator())
    assert action.tolist() == [[0.0]]
    assert policy.log_prob(STATE, action).tolist() == [0.0]

import math

import numpy as np
import pytest
import torch
from testbeds import linear_gaussian, log_of, tabular

import lfiw_ope as ope
from lfiw_ope.core import ConfigError
from lfiw_ope.dynamics import LOG_SCALE_BOUNDS, PER_DRAW, Draws
from lfiw_ope.nn import Deal

SMALL = ope.FitConfig(updates=300, evaluate_every=100, batch_size=128)


def config(**changes):
    named = {"members": 3, "hidden": (32, 32), "fit": SMALL, "noise": "gaussian"}
    return ope.DynamicsConfig(**(named | changes))


@pytest.fixture(scope="module")
def linear_log():
    truth, _, policy = linear_gaussian()
    return log_of(truth, policy, episodes=200, horizon=15, seed=0)


def noise_scale(model):
    """Standard deviation of each target's noise, in the environment's units."""
    return model.noise.factor.square().sum(1).sqrt() * model.targets.scale


def fitted(data, seed=0, how=None, **kwargs):
    kept = {"train": range(150), "held_out": range(150, data.num_episodes)}
    return ope.fit_dynamics(data, how or config(), seed, **kept, **kwargs)


def _in_last_state(state, action, next_state):  # noqa: ARG001
    return next_state[..., 5] > 0.5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("n", "members"), [(1, 5), (7, 3), (12, 4), (3, 1)])
def test_dealing_out_and_taking_back_is_the_identity(n, members):
    rows = torch.arange(2.0 * n).view(2, n, 1)
    deal = Deal.draw(n, members, rows.device, generator(), policies=2)
    assert torch.equal(deal.back(deal.out(rows)), rows)


@pytest.mark.parametrize("n", [1, 7, 10])
def test_each_row_meets_each_member_equally_often(n):
    members, draws = 5, 5_000
    random = generator()
    count = torch.zeros(n, members)
    for _ in range(draws):
        deal = Deal.draw(n, members, torch.device("cpu"), random, policies=1)
        member = torch.arange(members)[:, None].expand(members, deal.rows.shape[2])
        count += torch.nn.functional.one_hot(deal.back(member[..., None])[0, :, 0], members)
    # A share of draws has a standard error of at most sqrt(0.2 * 0.8 / 5000); 4.5 of them leave
    # a chance of 1e-5 for each of at most 50 cells.
    assert (count / draws - 1 / members).abs().max() < 4.5 * math.sqrt(0.16 / draws)


def many_samples(model, state, action, n):
    return model.sample(state.expand(n, -1), action.expand(n, -1), generator())


def many_draws(model, state, action, n):
    drawn = model.draw(state.expand(1, 6, -1), action.expand(1, 6, -1), n // 6, generator())
    return Draws(*(getattr(drawn, name).flatten(0, 2) for name in PER_DRAW))


@pytest.mark.parametrize("how", [many_samples, many_draws])
def test_samples_have_the_mixture_s_moments(linear_log, how):
    """Mean and variance of p_θ at one (s, a), against the members' outputs."""
    model = fitted(linear_log)
    n = 60_000
    rows = linear_log.transitions()
    state, action = torch.tensor(rows.state[:1]), torch.tensor(rows.action[:1])
    drawn = how(model, state, action, n)
    outputs = model.member_outputs(state, action).mean[:, 0]
    target = model.targets.inverse(outputs)
    mean = target.mean(0)
    mean[:-1] += state[0]
    noise = noise_scale(model).square()
    variance = noise + target.var(0, correction=0)
    found = torch.cat((drawn.next_state, drawn.reward[:, None]), 1)
    # Mean: 4.5 standard errors. Variance: a Gaussian's has relative standard error sqrt(2 / n);
    # a mixture's is no larger by much, as members differ by less than the noise.
    assert ((found.mean(0) - mean).abs() < 4.5 * (variance / n).sqrt()).all()
    assert ((found.var(0) / variance - 1).abs() < 6 * math.sqrt(2 / n)).all()


def test_noise_is_at_the_scale_of_held_out_residuals(linear_log):
    how = config(fit=ope.FitConfig(updates=1000, batch_size=128), hidden=(64, 64))
    model = fitted(linear_log, how=how)
    # True noise has standard deviation 0.2 in each state entry. Over 750 held-out rows its root
    # mean square has a relative standard error of 1 / sqrt(2 * 750) = 2.6 %: 3 of them below, and
    # above also a tenth for the model's own error, which adds to the residual.
    scale = noise_scale(model)[:3] / 0.2
    assert ((scale > 1 - 0.078) & (scale < 1 + 0.078 + 0.1)).all()


def noisy_on_one_side(episodes=200, steps=15):
    """Noise of 0.5 where the action is positive and of 0.05 where it is negative."""
    rng = np.random.default_rng(0)
    actions = rng.normal(size=(episodes, steps, 1))
    noise = np.where(actions > 0, 0.5, 0.05) * rng.normal(size=actions.shape)
    return ope.Trajectories(
        states=np.concatenate((np.zeros((episodes, 1, 1)), noise.cumsum(1)), 1).reshape(-1, 1),
        actions=actions.reshape(-1, 1),
        rewards=np.zeros(episodes * steps),
        lengths=np.full(episodes, steps),
        terminated=np.zeros(episodes, bool),
        truncated=np.ones(episodes, bool),
        action_spec=ope.ActionSpec.continuous([-np.inf], [np.inf]),
    )


def test_heteroscedastic_noise_depends_on_state_and_action_and_is_bounded():
    how = config(noise="heteroscedastic", fit=ope.FitConfig(updates=1500, batch_size=128))
    model = fitted(noisy_on_one_side(), how=how)
    n = 20_000
    quiet, loud = (
        model.sample(torch.zeros(n, 1), torch.full((n, 1), side), generator()).next_state.std()
        for side in (-0.8, 0.8)
    )
    assert 5 < float(loud / quiet) < 20  # the truth is 10
    far = model.member_outputs(torch.full((1, 1), 1e6), torch.full((1, 1), 1e6)).log_scale
    assert float(far.max()) <= LOG_SCALE_BOUNDS[1]
    assert float(far.min()) >= LOG_SCALE_BOUNDS[0]


def test_a_policy_s_draws_do_not_depend_on_the_policies_beside_it(linear_log):
    model = fitted(linear_log)
    state = torch.randn((4, 50, 3), generator=generator(1))
    action = torch.randn((4, 50, 2), generator=generator(2))
    together = model.sample(state, action, generator(3))
    for p in range(4):
        alone = model.sample(state[p : p + 1], action[p : p + 1], generator(3))
        torch.testing.assert_close(alone.next_state[0], together.next_state[p], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.reward[0], together.reward[p], rtol=0, atol=1e-5)


def test_many_draws_are_at_each_policy_s_own_state_and_action(linear_log):
    model = fitted(linear_log)
    state = torch.randn((4, 50, 3), generator=generator(1))
    action = torch.randn((4, 50, 2), generator=generator(2))
    together = model.draw(state, action, 7, generator(3))
    assert together.next_state.shape == (7, 4, 50, 3)
    assert together.terminated.shape == (7, 4, 50)
    for p in range(4):
        alone = model.draw(state[p : p + 1], action[p : p + 1], 7, generator(3))
        torch.testing.assert_close(
            alone.next_state[:, 0], together.next_state[:, p], rtol=0, atol=1e-5
        )
    # Draws of one (s, a) differ in the noise and the member, rows in their (s, a) too.
    mean = together.next_state.mean(0) - state
    moved = model.targets.inverse(model.member_outputs(state[0], action[0]).mean.mean(0))[:, :-1]
    spread = noise_scale(model)[:3] / 7**0.5
    assert ((mean[0] - moved).abs() < 5 * spread + 0.1).all()


def test_states_off_the_bounds_are_put_back_and_counted(linear_log):
    model = fitted(linear_log)
    state = torch.zeros((2, 3))
    state[1] = 1e4
    drawn = model.sample(state, torch.zeros((2, 2)), generator())
    assert drawn.bounded.tolist() == [False, True]
    assert (drawn.next_state <= model.high[:-1]).all()
    assert drawn.reward[1] <= model.high[-1]


def test_entries_that_never_vary_are_pinned_and_not_counted(linear_log):
    constant = np.full((len(linear_log.states), 1), 7.0, np.float32)
    widened = ope.Trajectories(
        states=np.concatenate((linear_log.states, constant), 1),
        actions=linear_log.actions,
        rewards=linear_log.rewards,
        lengths=linear_log.lengths,
        terminated=linear_log.terminated,
        truncated=linear_log.truncated,
        action_spec=linear_log.action_spec,
    )
    model = fitted(widened)
    drawn = model.sample(torch.tensor(widened.initial_states), torch.zeros((200, 2)), generator())
    assert (drawn.next_state[:, 3] == 7.0).all()
    assert float(drawn.bounded.float().mean()) < 0.05


def test_termination_is_learned_known_or_never(linear_log):
    truth, _, policy = tabular(terminal=1)
    data = log_of(truth, policy, episodes=800, horizon=12, seed=0)
    assert 0.1 < data.terminated.mean() < 1
    how = config(fit=ope.FitConfig(updates=800, batch_size=256))
    learned = fitted(data, how=how, seed=1)
    rows = data.transitions()
    state, action = torch.tensor(rows.state), torch.tensor(rows.action)
    drawn = learned.sample(state, action, generator()).terminated.double().mean()
    share = rows.terminated.mean()
    assert abs(float(drawn) - share) < 0.25 * share
    known = fitted(data, termination=_in_last_state)
    step = known.sample(state, action, generator())
    assert torch.equal(step.terminated, step.next_state[..., 5] > 0.5)
    never = fitted(linear_log)
    assert not never.learns_termination


def test_a_known_reward_is_used_as_it_is(linear_log):
    def reward(state, action, next_state):
        return state[..., 0] + 2 * action[..., 1] - next_state[..., 2]

    model = fitted(linear_log, reward=reward)
    state = torch.randn((5, 3), generator=generator(1))
    action = torch.randn((5, 2), generator=generator(2))
    drawn = model.sample(state, action, generator())
    torch.testing.assert_close(drawn.reward, reward(state, action, drawn.next_state))


def test_one_seed_is_one_model(linear_log):
    one, same, other = fitted(linear_log, 0), fitted(linear_log, 0), fitted(linear_log, 1)
    weights = [model.network.weights[1] for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "wrong",
    [
        {"members": 0},
        {"noise": "residual"},
        {"noise_scale": -1.0},
        {"layer_norm": 1},
        {"bound_margin": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="must be"):
        config(**wrong)


def test_an_unknown_setting_is_a_type_error():
    with pytest.raises(TypeError, match="learning_rte"):
        ope.FitConfig(learning_rte=0.1)

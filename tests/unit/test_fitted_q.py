"""Fitted Q evaluation: a slow reference, exact values, and what it says of itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lfiw_envs import TabularMDP, TabularPolicy
from testbeds import log_of, tabular

import lfiw_ope as ope
from lfiw_ope.core import has_time
from lfiw_ope.data import DeviceLog, MemberRows
from lfiw_ope.estimators import BellmanError, ValueNetworks, ValueScale
from lfiw_ope.estimators import fqe as fit_module
from lfiw_ope.estimators import fqe as value_module
from lfiw_ope.nn import Standardiser
from lfiw_ope.policies import TargetPolicies

HORIZON = 8
FAST = ope.FQEConfig(
    hidden=(32, 32),
    members=1,
    action_samples=2,
    tau=0.05,
    fit=ope.FitConfig(
        updates=1000,
        learning_rate=3e-3,
        schedule="cosine",
        batch_size=128,
        evaluate_every=100,
        patience=None,
    ),
)


def config(**changes):
    fit = {name: changes.pop(name) for name in list(changes) if hasattr(FAST.fit, name)}
    return replace(FAST, fit=replace(FAST.fit, **fit), **changes)


def bed(terminal=1, episodes=200, horizon=HORIZON):
    """(truth, behaviour, another policy, log)"""
    truth, _, policy = tabular(terminal)
    better = np.eye(3)[truth.action_values(policy, horizon)[0].argmax(1)]
    other = TabularPolicy(0.2 * policy.table + 0.8 * better)
    return truth, policy, other, log_of(truth, policy, episodes, horizon, seed=0)


def counted(data, states, actions):
    """The MDP whose probabilities and rewards are the log's frequencies and means.

    FQE with a network that can represent every table has this MDP's values as its fixed point, so
    that the log's own sampling error is no part of what is compared.
    """
    rows = data.transitions()
    triple = rows.state.argmax(1), rows.action.argmax(1), rows.next_state.argmax(1)
    count, reward = np.zeros((2, states, actions, states))
    np.add.at(count, triple, 1.0)
    np.add.at(reward, triple, rows.reward)
    assert (count.sum(-1)[~ended(data, states)] > 0).all()  # else nothing tells such a Q
    reward = reward / np.maximum(count, 1)
    count[count.sum(-1) == 0, 0] = 1.0
    start = data.initial_states.mean(0, dtype=np.float64)
    probabilities = count / count.sum(-1, keepdims=True)
    return TabularMDP(probabilities, reward, start / start.sum(), ended(data, states))


def ended(data, states):
    rows = data.transitions()
    found = np.zeros(states, bool)
    found[rows.next_state[rows.terminated].argmax(1)] = True
    return found


def q_table(fitted, states, actions, step):
    """`[P, S, A]` of a fitted Q."""
    state = torch.eye(states).repeat_interleave(actions, 0)
    action = torch.eye(actions).repeat(states, 1)
    steps = torch.full((len(state),), step)
    return fitted.action_value(state, action, steps).view(-1, states, actions).numpy()


def visited(data, states, actions):
    """`[S, A]`, the share of the log's transitions."""
    rows = data.transitions()
    count = np.zeros((states, actions))
    np.add.at(count, (rows.state.argmax(1), rows.action.argmax(1)), 1.0)
    return count / count.sum()


@pytest.mark.parametrize("discount", [1.0, 0.5], ids=["finite", "stationary"])
def test_it_finds_the_exact_values_of_tables(discount):
    _, policy, other, data = bed()
    estimand = ope.Estimand(HORIZON, discount)
    mdp, share = counted(data, 6, 3), visited(data, 6, 3)
    fitted = ope.fit_q(data, [policy, other], estimand, config(), seed=0)
    # Without time the horizon is infinite; at γ = 0.5 what follows 40 steps weighs 1e-12.
    horizon = HORIZON if discount == 1.0 else 40
    for place, target in enumerate((policy, other)):
        exact = mdp.action_values(target, horizon, discount)
        for step in (0, 4, HORIZON - 1):
            found = q_table(fitted, 6, 3, step)[place]
            wanted = exact[step if discount == 1.0 else 0]
            # Stated tolerance, on average over the log: a fifth of how far Q varies at all.
            spread = np.sqrt((share * (wanted - (share * wanted).sum()) ** 2).sum())
            assert np.sqrt((share * (found - wanted) ** 2).sum()) < 0.2 * spread
        value = mdp.value(target, horizon, discount)
        assert float(fitted.values[place]) == pytest.approx(value, abs=0.1)
    # Values of one policy would not do for the other: the tolerance can fail.
    both = [mdp.value(target, horizon, discount) for target in (policy, other)]
    assert abs(both[0] - both[1]) > 0.3


def objective(estimand, policies, data, *, members=2, samples=2, store=False, seed=3):
    """What is minimised, with networks of random weights, trained and following ones different."""
    log, settings = DeviceLog.of(data, "cpu"), config(members=members, hidden=(16,))
    terminates = bool(data.terminated.any())
    scale = ValueScale.of(
        log.rewards, estimand, has_time=has_time(estimand, "auto"), terminates=terminates
    )
    rows = torch.arange(len(log.rewards))
    inputs = Standardiser.of_chunks(log.inputs(rows))
    networks = ValueNetworks(settings, len(policies), inputs, scale)
    generator = torch.Generator().manual_seed(seed)
    for network in (networks.trained, networks.following):
        for values in network.parameters():
            values.data.normal_(generator=generator)
    acting = TargetPolicies(policies, "cpu")
    everyone = list(range(data.num_episodes))
    stored = acting.act(log.states[log.state_row + 1], 0) if store else None
    return BellmanError(
        networks,
        log,
        MemberRows.of(log, [everyone, everyone[::2]][:members]),
        acting,
        samples=samples,
        next_actions=stored,
        initial=torch.zeros(len(policies), 1, 1, inputs.mean.numel() + scale.has_time),
        seed=seed,
    )


def greedy(seed):
    """A policy without noise, of 6 one-hot states and 3 actions."""
    table = np.random.default_rng(seed).dirichlet(np.ones(3), 6)
    return ope.TabularPolicy(table, deterministic=True)


@pytest.mark.parametrize("discount", [1.0, 0.5], ids=["finite", "stationary"])
@pytest.mark.parametrize("store", [True, False], ids=["stored", "drawn"])
def test_the_loss_is_that_of_a_slow_reference(discount, store):
    _, _, _, data = bed(episodes=12)
    estimand, policies = ope.Estimand(HORIZON, discount), [greedy(1), greedy(2), greedy(3)]
    minimised = objective(estimand, policies, data, store=store, samples=1 if store else 2)
    drawn = torch.randint(1 << 48, (2, 5), generator=torch.Generator().manual_seed(1))
    found = minimised.loss(drawn, torch.Generator().manual_seed(2)).view(3, 2)
    steps = torch.randint(HORIZON, (2, 5), generator=torch.Generator().manual_seed(2))

    rows, networks = data.transitions(), minimised.networks
    mean, std = rows.reward.mean(), rows.reward.std()
    lowest, highest = min(0.0, rows.reward.min()), max(0.0, rows.reward.max())
    left = [sum(discount**k for k in range(HORIZON - t)) for t in range(HORIZON + 1)]
    if discount < 1:
        left = [1 / (1 - discount)] * (HORIZON + 1)

    def value(network, index, state, action, step):
        x = (torch.cat((state, action)) - networks.inputs.mean) / networks.inputs.scale
        if discount == 1:
            x = torch.cat((x, torch.tensor([(step / HORIZON - 0.5) * np.sqrt(12)])))
        x = x.float()
        for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            x = x @ weight[index] + bias[index, 0]
            x = x if i == len(network.weights) - 1 else x.relu()
        return left[step] * (mean + std * x.item())

    everyone = np.arange(data.num_transitions)
    even = np.flatnonzero(rows.episode % 2 == 0)
    bounded = 0
    for place, policy in enumerate(policies):
        for member, own in enumerate((everyone, even)):
            index, errors = place * 2 + member, []
            for number, step in zip(drawn[member].tolist(), steps[member].tolist(), strict=True):
                row = own[number % len(own)]
                state, action, following = (
                    torch.from_numpy(values[row])
                    for values in (rows.state, rows.action, rows.next_state)
                )
                target = float(rows.reward[row])
                if not rows.terminated[row]:
                    chosen = policy.act(following[None], torch.Generator())[0]
                    after = value(networks.following, index, following, chosen, step + 1)
                    inside = min(max(after, left[step + 1] * lowest), left[step + 1] * highest)
                    bounded += inside != after
                    target += discount * inside
                error = value(networks.trained, index, state, action, step) - target
                errors.append((error / left[step] / std) ** 2)
            assert found[place, member].item() == pytest.approx(np.mean(errors), rel=1e-4)
    assert bounded > 0  # or bounding was not tested


def test_samples_of_a_stochastic_policy_are_averaged():
    _, policy, _, data = bed(episodes=12)
    minimised = objective(ope.Estimand(HORIZON), [policy], data, samples=2000)
    rows = data.transitions()
    state = torch.from_numpy(rows.next_state[:3]).expand(2, -1, -1)
    step = torch.full((2, 3), 4)
    found = minimised._next_value(state, torch.zeros(2, 3, dtype=torch.int64), step)
    networks, scale = minimised.networks, minimised.networks.scale
    actions = torch.eye(3)
    for row in range(3):
        features = networks.features(state[0, row].expand(3, -1), actions, torch.full((3,), 4))
        output = networks.outputs(networks.following, features[None, None])[0]
        chances = torch.from_numpy(policy.table[rows.next_state[row].argmax()]).float()
        left = scale.left(torch.tensor(4))
        exact = scale.value(output @ chances, left)
        # 2000 draws: 4 standard errors of a mean of values that differ by this much.
        error = 4 * float(left * scale.spread * output.std()) / np.sqrt(2000)
        assert (found[0, :, row] - exact).abs().max() < error


def test_a_policy_gets_the_same_value_alone_and_among_others():
    _, policy, other, data = bed(episodes=60)
    policies = [policy, greedy(1), other, greedy(2)]
    # Two members: a single product and a batch of them are computed by different routines, and
    # training makes much of the last bit.
    quick = config(updates=150, members=2)
    together = ope.fit_q(data, policies, ope.Estimand(HORIZON), quick, seed=0)
    for place, one in enumerate(policies):
        alone = ope.fit_q(data, [one], ope.Estimand(HORIZON), quick, seed=0)
        torch.testing.assert_close(
            together.member_values[:, place], alone.member_values[:, 0], rtol=0, atol=1e-5
        )
    assert len({round(float(value), 3) for value in together.values}) == 4


def test_one_draw_says_the_value_of_policies_without_noise():
    _, behaviour, _, data = bed(episodes=12)
    certain = ope.TabularPolicy(np.eye(3)[[0, 1, 2, 0, 1, 2]], deterministic=True)
    few = config(updates=20, evaluate_every=5, action_samples=4)
    state = torch.eye(6)
    step = torch.arange(6)

    def fitted(*policies):
        return ope.fit_q(data, policies, ope.Estimand(HORIZON), few, seed=0)

    alone, among = fitted(certain), fitted(certain, behaviour)
    assert (alone.members.samples, among.members.samples) == (1, 4)
    expected = among.state_value(state, step)[:1]
    torch.testing.assert_close(alone.state_value(state, step), expected, rtol=1e-5, atol=1e-5)
    several = replace(alone.members, samples=4)(state, step).mean(1)
    torch.testing.assert_close(several, expected, rtol=1e-5, atol=1e-5)


def test_only_the_named_episodes_are_learned_from():
    _, policy, _, data = bed(episodes=60)
    quick, estimand, half = config(updates=100), ope.Estimand(HORIZON), list(range(30))
    rows = slice(int(data.offsets[30]), None)
    spoiled = data.rewards.copy()
    spoiled[rows] += 100
    other = ope.Trajectories(
        states=data.states,
        actions=data.actions,
        rewards=spoiled,
        lengths=data.lengths,
        terminated=data.terminated,
        truncated=data.truncated,
        action_spec=data.action_spec,
    )
    mine, theirs = (
        ope.fit_q(of, [policy], estimand, quick, seed=0, episodes=half) for of in (data, other)
    )
    assert float(mine.values) == float(theirs.values)
    assert float(ope.fit_q(other, [policy], estimand, quick, seed=0).values) > 100


def test_value_depends_on_the_time_left():
    """Q over T steps at t is Q over T − t steps: what networks without time cannot represent."""
    _, policy, _, data = bed(terminal=0, episodes=60)
    fitted = ope.fit_q(data, [policy], ope.Estimand(HORIZON), config(updates=800), seed=0)
    mdp = counted(data, 6, 3)
    state = torch.eye(6)
    for step in (0, HORIZON - 1):
        exact = (policy.table * mdp.action_values(policy, HORIZON)[step]).sum(1)
        found = fitted.state_value(state, torch.full((6,), step))[0].numpy()
        # Four draws of an action at each state: 4 standard errors, and 0.2 for what is learned.
        assert np.abs(found - exact).mean() < 0.2 + 4 * 0.5 / np.sqrt(4 * 6)
    after = fitted.state_value(state, torch.full((6,), HORIZON))
    assert (after == 0).all()


def test_it_says_when_it_has_not_settled_and_only_then():
    _, policy, _, data = bed(terminal=0, episodes=60)
    estimand = ope.Estimand(HORIZON)

    def said(**changes):
        settings = config(**changes)
        return ope.FQE(estimand, settings).fit(data, seed=0).estimate(policy).warnings

    assert said() == ()
    far, slow = said(updates=300, tau=0.001, learning_rate=1e-4, evaluate_every=15)
    assert "has not settled" in slow
    assert "raise updates" in slow
    assert f"it takes {1000 * HORIZON} for them to come from {HORIZON} steps away" in far
    few = said(updates=100, evaluate_every=50)[-1]
    assert "lower evaluate_every" in few


def scaled(by, episodes=50):
    """States that are multiplied at every step, as far as the log says.

    A value linear in them cannot be bootstrapped where γ times the factor is above 1.

    Every logged episode is one step, so that what follows is never seen.
    """
    start = np.random.default_rng(0).normal(size=(episodes, 1, 1)).astype(np.float32)
    states = np.concatenate((start, by * start), 1).reshape(-1, 1)
    zeros = np.zeros((episodes, 1), np.float32)
    return ope.Trajectories(
        states=states,
        actions=zeros + np.linspace(-1, 1, episodes, dtype=np.float32)[:, None],
        rewards=np.tanh(start[:, 0, 0]),
        lengths=np.ones(episodes, int),
        terminated=np.zeros(episodes, bool),
        truncated=np.ones(episodes, bool),
        action_spec=ope.ActionSpec.continuous([-1.0], [1.0]),
    )


def still(states):
    return np.zeros((len(states), 1), np.float32)


def test_divergence_is_bounded_and_said():
    policy = ope.from_function(still, state_size=1, action_spec=scaled(2.0).action_spec)
    linear = config(hidden=(), learning_rate=0.02, tau=0.1)
    wild, calm = (
        ope.FQE(ope.Estimand(1000, 0.99), linear).fit(scaled(by), seed=0).estimate(policy)
        for by in (2.0, 0.5)
    )
    assert any("diverges" in warning for warning in wild.warnings)
    assert wild.diagnostics["bounded_share"] > 0.3
    assert calm.warnings == ()
    assert calm.diagnostics["bounded_share"] == 0.0


def test_numbers_that_stop_being_finite_are_an_error():
    _, policy, _, data = bed(episodes=20)
    wild = config(learning_rate=999.0, hidden=(64,) * 7, updates=200)
    with pytest.raises(ope.DivergedError, match="fitted Q diverged"):
        ope.fit_q(data, [policy], ope.Estimand(HORIZON), wild, seed=0)


def test_bf16_ends_near_float32():
    _, policy, _, data = bed(episodes=60)
    values = []
    for precision in ("float32", "bfloat16"):
        settings = config(precision=precision, updates=500)
        fitted = ope.fit_q(data, [policy], ope.Estimand(HORIZON), settings, seed=0)
        values.append(float(fitted.values))
    # bf16 keeps 8 bits of what returns of standard deviation 2.5 are learned from.
    assert values[0] == pytest.approx(values[1], abs=0.1)
    assert values[0] != values[1]


@pytest.mark.parametrize(
    ("time", "horizon", "discount", "expected"),
    [
        ("auto", 100, 1.0, True),
        ("auto", 100, 0.99, True),
        ("auto", 1000, 0.99, False),
        ("input", 1000, 0.99, True),
        ("none", 10, 0.99, False),
    ],
)
def test_time_is_an_input_where_the_horizon_is_felt(time, horizon, discount, expected):
    assert has_time(ope.Estimand(horizon, discount), time) == expected


def test_what_cannot_be_is_refused():
    with pytest.raises(ope.ConfigError, match="discount is 1"):
        ope.FQE(ope.Estimand(10), ope.FQEConfig(time="none"))
    with pytest.raises(ope.ConfigError, match="time is 'maybe'"):
        ope.FQEConfig(time="maybe")
    with pytest.raises(ope.ConfigError, match="tau is 0"):
        ope.FQEConfig(tau=0)
    _, policy, _, data = bed(episodes=10)
    with pytest.raises(ope.DataError, match="no episode to learn from"):
        ope.fit_q(data, [policy], ope.Estimand(8), FAST, seed=0, episodes=[])


def test_the_constant_is_balanced_long_before_it_is_bootstrapped():
    """At γ = 0.99 and τ = 0.05 a constant would take 1 / (0.01 · 0.05) = 2000 updates and more."""
    _, policy, other, data = bed(terminal=0)
    estimand, quick = ope.Estimand(1000, 0.99), config(updates=400, evaluate_every=25)
    fitted = ope.fit_q(data, [policy, other], estimand, quick, seed=0)
    mdp = counted(data, 6, 3)
    exact = [mdp.value(target, 1000, 0.99) for target in (policy, other)]
    # Rewards are about 1, and 100 discounted steps of them: tolerance 0.05 for each step.
    assert fitted.values.tolist() == pytest.approx(exact, abs=5)
    assert exact[1] - exact[0] > 20


def test_what_memory_holds_at_once_changes_no_number(monkeypatch):
    *_, behaviour, other, data = bed(episodes=30)
    few = config(updates=20, evaluate_every=5, members=2)
    every = [behaviour, other, TabularPolicy(np.full((6, 3), 1 / 3))]
    whole = ope.fit_q(data, every, ope.Estimand(HORIZON), few, seed=0)
    one_at_a_time = 2 * 128 * 2 * 32
    monkeypatch.setattr(fit_module, "HIDDEN_AT_ONCE", one_at_a_time)
    monkeypatch.setattr(value_module, "HIDDEN_AT_ONCE", 7 * 3 * 2 * 32)
    parts = ope.fit_q(data, every, ope.Estimand(HORIZON), few, seed=0)
    torch.testing.assert_close(parts.member_values, whole.member_values, rtol=1e-5, atol=1e-5)
    # Policies that were mixed up would differ by this much.
    assert whole.values.diff().abs().min() > 1e-3


@pytest.mark.parametrize("estimator", [ope.FQE, ope.DICE])
def test_a_value_over_all_of_time_is_said_not_to_be_one_over_t_steps(estimator):
    *_, other, data = bed(episodes=20)
    fit = ope.FitConfig(updates=2, batch_size=8, evaluate_every=1)
    settings = ope.FQEConfig if estimator is ope.FQE else ope.DICEConfig
    config = settings(time="none", hidden=(4,), fit=fit)

    def said(discount):
        fitted = estimator(ope.Estimand(HORIZON, discount), config).fit(data, seed=0)
        return any("over all of time" in warning for warning in fitted.estimate(other).warnings)

    assert said(0.9)
    assert not said(0.5)  # 0.5⁸ = 0.004

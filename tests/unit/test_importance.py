"""Importance sampling: its arithmetic, early ends of episodes, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lfiw_envs import LinearGaussianPolicy
from testbeds import linear_gaussian, log_of, standings, tabular, unsaid

import lfiw_ope as ope
from lfiw_ope.estimators import BehaviourReturn, Options, estimator_named, mean_weight_warning
from lfiw_ope.policies import GaussianHead
from lfiw_ope.stats import Weighting, weigh

FORMS = {
    "IS": (ope.IS, "trajectory", False),
    "PDIS": (ope.PDIS, "stepwise", False),
    "WIS": (ope.WIS, "trajectory", True),
    "WPDIS": (ope.WPDIS, "stepwise", True),
}
ORACLE = {  # of two peers' code, and of closed forms
    "IS": 9.269520829007,
    "PDIS": -17.961825629374,
    "WIS": 0.368106310746,
    "WPDIS": -1.034705563065,
}
BEHAVIOUR, TARGET = np.array([0.8, 0.2]), np.array([0.2, 0.8])


def fixture():
    """Actions and rewards `[40, 4]` that the oracle's numbers are of."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 2, (40, 4)), rng.normal(size=(40, 4))


@pytest.mark.parametrize("name", FORMS)
def test_the_arithmetic_is_that_of_the_oracle(name):
    actions, rewards = fixture()
    log_ratio = torch.from_numpy(np.log(TARGET / BEHAVIOUR)[actions])
    discounted = torch.from_numpy(rewards * 0.98 ** np.arange(4))
    _, form, normalised = FORMS[name]
    found = weigh(discounted, log_ratio, Weighting(form=form, self_normalised=normalised))
    assert found.value == pytest.approx(ORACLE[name], abs=1e-10)


def log_from(actions, rewards, lengths, terminated, jitter=0.0):
    """Episodes in a single state, in which a two-valued action is all there is.

    Args:
        jitter: the spread of what is added to logged likelihoods, where no two ratios may tie.
    """
    kept = np.arange(actions.shape[1]) < np.asarray(lengths)[:, None]
    return ope.Trajectories(
        states=np.ones((kept.sum() + len(kept), 1)),
        actions=np.eye(2)[actions[kept]],
        rewards=rewards[kept],
        lengths=lengths,
        terminated=terminated,
        truncated=~np.asarray(terminated),
        action_spec=ope.ActionSpec.discrete(2),
        log_prob=np.log(BEHAVIOUR)[actions[kept]]
        + np.random.default_rng(9).normal(0, jitter, kept.sum()),
    )


@pytest.mark.parametrize("name", FORMS)
def test_a_log_gives_the_oracle_s_numbers(name):
    actions, rewards = fixture()
    data = log_from(actions, rewards, [4] * 40, [False] * 40)
    make = FORMS[name][0]
    fitted = make(ope.Estimand(4, 0.98)).fit(data, seed=0)
    # Logs hold float32: rewards and log-probabilities to 6e-8, in products of 4 up to 256.
    assert fitted.estimate(ope.TabularPolicy(TARGET[None])).value == pytest.approx(
        ORACLE[name], abs=1e-4
    )


def by_hand(name, data, ratio, horizon, discount):
    """The convention of `lfiw_ope.data.censoring`, episode by episode and step by step.

    Args:
        ratio: `[R]`
    """
    _, form, normalised = FORMS[name]
    stands = standings(data.lengths, data.terminated, horizon)
    if form == "stepwise":
        value = 0.0
        for t in range(horizon):
            total = mass = count = 0.0
            for i, length in enumerate(data.lengths):
                first = data.offsets[i]
                if t >= length and not data.terminated[i]:
                    continue
                weight = stands[i, t] * np.prod(ratio[first : first + min(t + 1, length)])
                reward = float(data.rewards[first + t]) if t < length else 0.0
                total, mass, count = total + weight * reward, mass + weight, count + stands[i, t]
            value += discount**t * total / (mass if normalised else count)
        return value
    total = mass = count = 0.0
    for i, length in enumerate(data.lengths):
        if length < horizon and not data.terminated[i]:
            continue
        rows = slice(data.offsets[i], data.offsets[i] + min(length, horizon))
        weight = stands[i, -1] * np.prod(ratio[rows])
        rewards = data.rewards[rows].astype(float)
        total += weight * (discount ** np.arange(len(rewards)) * rewards).sum()
        mass, count = mass + weight, count + stands[i, -1]
    return total / (mass if normalised else count)


@pytest.fixture(scope="module")
def ragged():
    """Episodes that terminate, that are cut short, and that outlast the horizon of 5."""
    rng = np.random.default_rng(4)
    lengths = rng.integers(1, 8, 60)
    ended = rng.random(60) < 0.5
    return log_from(rng.integers(0, 2, (60, 7)), rng.normal(size=(60, 7)), lengths, ended, 0.2)


@pytest.mark.parametrize("name", FORMS)
def test_ragged_episodes_are_taken_as_the_convention_says(name, ragged):
    policy = ope.TabularPolicy([[0.35, 0.65]])
    found = FORMS[name][0](ope.Estimand(5, 0.9)).fit(ragged, seed=0).estimate(policy)
    target = policy.log_prob(torch.ones(1, 1), torch.eye(2)).double().numpy()
    ratio = np.exp(target[ragged.actions.argmax(1)] - ragged.log_prob.astype(float))
    assert found.value == pytest.approx(by_hand(name, ragged, ratio, 5, 0.9), abs=1e-10)
    cut = int(((ragged.lengths < 5) & ~ragged.terminated).sum())
    assert found.diagnostics["cut_short"] == cut > 5
    assert any(f"{cut} of 60 logged episodes were cut short" in said for said in found.warnings)
    assert found.episodes == (60 if "PD" in name else 60 - cut)
    whole = (ragged.lengths >= 5) | ragged.terminated
    np.testing.assert_allclose(found.returns, ragged.select(whole).returns(5, 0.9), atol=1e-12)
    products = np.array([ratio[a : a + min(n, 5)].prod() for a, n in episodes(ragged)])[whole]
    stands = standings(ragged.lengths, ragged.terminated, 5)[whole, -1]
    weights = stands * products
    np.testing.assert_allclose(np.exp(found.log_weights), weights / weights.sum(), atol=1e-12)
    assert np.ptp(stands) > 0.4  # else all count the same, and no standing would do as well
    assert found.diagnostics["mean_weight"] == pytest.approx(weights.sum() / 60, abs=1e-10)
    assert found.raw_ess == pytest.approx(found.ess)


def episodes(data):
    return zip(data.offsets[:-1], data.lengths, strict=True)


@pytest.mark.parametrize(
    "settings", [{"clip": (0.5, 1.5)}, {"exponent": 0.5}, {"temper": 0.9}, {"pareto": True}]
)
def test_weights_are_shaped_as_if_no_cut_episode_had_been_logged(settings, ragged):
    if "pareto" in settings:
        pytest.importorskip("arviz_stats")
    policy, config = ope.TabularPolicy([[0.1, 0.9]]), ope.ImportanceConfig(**settings)
    whole = (ragged.lengths >= 5) | ragged.terminated
    found, alone, plain = (
        ope.WIS(ope.Estimand(5), of).fit(data, seed=0).estimate(policy)
        for data, of in ((ragged, config), (ragged.select(whole), config), (ragged, None))
    )
    # Only then do those that went on stand for those that were cut.
    weights = np.exp(alone.log_weights) * standings(ragged.lengths, ragged.terminated, 5)[whole, -1]
    assert found.value == pytest.approx(weights @ alone.returns / weights.sum(), abs=1e-12)
    assert found.ess == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    for other in (plain, alone):
        assert found.value != pytest.approx(other.value, abs=1e-6)


def test_tempering_keeps_a_share_of_those_who_are_observed_at_each_step(ragged):
    config, policy = ope.ImportanceConfig(temper=0.8), ope.TabularPolicy([[0, 1]])
    for horizon in range(1, 6):  # weights are told of the last step
        found = ope.WPDIS(ope.Estimand(horizon), config).fit(ragged, 0).estimate(policy)
        whole = (ragged.lengths >= horizon) | ragged.terminated
        stands = standings(ragged.lengths, ragged.terminated, horizon)[whole, -1]
        weights = np.exp(found.log_weights) / stands
        # The target takes the second action alone: an exponent cannot bring others back.
        rows = [slice(a, a + min(n, horizon)) for a, n in episodes(ragged)]
        carried = sum(
            ragged.actions[of, 1].all() for of, is_ in zip(rows, whole, strict=True) if is_
        )
        ess = weights.sum() ** 2 / (weights**2).sum()
        assert ess >= min(0.8 * whole.sum(), carried) * (1 - 1e-9)
        assert ess <= carried * (1 + 1e-9)


def greedy(action):
    table = np.eye(2)[[action]]
    return ope.TabularPolicy(table, deterministic=True)


def test_a_deterministic_policy_of_discrete_actions_keeps_the_episodes_that_do_as_it_does():
    actions, rewards = fixture()
    data = log_from(actions, rewards, [2] * 40, [False] * 40)
    same = (actions[:, :2] == 1).all(1)
    assert 0 < same.sum() < 40
    weighted, plain = (
        make(ope.Estimand(2)).fit(data, seed=0).estimate(greedy(1)) for make in (ope.WIS, ope.IS)
    )
    kept = data.returns(2)[same]
    assert weighted.value == pytest.approx(kept.mean(), abs=1e-9)
    assert plain.value == pytest.approx(kept.sum() / 0.2**2 / 40, rel=1e-6)
    assert weighted.ess == pytest.approx(same.sum())
    assert weighted.diagnostics["zero_weights"] == pytest.approx(1 - same.mean())
    assert weighted.distribution.cdf(kept.min() - 1e-9) == 0
    stored = ope.Estimate.from_json(weighted.to_json())
    np.testing.assert_array_equal(stored.log_weights, weighted.log_weights)
    assert not np.isfinite(stored.log_weights).all()


def test_a_weight_too_small_for_a_number_is_not_a_policy_that_never_acts_so():
    data = log_from(np.zeros((30, 400), int), np.ones((30, 400)), [400] * 30, [False] * 30)
    unlike = ope.TabularPolicy([[0.01, 0.99]])
    found = ope.IS(ope.Estimand(400)).fit(data, seed=0).estimate(unlike)
    assert found.diagnostics["mean_weight"] == 0.0  # (0.01 / 0.8)^400
    assert found.diagnostics["zero_weights"] == 0.0


def test_the_mean_weight_of_a_log_that_was_cut_is_still_1():
    """Episodes that terminate are observed whole more often than those that go on."""
    rng = np.random.default_rng(0)
    n, horizon = 4000, 5
    actions = (rng.random((n, horizon)) < BEHAVIOUR[1]).astype(int)
    ends, cut = actions == 1, rng.random((n, horizon)) < 0.2  # an action of 1 terminates
    last = (ends | cut).argmax(1)
    stops = (ends | cut).any(1)
    lengths = np.where(stops, last + 1, horizon)
    terminated = stops & ends[np.arange(n), last]
    data = log_from(actions, np.ones((n, horizon)), lengths, terminated)
    assert 1000 < (~terminated & (lengths < horizon)).sum() < 3000
    found = (
        ope.WIS(ope.Estimand(horizon)).fit(data, seed=0).estimate(ope.TabularPolicy([[0.7, 0.3]]))
    )
    # Plainly averaged, whole episodes, too many of which end by the likelier action, give 1.15.
    assert found.diagnostics["mean_weight"] == pytest.approx(1.0, abs=0.05)
    assert not any("1 is expected" in said for said in found.warnings)


def test_a_policy_that_never_does_what_was_logged_has_no_weighted_estimate():
    data = log_from(np.zeros((30, 3), int), np.ones((30, 3)), [3] * 30, [False] * 30)
    for make in (ope.WIS, ope.WPDIS):
        with pytest.raises(ope.DataError, match=r"All weights are 0.*never does what was logged"):
            make(ope.Estimand(3)).fit(data, seed=0).estimate(greedy(1))
    for make in (ope.IS, ope.PDIS):
        found = make(ope.Estimand(3)).fit(data, seed=0).estimate(greedy(1))
        assert (found.value, found.ess, found.standard_error) == (0.0, 0.0, None)
        assert any("rest on 0.0 of 30" in said for said in found.warnings)
        with pytest.raises(ope.ConfigError, match="no distribution of returns"):
            _ = found.distribution


class Unsummed:
    """Its author forgot that an action may have several entries, as torch's Normal does."""

    state_size, action_size = 1, 1

    def act(self, state, generator):  # noqa: ARG002
        return torch.zeros_like(state)

    def log_prob(self, state, action):
        return torch.distributions.Normal(torch.zeros_like(state), 1.0).log_prob(action)


def test_a_density_of_each_action_entry_is_refused_in_words():
    rng = np.random.default_rng(0)
    data = ope.Trajectories(
        states=rng.normal(size=(15, 1)),
        actions=rng.normal(size=(12, 1)),
        rewards=np.ones(12),
        lengths=[4] * 3,
        terminated=[False] * 3,
        truncated=[True] * 3,
        action_spec=ope.ActionSpec.continuous([-np.inf], [np.inf]),
        log_prob=np.zeros(12),
    )
    fitted = ope.WIS(ope.Estimand(4)).fit(data, seed=0)
    with pytest.raises(ope.PolicyError, match=r"shape \[1, 12, 1\] .* summed over"):
        fitted.estimate(Unsummed())
    assert len(repr(fitted)) < 1000  # no tensors


@pytest.mark.parametrize("make", [tabular, linear_gaussian])
@pytest.mark.parametrize("name", FORMS)
def test_a_batch_of_policies_gives_the_single_results(name, make):
    truth, _, behaviour = make()
    data = log_of(truth, behaviour, episodes=40, horizon=5, seed=1)
    fitted = FORMS[name][0](ope.Estimand(5)).fit(data, seed=0)
    policies = [network(data, seed) for seed in range(3)]
    together = fitted.estimate([*policies, behaviour])
    assert len({one.value for one in together}) == 4
    for policy, found in zip([*policies, behaviour], together, strict=True):
        assert found.value == pytest.approx(fitted.estimate(policy).value, rel=1e-5)
    assert fitted.estimate([]) == []


def network(data, seed, **how):
    """A policy of one hidden layer, near that of the linear-Gaussian bed's size."""
    drawn = torch.Generator().manual_seed(seed)
    layers = [
        0.3 * torch.randn(shape, generator=drawn)
        for shape in ((data.state_size, 8), (8, data.action_size))
    ]
    biases = [torch.zeros(8), torch.zeros(data.action_size)]
    head = ope.policies.heads.CategoricalHead()
    if data.action_spec.kind == "continuous":
        bound = torch.full((1, data.action_size), torch.inf)
        head = GaussianHead(torch.full_like(bound, -1.0), -bound, bound)
    return ope.MLPPolicy.from_layers(layers, biases, head, activation="tanh", **how)


def test_what_has_no_likelihood_is_refused_and_told_what_works():
    truth, _, behaviour = linear_gaussian()
    data = log_of(truth, behaviour, episodes=10, horizon=3, seed=0)
    fitted = ope.PDIS(ope.Estimand(3)).fit(data, seed=0)
    with pytest.raises(ope.PolicyError, match=r"no density.*LFIW, ModelBased, FQE, DICE"):
        fitted.estimate([behaviour, network(data, 0, deterministic=True)])
    function = ope.from_function(
        lambda states, rng: rng.normal(size=(len(states), 2)),
        state_size=3,
        action_spec=data.action_spec,
        stochastic=True,
    )
    with pytest.raises(ope.PolicyError, match=r"no log_prob.*LFIW, ModelBased, FQE, DICE"):
        fitted.estimate(function)
    broken = replace(function, log_probability=lambda states, _: np.full(len(states), math.nan))
    with pytest.raises(ope.PolicyError, match="NaN or an infinite density for 30 of 30"):
        fitted.estimate(broken)


def test_logs_that_say_too_little_are_refused():
    actions, rewards = fixture()
    data = log_from(actions, rewards, [4] * 40, [False] * 40)
    for make in (*(form[0] for form in FORMS.values()), ope.BehaviourMean):
        with pytest.raises(ope.DataError, match="at least 2 are needed"):
            make(ope.Estimand(4)).fit(data.select([0]), seed=0)
        with pytest.raises(ope.DataError, match="more than once"):
            make(ope.Estimand(4)).fit(data.select([0, 1, 1]), seed=0)
        with pytest.raises(ope.DataError, match="cut short after step 4, and the horizon is 5"):
            make(ope.Estimand(5)).fit(data, seed=0)
        with pytest.raises(ope.ConfigError, match="seed is -1"):
            make(ope.Estimand(4)).fit(data, seed=-1)
        with pytest.raises(ope.ConfigError, match="device 'warp' cannot be used"):
            make(ope.Estimand(4), device="warp")
    silent = unsaid(data)
    logged = ope.ImportanceConfig(behaviour=ope.BehaviourConfig(source="logged"))
    with pytest.raises(ope.DataError, match="carries no log_prob"):
        ope.IS(ope.Estimand(4), logged).fit(silent, seed=0)
    with pytest.raises(ope.DataError, match="at least 5 are needed, because 5 clones"):
        ope.IS(ope.Estimand(4)).fit(silent.first(4), seed=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": "guessed"}, "source is 'guessed'"),
        ({"folds": 1}, "folds is 1"),
        ({"hidden": (0,)}, "a width of hidden is 0"),
        ({"squashed": "yes"}, "squashed is 'yes'"),
        ({"device": "warp"}, "device 'warp'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ope.ConfigError, match=said):
        ope.BehaviourConfig(**settings)


def test_settings_of_weights_are_refused_where_they_are_given():
    with pytest.raises(ope.ConfigError, match="clip"):
        ope.ImportanceConfig(clip=(2.0, 3.0))
    with pytest.raises(ope.ConfigError, match="temper is 2"):
        ope.ImportanceConfig(temper=2)


def test_draws_beyond_the_bounds_are_of_no_squashed_behaviour():
    drawn = np.random.default_rng(0).normal(size=(40, 1))
    data = ope.Trajectories(
        states=np.ones((50, 1)),
        actions=drawn.clip(-1, 1),
        rewards=np.ones(40),
        lengths=[4] * 10,
        terminated=[False] * 10,
        truncated=[True] * 10,
        action_spec=ope.ActionSpec.continuous([-1.0], [1.0]),
        proposed_actions=drawn,
    )
    share = float((np.abs(drawn) > 1).mean())
    with pytest.raises(
        ope.DataError, match=rf"{share:.1%} of .* draws lie beyond .*squashed=False"
    ):
        ope.fit_behaviour(data, ope.BehaviourConfig(squashed=True), seed=0)


@pytest.mark.parametrize("bound", [1.0, np.inf])
def test_clipped_actions_are_told_of_whether_or_not_the_log_says_its_bounds(bound):
    drawn = np.random.default_rng(0).normal(size=(400, 1))
    of = {
        "states": np.ones((410, 1)),
        "rewards": np.ones(400),
        "lengths": [40] * 10,
        "terminated": [False] * 10,
        "truncated": [True] * 10,
        "action_spec": ope.ActionSpec.continuous([-bound], [bound]),
        "log_prob": -0.5 * drawn[:, 0] ** 2,
    }
    clipped = ope.Trajectories(actions=drawn.clip(-1, 1), **of)
    share = float((np.abs(drawn) > 1).mean())
    ratio = ope.WIS(ope.Estimand(4)).fit(clipped, seed=0).ratio
    assert ratio.on_bounds == pytest.approx(share)
    assert "lie on an action bound" in ratio.warnings[0]
    quick = ope.FitConfig(updates=2, evaluate_every=1)
    clones = ope.ImportanceConfig(behaviour=ope.BehaviourConfig(source="cloned", fit=quick))
    said = ope.WIS(ope.Estimand(4), clones).fit(clipped, seed=0).ratio.warnings
    assert any("look clipped" in one for one in said) == (bound == np.inf)
    inside = ope.Trajectories(actions=drawn / 10, **of)
    assert ope.WIS(ope.Estimand(4)).fit(inside, seed=0).ratio.on_bounds == 0.0


def test_the_command_line_s_settings_reach_the_clones():
    options = Options(updates=7)
    for name in ("wis", "dr", "wdr", "magic"):
        config = estimator_named(name, ope.Estimand(4), options).config
        assert config.behaviour.fit.updates == 7


def test_weights_that_do_not_average_1_are_told_of():
    """The logged likelihoods are of another behaviour than made the log."""
    rng = np.random.default_rng(0)
    data = log_from(
        rng.integers(0, 2, (500, 3)), rng.normal(size=(500, 3)), [3] * 500, [False] * 500
    )
    found = ope.WIS(ope.Estimand(3)).fit(data, seed=0).estimate(ope.TabularPolicy([[0.6, 0.4]]))
    assert found.standard_error is not None
    # (0.5 · 0.6 / 0.8 + 0.5 · 0.4 / 0.2)³, and not 1
    assert found.diagnostics["mean_weight"] == pytest.approx(1.375**3, rel=0.15)
    assert any("1 is expected" in said for said in found.warnings)


def normal_log(episodes):
    """One step of a standard normal behaviour."""
    drawn = torch.randn(episodes, 1, generator=torch.Generator().manual_seed(0))
    return ope.Trajectories(
        states=np.zeros((2 * episodes, 1), np.float32),
        actions=drawn.numpy(),
        rewards=drawn[:, 0].numpy(),
        lengths=np.ones(episodes, int),
        terminated=np.zeros(episodes, bool),
        truncated=np.ones(episodes, bool),
        action_spec=ope.ActionSpec.continuous([-np.inf], [np.inf]),
        log_prob=-0.5 * drawn[:, 0].numpy() ** 2 - 0.5 * math.log(2 * math.pi),
    )


def normal(width):
    return LinearGaussianPolicy(gain=np.zeros((1, 1)), bias=np.zeros(1), scale=np.array([width]))


@pytest.mark.parametrize(("width", "heavy"), [(2.0, True), (0.9, False)])
def test_a_heavy_tail_of_the_weights_is_told_of(width, heavy):
    """The ratio of normals of standard deviations σ and 1 has a tail of k = 1 − 1 / σ²."""
    policy = normal(width)
    config = ope.ImportanceConfig(pareto=True)
    found = ope.WIS(ope.Estimand(1), config).fit(normal_log(4000), 0).estimate(policy)
    assert (found.pareto_k > 0.7) == heavy
    assert any("variance may be infinite" in said for said in found.warnings) == heavy
    plain = ope.WIS(ope.Estimand(1)).fit(normal_log(4000), 0).estimate(policy)
    assert not any("tail" in said for said in plain.warnings)


@pytest.mark.parametrize(("share", "level"), [(1.0, True), (0.5, False)])
def test_weights_that_tempering_made_equal_are_told_of(share, level):
    policy, config = normal(0.9), ope.ImportanceConfig(temper=share)
    found = ope.WIS(ope.Estimand(1), config).fit(normal_log(200), 0).estimate(policy)
    assert (found.exponent < 0.01) == level
    assert any("all but equal" in said for said in found.warnings) == level


def test_the_behaviour_s_mean_is_by_standing(ragged):
    found = ope.BehaviourMean(ope.Estimand(5, 0.9)).fit(ragged, seed=0)
    estimate = found.estimate(ope.TabularPolicy([[0.5, 0.5]]))
    expected = by_hand("PDIS", ragged, np.ones(ragged.num_transitions), 5, 0.9)
    assert estimate.value == pytest.approx(expected, abs=1e-10)
    said = BehaviourReturn.of(ragged, ope.Estimand(5, 0.9))
    assert (said.mean, said.standard_error) == (estimate.value, estimate.standard_error)
    assert [one.value for one in found.estimate([greedy(0), greedy(1)])] == [estimate.value] * 2
    with pytest.raises(ope.PolicyError, match="not a policy"):
        found.estimate(np.mean)


def test_the_behaviour_s_mean_of_whole_episodes_is_the_plain_mean():
    actions, rewards = fixture()
    data = log_from(actions, rewards, [4] * 40, [False] * 40)
    found = BehaviourReturn.of(data, ope.Estimand(4, 0.9))
    returns = data.returns(4, 0.9)
    assert found.mean == pytest.approx(returns.mean(), abs=1e-12)
    assert found.standard_error == pytest.approx(returns.std(ddof=1) / np.sqrt(40), abs=1e-12)
    # Beyond where the log goes it says how far that is, and estimates nothing.
    beyond = BehaviourReturn.of(data, ope.Estimand(9, 0.9))
    assert replace(beyond, cut_short=0) == found
    assert (beyond.steps, beyond.cut_short) == (4, 40)
    alone = BehaviourReturn.of(data.select([0]), ope.Estimand(4))
    assert (alone.episodes, alone.standard_error) == (1, None)


@pytest.mark.parametrize(
    ("mean", "error", "said"),
    [
        (1.0 + 1e-15, 1e-17, None),  # the behaviour itself: all weights are 1, but for rounding
        (1.004, 1e-9, None),
        (1.5, 0.2, None),
        (1.5, 0.01, "average 1.5 ±"),
        (1.6e5, 0.0, "average 1.6e+05 ±"),
        (math.inf, math.nan, "than there are numbers for"),
        (1e200, math.inf, "than there are numbers for"),
    ],
)
def test_a_mean_weight_is_told_of_where_it_is_no_rounding(mean, error, said):
    told = mean_weight_warning(mean, error)
    assert (told == []) if said is None else (said in told[0])

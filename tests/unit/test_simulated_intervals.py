"""Intervals of simulated values: what goes into them, each against a count done by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from testbeds import linear_gaussian, log_of, tabular

import lfiw_ope as ope
from lfiw_ope.core import torch_generator
from lfiw_ope.dynamics import simulate
from lfiw_ope.estimators import (
    Noise,
    bias_aware,
    bias_bound,
    clustered,
    combined,
    critical_value,
    measure,
    member_values,
    one_member,
)

HORIZON = 6
FIT = ope.FitConfig(updates=120, evaluate_every=40, batch_size=64, learning_rate=4e-3)
DYNAMICS = ope.DynamicsConfig(members=3, hidden=(16,), fit=FIT)


def small(**changes):
    settings = {"dynamics": DYNAMICS, "rollouts": 60} | changes
    return ope.ModelBased(ope.Estimand(HORIZON), ope.ModelBasedConfig(**settings))


@pytest.fixture(scope="module")
def bed():
    truth, _, policy = linear_gaussian()
    return truth, policy, log_of(truth, policy, 30, HORIZON, seed=0)


@pytest.fixture(scope="module")
def fit(bed):
    return small().fit(bed[2], seed=0)


def test_clusters_are_summed_by_start():
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 7, 40)
    influence = rng.normal(size=40)
    found = clustered(torch.from_numpy(influence), torch.from_numpy(starts))
    totals = [influence[starts == g].sum() for g in set(starts.tolist())]
    groups = len(totals)
    by_hand = 39 / 40 * groups / (groups - 1) * sum(t**2 for t in totals)
    assert found.standard_error == pytest.approx(np.sqrt(by_hand))
    assert found.freedom == groups - 1


def test_rollouts_from_one_start_have_the_noise_of_simulation_alone():
    influence = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    found = clustered(influence, torch.zeros(3, dtype=torch.int64))
    assert found == Noise(pytest.approx(6**0.5), 2)


def test_the_variance_of_starts_and_simulation_is_found_with_what_is_known_of_both():
    # σ_b² (1 / n + (1 − 1 / n) / N) + σ_w² / n, see `clustered`; 400 repeats know a variance to
    # √(2 / 400) = 7 %, 4 of them are 28 %.
    rng = np.random.default_rng(1)
    n, logged, between, within = 200, 40, 1.5, 2.0
    means, squares, plain = [], [], []
    for _ in range(400):
        value = rng.normal(0, between, logged)
        starts = rng.integers(0, logged, n)
        returns = value[starts] + rng.normal(0, within, n)
        influence = (returns - returns.mean()) / n * np.sqrt(n / (n - 1))
        found = clustered(torch.from_numpy(influence), torch.from_numpy(starts))
        means.append(returns.mean())
        squares.append(found.standard_error**2)
        plain.append((influence**2).sum())
    known = between**2 * (1 / n + (1 - 1 / n) / logged) + within**2 / n
    assert np.mean(squares) == pytest.approx(known, rel=0.05)
    assert np.var(means) == pytest.approx(known, rel=0.28)
    assert np.mean(plain) < 0.5 * known


def test_rollouts_say_where_they_began(bed, fit):
    shared = {"horizon": 1, "seed": 3}
    seen = []
    starts = fit.initial_states

    def watch(t, state, action, alive):  # noqa: ARG001
        seen.append(state[0])

    drawn = simulate(bed[1], fit.dynamics, starts, rollouts=50, watch=watch, **shared)
    every = simulate(bed[1], fit.dynamics, starts, rollouts=None, **shared)
    assert torch.equal(seen[0], starts[drawn.starts])
    assert drawn.starts.unique().numel() > 1
    assert every.starts.tolist() == list(range(len(starts)))


def states_and_actions():
    generator = torch_generator(1, "rows")
    return torch.randn(4, 3, generator=generator), torch.randn(4, 2, generator=generator)


def test_a_member_alone_has_the_members_density(fit):
    state, action = states_and_actions()
    dynamics = fit.dynamics.with_noise("gaussian")
    drawn = dynamics.sample(state, action, torch_generator(0, "draw"))
    alone = torch.stack(
        [one_member(dynamics, m).log_density(state, action, drawn) for m in range(3)]
    )
    mixture = torch.logsumexp(alone, 0) - np.log(3)
    torch.testing.assert_close(mixture, dynamics.log_density(state, action, drawn))
    assert (alone[0] - alone[1]).abs().min() > 0


def test_a_member_alone_gives_its_outputs(fit):
    state, action = states_and_actions()
    with torch.no_grad():
        every = fit.dynamics.member_outputs(state, action).mean
        for m in range(3):
            one = one_member(fit.dynamics, m).member_outputs(state, action).mean[0]
            torch.testing.assert_close(one, every[m])


def test_members_share_starts_and_noise(bed, fit):
    """Two views of one member have one value; two members differ, by less than their noise."""
    _, policy, _ = bed
    twice = one_member(fit.dynamics, 1), one_member(fit.dynamics, 1)
    values = [
        simulate(policy, one, fit.initial_states, horizon=HORIZON, rollouts=50, seed=0).rewards
        for one in twice
    ]
    assert torch.equal(*values)
    settings = {"rollouts": 60, "seed": 0}
    both = member_values(
        [policy, policy], fit.dynamics, fit.initial_states, ope.Estimand(HORIZON), **settings
    )
    assert both.shape == (2, 3)
    assert torch.equal(both[0], both[1])
    assert len(set(both[0].tolist())) == 3


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_critical_values_are_a_folded_normals_and_students(level):
    for shift in (0.0, 0.7, 5.0):
        folded = stats.foldnorm.ppf(level, shift)
        assert critical_value(shift, np.inf, level) == pytest.approx(folded, rel=1e-6)
        sample = np.abs(stats.t.rvs(4, size=200_000, random_state=0) + shift)
        inside = (sample <= critical_value(shift, 4, level)).mean()
        assert abs(inside - level) < 4 * 0.5 / np.sqrt(200_000)  # 4 standard errors
    for huge in (9e5, 1e12):
        one_sided = huge + stats.t.ppf(level, 4)
        assert critical_value(huge, 4, level) == pytest.approx(one_sided, rel=1e-9)
    assert critical_value(0.0, 4, level) == pytest.approx(stats.t.ppf(0.5 + level / 2, 4))


def test_a_bias_within_the_bound_is_covered():
    # 4 standard errors of a share of 4000 at 0.9 are 0.019.
    rng = np.random.default_rng(0)
    values = 2.0 + rng.normal(0, 1.0, 4000)
    for bias, bound, least, most in ((2.0, 2.0, 0.88, 0.92), (0.0, 2.0, 0.99, 1.0)):
        hits = [
            bias_aware(v + bias, Noise(1.0, np.inf), bound, levels=(0.9,), method="x")[0].covers(2)
            for v in values[: 4000 if bias else 500]
        ]
        assert least <= np.mean(hits) <= most


def test_freedom_is_between_the_parts_and_their_sum():
    both = combined(Noise(1.0, 4), Noise(1.0, 30))
    assert both.standard_error == pytest.approx(2**0.5)
    assert both.freedom == pytest.approx(4 / (1 / 4 + 1 / 30))
    assert combined(Noise(1.0, 4), Noise(0.0, 2)).freedom == pytest.approx(4)
    assert combined(Noise(0.0, 4), Noise(0.0, 2)) == Noise(0.0, np.inf)


def gap(model, members, stretch=1.0):
    return ope.AnchorGap(model, 0.0, None, members, stretch)


def test_the_bias_grows_as_members_disagree():
    anchors = (gap(0.3, (-1.0, 0.0, 1.0)), gap(-0.4, (-1.0, 0.0, 1.0)))
    here = np.sqrt((0.3**2 + 0.4**2) / 2 + 1.0)
    assert bias_bound(anchors, 0.5) == pytest.approx(here)
    assert bias_bound(anchors, 3.0) == pytest.approx(3 * here)
    assert bias_bound((), 3.0) == 0.0
    twice = bias_bound((gap(0.3, (-1.0, 1.0), stretch=2.0),), 0.1)
    assert twice == pytest.approx(2 * np.hypot(0.3, 2**0.5))


def test_an_estimate_holds_all_its_parts(bed, fit):
    found = fit.estimate(bed[1])
    assert [one.level for one in found.intervals] == [0.5, 0.8, 0.9, 0.95]
    assert all(one.method == "total" for one in found.intervals)
    assert all(one.covers(found.value) for one in found.intervals)
    widths = [one.width for one in found.intervals]
    assert widths == sorted(widths)
    assert found.no_interval is None
    told = found.diagnostics
    squares = found.mc_standard_error**2 + told["start_noise"] ** 2 + told["member_spread"] ** 2
    assert told["standard_error"] == pytest.approx(np.sqrt(squares))
    assert told["bias_bound"] >= told["anchor_gap"] > 0
    assert ope.Estimate.from_json(found.to_json()) == found


def test_a_policy_alone_has_the_interval_that_it_has_among_others(bed, fit):
    _, policy, _ = bed
    clone = ope.clones(bed[2], 1, SHORT, 0)[0].policy
    mine = fit.estimate([clone, policy])[1]
    assert mine.intervals == fit.estimate(policy).intervals
    assert mine.diagnostics == fit.estimate(policy).diagnostics


def test_a_seed_gives_one_interval(bed, fit):
    again = small().fit(bed[2], seed=0).estimate(bed[1])
    assert again.intervals == fit.estimate(bed[1]).intervals
    other = small().fit(bed[2], seed=1).estimate(bed[1])
    assert other.intervals != again.intervals


SHORT = ope.BehaviourConfig(source="cloned", folds=2, hidden=(8,), fit=FIT)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"interval": ope.SimulatedIntervalConfig(method="none")}, "None was asked for"),
        ({"dynamics": ope.DynamicsConfig(members=1, hidden=(8,), fit=FIT)}, "members=2 or more"),
        (
            {
                "dynamics": ope.DynamicsConfig(
                    members=2, hidden=(8,), fit=FIT, member_episodes="all"
                )
            },
            "member_episodes",
        ),
    ],
)
def test_without_an_interval_the_reason_is_told(bed, changes, reason):
    found = small(**changes).fit(bed[2], seed=0).estimate(bed[1])
    assert found.intervals == ()
    assert found.interval() is None
    assert reason in found.no_interval


def test_simulation_noise_alone_is_called_so_and_costs_no_anchor(bed):
    config = ope.SimulatedIntervalConfig(method="simulation", levels=(0.9,))
    fit = small(interval=config).fit(bed[2], seed=0)
    found = fit.estimate(bed[1])
    assert fit.gaps == ()
    (one,) = found.intervals
    half = stats.t.ppf(0.95, 59) * found.mc_standard_error
    assert (one.method, one.width) == ("simulation", pytest.approx(2 * half))


def test_without_anchors_the_interval_says_that_it_has_no_bias(bed):
    config = ope.SimulatedIntervalConfig(anchors="none")
    found = small(interval=config).fit(bed[2], seed=0).estimate(bed[1])
    assert {one.method for one in found.intervals} == {"total without bias"}
    assert "bias_bound" not in found.diagnostics


def test_every_form_of_weights_has_its_own_noise(bed):
    classifiers = ope.RatioConfig(members=2, hidden=(8,), fit=FIT)
    config = ope.LFIWConfig(
        dynamics=DYNAMICS,
        ratio=classifiers,
        weighting=ope.Weighting(form="stepwise", temper=0.8),
        rollouts=60,
        draws=4,
    )
    fit = ope.LFIW(ope.Estimand(HORIZON), config).fit(bed[2], seed=0)
    forms = [ope.Weighting(form="uniform"), config.weighting]
    plain, weighted = fit.estimate_forms([bed[1]], forms)[0]
    spread = plain.diagnostics["member_spread"]
    assert weighted.diagnostics["member_spread"] == spread
    assert weighted.diagnostics["bias_bound"] == plain.diagnostics["bias_bound"]
    assert weighted.diagnostics["start_noise"] != plain.diagnostics["start_noise"]
    all_fall = replace(fit, fallback=ope.Fallback(least_ess=1.0))
    fallen = all_fall.answer(weighted, plain)
    assert fallen.fell_back
    assert fallen.intervals == plain.intervals


def test_an_anchor_is_measured_on_its_own_episodes(bed, fit):
    _, policy, data = bed
    few = [0, 1, 2, 3]
    every, some = measure(
        [ope.Anchor(policy), ope.Anchor(policy, few)],
        data,
        fit.dynamics,
        ope.Estimand(HORIZON, 0.9),
        rollouts=60,
        seed=0,
    )
    returns = data.returns(HORIZON, 0.9)
    assert every.logged == pytest.approx(returns.mean())
    assert some.logged == pytest.approx(returns[few].mean())
    assert every.gap == pytest.approx(every.model - every.logged)
    assert every.standard_error > 0
    assert len(every.members) == 3
    assert every.stretch == 1.0
    long = measure([ope.Anchor(policy)], data, fit.dynamics, ope.Estimand(12), rollouts=60, seed=0)[
        0
    ]
    assert long.stretch == 2.0
    assert long.gap == pytest.approx(2 * (long.model - long.logged))


def test_given_anchors_take_the_place_of_the_clone(bed):
    _, policy, data = bed
    settings = ope.ModelBasedConfig(dynamics=DYNAMICS, rollouts=60)
    anchors = [ope.Anchor(policy), ope.Anchor(policy, range(10))]
    fit = ope.ModelBased(ope.Estimand(HORIZON), settings, anchors=anchors).fit(data, 0)
    assert len(fit.gaps) == 2
    # The target is the anchor itself, simulated from the same numbers.
    found = fit.estimate(policy)
    assert fit.gaps[0].model == found.value
    wrong = [ope.Anchor(tabular()[2])]
    with pytest.raises(ope.PolicyError, match="The policy takes"):
        ope.ModelBased(ope.Estimand(HORIZON), settings, anchors=wrong).fit(data, 0)
    outside = [ope.Anchor(policy, [99])]
    with pytest.raises(ope.DataError, match="99"):
        ope.ModelBased(ope.Estimand(HORIZON), settings, anchors=outside).fit(data, 0)


def test_clones_of_parts_are_of_consecutive_episodes(bed):
    _, _, data = bed
    found = ope.clones(data, 3, SHORT, seed=0)
    assert [list(one.episodes) for one in found] == [
        list(range(i, i + 10)) for i in range(0, 30, 10)
    ]
    state = torch.from_numpy(data.states[:5])
    acted = [one.policy.act(state, torch_generator(0, "act")) for one in found]
    assert not torch.equal(acted[0], acted[1])
    with pytest.raises(ope.DataError, match="too few for clones of 11 parts"):
        ope.clones(data, 11, SHORT)


def test_bootstrapped_members_learn_from_episodes_of_their_own(bed):
    """Where only the last of two kinds of episodes has a reward, members differ by their share."""
    from lfiw_ope.data import DeviceLog, MemberRows, bootstrapped

    log = DeviceLog.of(bed[2], "cpu")
    drawn = bootstrapped(np.arange(30), 4, 0, "dynamics")
    assert len({tuple(sorted(one)) for one in drawn}) == 4
    assert all(len(one) == 30 and len(set(one)) < 30 for one in drawn)
    assert drawn != bootstrapped(np.arange(30), 4, 0, "fitted q")
    rows = MemberRows.of(log, drawn)
    every = torch.arange(30 * HORIZON).expand(4, -1)
    for member, episodes in enumerate(drawn):
        assert set((rows.pick(every)[member] // HORIZON).tolist()) == set(episodes)
    shared = MemberRows.shared(log.rows_of([3, 4]), 4)
    assert shared.below == 2 * HORIZON
    assert torch.equal(
        shared.pick(torch.arange(shared.below).expand(4, -1))[2], log.rows_of([3, 4])
    )


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ope.ConfigError, match="method is 'all'"):
        ope.SimulatedIntervalConfig(method="all")
    with pytest.raises(ope.ConfigError, match="confidence level"):
        ope.SimulatedIntervalConfig(levels=(0.9, 95))
    with pytest.raises(ope.ConfigError, match="of the class SimulatedIntervalConfig"):
        ope.ModelBasedConfig(interval=0.95)
    with pytest.raises(ope.ConfigError, match="member_episodes"):
        ope.DynamicsConfig(member_episodes="some")


@pytest.mark.parametrize(
    ("episodes", "match"), [([999], "indices run"), ([0, 0], "more than once"), ([], "No episode")]
)
def test_an_anchor_s_episodes_are_checked_before_anything_is_fitted(bed, episodes, match):
    policy, data = bed[1], bed[2]
    estimator = ope.ModelBased(ope.Estimand(HORIZON), anchors=[ope.Anchor(policy, episodes)])

    def nothing_may_run(*_):
        raise AssertionError("A training began.")

    with pytest.raises(ope.DataError, match=match):
        estimator.fit(data, 0, progress=nothing_may_run)


def test_anchors_that_are_none_are_refused(bed):
    policy = bed[1]
    for given in (ope.Anchor(policy), [policy]):
        with pytest.raises(ope.ConfigError, match="must be a list of Anchor"):
            ope.ModelBased(ope.Estimand(HORIZON), anchors=given)


@pytest.mark.parametrize("freedom", [1.0, 4.0, math.inf])
@pytest.mark.parametrize("level", [1e-6, 0.95, 1 - 1e-6])
def test_a_critical_value_is_found_for_a_bias_of_rounding(freedom, level):
    found = critical_value(1e-12, freedom, level)
    assert found == pytest.approx(stats.t.ppf(0.5 + level / 2, freedom), rel=1e-3)

"""What is said of data, policies and models before an estimate, and what is refused."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from lfiw_envs import LinearGaussianPolicy
from testbeds import linear_gaussian, log_of, tabular, unsaid

import lfiw_ope as ope
from lfiw_ope.data import DeviceLog
from lfiw_ope.diagnostics import (
    ActionSupport,
    Neighbours,
    StateSupport,
    concerns_of,
    draw_halves,
    mean_step,
    spread,
    warnings_of,
)
from lfiw_ope.evaluation.evaluate import evaluate

HORIZON = 6
ESTIMAND = ope.Estimand(HORIZON)
NETS = ope.FitConfig(updates=60, evaluate_every=20, batch_size=64, learning_rate=4e-3)
DYNAMICS = ope.DynamicsConfig(members=2, hidden=(16,), fit=NETS)
QUICK = ope.DiagnosisConfig(
    transitions=400, rollouts=20, open_loop_episodes=10, hidden=(8,), fit=replace(NETS, updates=20)
)
LOOP = ope.OpenLoop(
    episodes=40,
    compared=10,
    lasting=10,
    lasting_states=10,
    state_error=(0.1,) * 10,
    sampled_state_error=(0.1,) * 10,
    constant_state_error=(1.0,) * 10,
    unchanged_state_error=(1.0,) * 10,
    reward_error=(0.1,) * 10,
    constant_reward_error=(1.0,) * 10,
    return_bias=0.1,
    return_bias_error=0.1,
)
FINE = ope.Diagnosis(
    estimand=ESTIMAND,
    seed=0,
    return_spread=2.0,
    transitions=400,
    logged_transitions=1000,
    action_accuracy=0.6,
    action_auc=0.6,
    action_log_loss=0.6,
    actions_outside=0.01,
    logged_actions_outside=0.01,
    ess=100.0,
    episodes=200,
    pareto_k=0.3,
    steps=(0, 3, 5),
    states_outside=0.01,
    states_outside_by_step=(0.0, 0.02, None),
    disagreement=1.0,
    disagreement_by_step=(1.0, 1.0, None),
    open_loop=LOOP,
    ratio_accuracy=0.6,
    ratio_calibration_error=0.02,
)


def log(name="linear-Gaussian", episodes=40):
    truth, _, policy = linear_gaussian() if name == "linear-Gaussian" else tabular(1)
    return policy, log_of(truth, policy, episodes, HORIZON, seed=0)


def far(policy):
    return LinearGaussianPolicy(policy.gain, policy.bias + 3.0, policy.scale)


@pytest.fixture(scope="module")
def logged():
    return log()


@pytest.fixture(scope="module")
def fitted(logged):
    config = ope.ModelBasedConfig(dynamics=DYNAMICS, rollouts=20)
    return ope.ModelBased(ESTIMAND, config).fit(logged[1], seed=0)


def test_halves_share_no_episode_and_know_those_that_stop_a_training(logged):
    _, data = logged
    one, other = draw_halves(DeviceLog.of(data, "cpu"), 100, seed=0)
    seen = []
    for half in (one, other):
        for part in half:
            rows = [np.flatnonzero((data.states == s.numpy()).all(1)) for s in part.state]
            seen.append({int(np.searchsorted(data.state_offsets, r[0], "right")) for r in rows})
    assert len(set.union(*seen)) == sum(map(len, seen))
    assert len(one.state) == len(other.state) <= 50


def test_neighbours_are_those_in_standardised_units():
    states = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1000.0], [1.0, 1000.0]])
    found = Neighbours(states)
    # An entry in thousands counts no more than one in units: both entries are 2 deviations wide.
    distance, index = found.find(torch.tensor([[0.1, 0.0]]), 2)
    assert index.tolist() == [[0, 1]]
    np.testing.assert_allclose(distance, [[0.2, 1.8]], rtol=1e-5)


def test_many_entries_are_looked_at_along_their_principal_components():
    generator = torch.Generator().manual_seed(0)
    inner = torch.randn((200, 3), generator=generator)
    states = inner @ torch.randn((3, 40), generator=generator)
    found = Neighbours(states)
    assert found.tree.m == 16
    distance, index = found.find(states[:5], 1)
    assert index[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert distance.max() < 1e-4
    # What lies off the plane of the log is seen as far as it leaves along what is kept.
    assert found.find(states[:1] * 100, 1)[0].min() > 10


def test_an_action_nobody_took_at_like_states_is_outside():
    states = torch.randn((400, 1), generator=torch.Generator().manual_seed(0))
    right = (states[:, 0] > 0).long()
    actions = torch.nn.functional.one_hot(right, 3).float()  # the third is never taken
    data = ope.Trajectories(
        states=states.repeat_interleave(2, 0).numpy(),
        actions=actions.numpy(),
        rewards=np.zeros(400),
        lengths=np.ones(400, int),
        terminated=np.zeros(400, bool),
        truncated=np.ones(400, bool),
        action_spec=ope.ActionSpec.discrete(3),
    )
    halves = draw_halves(DeviceLog.of(data, "cpu"), 400, seed=0)
    support = ActionSupport.of(halves, "discrete", neighbours=10)
    n = len(support.state)
    never = torch.nn.functional.one_hot(torch.full((n,), 2), 3).float()
    assert support.outside(never) == 1.0
    same = torch.nn.functional.one_hot((support.state[:, 0] > 0).long(), 3).float()
    assert support.outside(same) < 0.05
    assert support.outside(same[:, [1, 0, 2]]) > 0.9


def test_a_continuous_action_is_held_against_those_at_the_nearest_states(logged):
    policy, data = logged
    halves = draw_halves(DeviceLog.of(data, "cpu"), 400, seed=0)
    support = ActionSupport.of(halves, "continuous", neighbours=10)
    assert support.outside(halves[1].action) == support.logged_outside < 0.03
    assert support.outside(halves[1].action + 10.0) == 1.0
    act = far(policy).act(support.state, torch.Generator().manual_seed(0))
    assert support.outside(act) > 0.9


def test_states_are_outside_beyond_what_logged_ones_or_the_models_noise_are():
    grid = torch.linspace(0, 1, 101)[:, None]
    between = torch.linspace(0, 1, 50)[:, None]
    tight = StateSupport.of(grid, between, between)
    noisy = StateSupport.of(grid, between, between + 0.5)
    away = torch.tensor([[0.5], [1.2], [3.0]])
    assert tight.outside(away).tolist() == [False, True, True]
    assert noisy.outside(away).tolist() == [False, False, True]


def test_what_members_expect_is_their_networks_mean(logged, fitted):
    dynamics, log = fitted.dynamics, DeviceLog.of(logged[1], "cpu")
    rows = log.at(torch.arange(7))
    each = [of.expand(2, -1, -1) for of in (rows.state, rows.action)]
    reached, reward = mean_step(dynamics, *each)
    with torch.no_grad():
        raw = dynamics.network(dynamics.inputs(torch.cat(each, -1)))
    expected = raw * dynamics.targets.scale + dynamics.targets.mean
    torch.testing.assert_close(reached, expected[..., :-1] + rows.state)
    torch.testing.assert_close(reward, expected[..., -1])
    apart = (raw[0] - raw[1]).abs() / 2**0.5  # the standard deviation of two
    torch.testing.assert_close(spread(dynamics, rows.state, rows.action), apart.mean(-1))


def test_a_known_reward_is_the_rules_and_no_entry_of_the_spread(logged):
    _, data = logged
    known = ope.ModelBased(
        ESTIMAND,
        ope.ModelBasedConfig(dynamics=DYNAMICS, rollouts=20),
        reward=lambda state, action, reached: reached[..., 0] * 0 + 7.0,  # noqa: ARG005
    ).fit(data, seed=0)
    rows = DeviceLog.of(data, "cpu").at(torch.arange(7))
    each = [of.expand(2, -1, -1) for of in (rows.state, rows.action)]
    assert (mean_step(known.dynamics, *each)[1] == 7.0).all()
    with torch.no_grad():
        raw = known.dynamics.network(known.dynamics.inputs(torch.cat(each, -1)))[..., :-1]
    found = spread(known.dynamics, rows.state, rows.action)
    torch.testing.assert_close(found, raw.std(0).mean(-1))


def test_a_fit_says_which_episodes_its_dynamics_did_not_see(logged, fitted):
    _, data = logged
    assert len(fitted.held_out) == 4 + 3  # a tenth for the choice of noise, and of the other 36
    lfiw = ope.LFIW(
        ESTIMAND,
        ope.LFIWConfig(dynamics=DYNAMICS, ratio=ope.RatioConfig(members=1, hidden=(8,), fit=NETS)),
    ).fit(data, seed=0)
    assert lfiw.held_out == fitted.held_out  # the classifiers learn from the dynamics' episodes
    found = ope.diagnose(
        data,
        logged[0],
        ESTIMAND,
        config=QUICK,
        dynamics=lfiw.dynamics,
        ratio=lfiw.ratio,
        held_out=lfiw.held_out,
        seed=0,
    )
    assert found.ratio_accuracy == lfiw.ratio.report.accuracy
    assert found.open_loop.episodes == 7


def test_a_batch_is_its_policies_alone_and_one_seed_one_diagnosis(logged, fitted):
    policy, data = logged
    policies = [far(policy), policy]

    def diagnosed(of, seed=0):
        return ope.diagnose(
            data,
            of,
            ESTIMAND,
            config=QUICK,
            dynamics=fitted.dynamics,
            ratio=fitted.ratio,
            held_out=fitted.held_out,
            seed=seed,
        )

    both = diagnosed(policies)
    for one, alone in zip(both, map(diagnosed, policies), strict=True):
        for name in ("action_accuracy", "action_auc", "action_log_loss", "disagreement"):
            assert getattr(one, name) == pytest.approx(getattr(alone, name), abs=1e-3)
        assert one.actions_outside == alone.actions_outside
        assert one.states_outside == pytest.approx(alone.states_outside, abs=0.02)
        assert one.open_loop == alone.open_loop
    assert diagnosed(policies) == both
    assert diagnosed(policy, seed=1) != both[1]
    assert diagnosed([]) == []


def test_a_diagnosis_is_kept_as_json(logged, fitted, tmp_path):
    found = ope.diagnose(
        logged[1],
        logged[0],
        ESTIMAND,
        config=QUICK,
        dynamics=fitted.dynamics,
        ratio=fitted.ratio,
        held_out=fitted.held_out,
        seed=0,
    )
    found.to_json(tmp_path / "one.json")
    assert ope.Diagnosis.from_json((tmp_path / "one.json").read_text()) == found
    assert ope.Diagnosis.from_dict(FINE.to_dict()) == FINE
    with pytest.raises(ope.DataError, match="no stored diagnosis"):
        ope.Diagnosis.from_json('{"seed": 0}')


def test_what_is_not_known_says_why(logged):
    policy, data = logged
    bare = unsaid(data)
    found = ope.diagnose(bare, policy, ESTIMAND, config=QUICK, seed=0)
    assert found.ess is None
    assert "carries no likelihoods" in found.no_weights
    assert "Model: not known, because no fitted model was given" in str(found)
    longer = ope.diagnose(data, policy, ope.Estimand(HORIZON + 1), config=QUICK, seed=0)
    assert "cut short after step 6" in longer.no_weights
    settled = ope.from_function(
        lambda states: states[:, :2], state_size=3, action_spec=data.action_spec
    )
    without = ope.diagnose(data, settled, ESTIMAND, config=QUICK, seed=0)
    assert "density" in without.no_weights
    clones = ope.BehaviourConfig(source="cloned", folds=2, hidden=(), fit=NETS)
    cloned = replace(QUICK, behaviour=clones)
    assert ope.diagnose(bare, policy, ESTIMAND, config=cloned, seed=0).ess > 1


def test_no_transition_is_counted_twice(logged):
    policy, data = logged
    two = ope.diagnose(data.select([0, 1]), policy, ESTIMAND, config=QUICK, seed=0)
    assert two.transitions <= two.logged_transitions


def test_what_cannot_be_is_refused_in_a_sentence(logged, fitted):
    policy, data = logged
    for message, kind, call in (
        ("at least 2 are needed", ope.DataError, lambda: (data.select([0]), policy, ESTIMAND)),
        ("more than once", ope.DataError, lambda: (data.select([0, 0]), policy, ESTIMAND)),
        ("not a policy", ope.PolicyError, lambda: (data, [object()], ESTIMAND)),
    ):
        with pytest.raises(kind, match=message):
            ope.diagnose(*call(), config=QUICK, seed=0)
    model = {"dynamics": fitted.dynamics, "ratio": fitted.ratio, "held_out": fitted.held_out}
    few = data.select([0, 1, 2])
    with pytest.raises(ope.ConfigError, match=r"held_out names episode \d+, and the log has 3"):
        ope.diagnose(few, policy, ESTIMAND, config=QUICK, **model, seed=0)
    truth, _, other = tabular()
    elsewhere = log_of(truth, other, episodes=50, horizon=HORIZON, seed=0)
    with pytest.raises(ope.ConfigError, match="of 3 state entries, and the log has 6"):
        ope.diagnose(elsewhere, other, ESTIMAND, config=QUICK, **model, seed=0)
    with pytest.raises(ope.ConfigError, match="transitions is 3"):
        ope.DiagnosisConfig(transitions=3)
    with pytest.raises(ope.ConfigError, match="The seed is -1"):
        ope.diagnose(data, policy, ESTIMAND, seed=-1)


@pytest.mark.parametrize(
    ("changed", "said", "concern"),
    [
        ({"action_accuracy": 0.95}, "told from the logged ones with 95%", "weights"),
        ({"actions_outside": 0.4}, "40% of the policy's actions lie outside", "actions"),
        ({"ess": 3.0}, "would rest on 3.0 of 200", "weights"),
        ({"pareto_k": 0.9}, "k̂ = 0.90", "weights"),
        ({"states_outside": 0.3}, "30% of simulated states lie outside", "model"),
        ({"disagreement": 8.0}, "8.0 times as far apart", "model"),
        ({"open_loop": replace(LOOP, lasting=2)}, "after 2 of 10 steps", "model"),
        ({"open_loop": replace(LOOP, return_bias=-1.0)}, "off by -1.00", "model"),
        ({"ratio_calibration_error": 0.2}, "calibration error of 0.20", "model"),
    ],
)
def test_each_warning_is_said_where_it_should_be_and_not_elsewhere(changed, said, concern):
    assert warnings_of(FINE) == ()
    found = replace(FINE, **changed)
    (text,) = warnings_of(found)
    assert said in text
    assert warnings_of(found, {concern}) == (text,)
    assert warnings_of(found, {"actions", "weights", "model"} - {concern}) == ()


def test_noise_of_a_replay_is_no_bias():
    loop = replace(LOOP, return_bias=-1.0, return_bias_error=0.4)
    assert warnings_of(replace(FINE, open_loop=loop)) == ()


SIMULATED = ope.Estimate(
    estimator="LFIW",
    estimand=ESTIMAND,
    value=1.0,
    seed=0,
    rollouts=500,
    ess=400.0,
    bounded_share=0.0,
)
WEIGHTED = ope.Estimate(
    estimator="WIS", estimand=ESTIMAND, value=1.0, seed=0, episodes=200, ess=100.0
)
LEARNED = ope.Estimate(
    estimator="FQE",
    estimand=ESTIMAND,
    value=1.0,
    seed=0,
    diagnostics={"bounded_share": 0.0, "drift": 0.1, "member_spread": 0.1},
)
OWN_MEAN = ope.Estimate(
    estimator="behaviour mean", estimand=ESTIMAND, value=1.0, seed=0, episodes=200
)
FAR = replace(
    FINE,
    actions_outside=1.0,
    action_accuracy=1.0,
    pareto_k=3.0,
    states_outside=1.0,
    disagreement=50.0,
    open_loop=replace(LOOP, lasting=0, return_bias=9.0),
)


def test_reasons_are_those_of_what_an_estimate_rests_on():
    thresholds = ope.Thresholds()
    for estimate in (SIMULATED, WEIGHTED, LEARNED, OWN_MEAN):
        assert thresholds.reasons(estimate, FINE) == thresholds.reasons(estimate, None) == ()
    counts = {
        e.estimator: len(thresholds.reasons(e, FAR))
        for e in (SIMULATED, WEIGHTED, LEARNED, OWN_MEAN)
    }
    assert counts == {"LFIW": 5, "WIS": 3, "FQE": 1, "behaviour mean": 0}
    assert concerns_of(OWN_MEAN) == frozenset()


@pytest.mark.parametrize(
    ("name", "estimate", "diagnosis", "said"),
    [
        ("most_actions_outside", LEARNED, {"actions_outside": 0.99}, "99% of the policy's actions"),
        ("least_ess", replace(WEIGHTED, ess=1.5), {}, "rest on 1.5 of 200 logged episodes"),
        ("least_ess", replace(SIMULATED, ess=1.5), {}, "rest on 1.5 of 500 rollouts"),
        ("most_pareto_k", WEIGHTED, {"pareto_k": 5.0}, "k̂ = 5.00"),
        ("most_pareto_k", replace(WEIGHTED, pareto_k=6.0), {}, "k̂ = 6.00"),
        ("most_accuracy", WEIGHTED, {"action_accuracy": 0.999}, "100% accuracy"),
        ("most_states_outside", SIMULATED, {"states_outside": 0.95}, "95% of simulated states"),
        ("most_disagreement", SIMULATED, {"disagreement": 50.0}, "50.0 times as far apart"),
        ("least_open_loop", SIMULATED, {"open_loop": replace(LOOP, lasting=0)}, "after 0 of 10"),
        ("most_return_bias", SIMULATED, {"open_loop": replace(LOOP, return_bias=-5)}, "by -5.00"),
        ("most_bounded_states", replace(SIMULATED, bounded_share=0.9), {}, "90% of simulated"),
        (
            "most_bounded_values",
            replace(LEARNED, diagnostics={"bounded_share": 0.9}),
            {},
            "90% of the bootstrapped values",
        ),
        (
            "most_drift",
            replace(LEARNED, diagnostics={"drift": -20.0}),
            {},
            "10 standard deviations",
        ),
        (
            "most_member_spread",
            replace(LEARNED, diagnostics={"member_spread": 20.0}),
            {},
            "differs between the members by 10",
        ),
    ],
)
def test_each_threshold_refuses_in_a_sentence_and_can_be_turned_off(
    name, estimate, diagnosis, said
):
    found = replace(FINE, **diagnosis)
    (reason,) = ope.Thresholds().reasons(estimate, found)
    assert said in reason
    off = 0.0 if name.startswith("least") else float("inf")
    assert ope.Thresholds(**{name: off}).reasons(estimate, found) == ()


@pytest.mark.parametrize(
    ("name", "field", "beyond"),
    [
        ("most_actions_outside", "actions_outside", 0.01),
        ("most_accuracy", "action_accuracy", 0.01),
        ("most_pareto_k", "pareto_k", 0.01),
        ("most_states_outside", "states_outside", 0.01),
        ("most_disagreement", "disagreement", 0.01),
    ],
)
def test_nothing_is_refused_without_a_warning(name, field, beyond):
    found = replace(FINE, **{field: getattr(ope.Thresholds(), name) + beyond})
    refused = [ope.Thresholds().reasons(estimate, found) for estimate in (WEIGHTED, SIMULATED)]
    assert sum(map(bool, refused)) >= 1
    assert len(warnings_of(found)) == 1


def test_tempering_does_not_hide_that_weights_rest_on_few_episodes():
    tempered = replace(WEIGHTED, ess=100.0, raw_ess=1.7)
    (reason,) = ope.Thresholds().reasons(tempered, FINE)
    assert "rest on 1.7 of" in reason


def test_a_value_that_fell_back_is_not_refused_for_weights_it_does_not_use():
    assert ope.Thresholds().reasons(replace(SIMULATED, ess=1.0, fell_back=True), FINE) == ()


def test_thresholds_are_numbers():
    for each in fields(ope.Thresholds):
        with pytest.raises(ope.ConfigError, match=each.name):
            ope.Thresholds(**{each.name: -1.0})


def test_an_evaluation_carries_its_diagnosis_and_its_warnings(logged):
    policy, data = logged
    estimator = ope.WIS(ESTIMAND)
    found = evaluate(data, policy, estimator, seed=0, diagnosis=QUICK, refuse=True)
    assert found.diagnosis == ope.diagnose(data, policy, ESTIMAND, config=QUICK, seed=0)
    assert found.to_dict()["diagnosis"] == found.diagnosis.to_dict()
    other = evaluate(data, far(policy), estimator, seed=0, diagnosis=QUICK)
    concerning = warnings_of(other.diagnosis, {"actions", "weights"})
    assert concerning
    assert other.estimate.warnings[-len(concerning) :] == concerning
    assert evaluate(data, far(policy), estimator, seed=0, diagnosis=None).diagnosis is None
    mean = evaluate(data, policy, ope.BehaviourMean(ESTIMAND), seed=0)
    assert mean.diagnosis is None


def test_no_number_is_given_where_it_is_refused(logged):
    policy, data = logged
    with pytest.raises(ope.RefusedError, match="The data cannot tell this value") as caught:
        evaluate(data, far(policy), ope.WIS(ESTIMAND), seed=0, diagnosis=QUICK, refuse=True)
    assert all(reason in str(caught.value) for reason in caught.value.reasons)
    lax = ope.Thresholds(most_actions_outside=1, least_ess=0, most_pareto_k=99, most_accuracy=1)
    evaluate(data, far(policy), ope.WIS(ESTIMAND), seed=0, diagnosis=QUICK, refuse=lax)
    with pytest.raises(ope.ConfigError, match="refuse is 'yes'"):
        evaluate(data, policy, ope.WIS(ESTIMAND), seed=0, refuse="yes")


def test_a_wrapped_model_is_looked_at_as_it_would_be_alone(logged):
    policy, data = logged
    nets = ope.FitConfig(updates=20, evaluate_every=10, batch_size=32, patience=None)
    dynamics = ope.DynamicsConfig(members=2, hidden=(8,), fit=nets)
    none = ope.SimulatedIntervalConfig(method="none")
    config = ope.ModelBasedConfig(dynamics=dynamics, rollouts=20, interval=none)
    alone = ope.ModelBased(ESTIMAND, config)
    given = {"seed": 0, "diagnosis": QUICK}
    wrapped = evaluate(data, policy, ope.Refitted(alone, refits=3), **given)
    assert wrapped.diagnosis.no_model is None
    assert wrapped.diagnosis == evaluate(data, policy, alone, **given).diagnosis

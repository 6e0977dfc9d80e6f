"""That the parts are joined as they should be: what a slip between two right parts would do."""

import copy
import operator
from dataclasses import replace

import numpy as np
import pytest
import torch
from testbeds import linear_gaussian, log_of

import lfiw_ope as ope
from lfiw_ope.data import DeviceLog, EpisodeSplit
from lfiw_ope.dynamics import simulate, training
from lfiw_ope.estimators import fitted_model as fitted
from lfiw_ope.estimators import lfiw
from lfiw_ope.estimators import model_based as base
from lfiw_ope.ratios import transition_ratio as ratio_fit
from lfiw_ope.stats import weigh

FIT = ope.FitConfig(updates=200, evaluate_every=100, batch_size=64)
CONFIG = ope.LFIWConfig(
    dynamics=ope.DynamicsConfig(members=2, hidden=(16, 16), fit=FIT),
    ratio=ope.RatioConfig(members=2, hidden=(16,), fit=FIT),
    weighting=ope.Weighting(form="stepwise", conditional=True),
    rollouts=200,
    draws=4,
)


@pytest.fixture(scope="module")
def bed():
    truth, _, policy = linear_gaussian()
    return policy, log_of(truth, policy, episodes=100, horizon=6, seed=0)


@pytest.fixture(scope="module")
def fit(bed):
    return ope.LFIW(ope.Estimand(6, 0.9), CONFIG).fit(bed[1], seed=0)


@pytest.mark.parametrize("episodes", [7, 8, 10, 97])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("scored", [0.0, 0.1])
def test_every_episode_has_one_part(episodes, share, scored):
    split = EpisodeSplit.draw(episodes, seed=0, ratio_share=share, scored_share=scored)
    of_ratio = (split.ratio, split.ratio_held_out)
    parts = (split.dynamics, split.dynamics_held_out, *of_ratio, split.scored)
    assert sorted(np.concatenate(parts).tolist()) == list(range(episodes))
    assert [len(part) > 0 for part in parts] == [True] * 2 + [share > 0] * 2 + [scored > 0]
    unseen = sorted(np.concatenate(parts[1:]).tolist())
    assert sorted(split.unseen_by_dynamics) == unseen


@pytest.mark.parametrize("scored", [0.0, 0.1])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_log_too_short_to_split_is_refused(share, scored):
    needed = (4 if share else 2) + (3 if scored else 0)
    EpisodeSplit.draw(needed, seed=0, ratio_share=share, scored_share=scored)
    with pytest.raises(ope.DataError, match="episodes"):
        EpisodeSplit.draw(needed - 1, seed=0, ratio_share=share, scored_share=scored)


@pytest.mark.parametrize("weighting", [CONFIG.weighting, "auto"], ids=["named", "auto"])
def test_model_classifier_and_choice_see_different_episodes(bed, monkeypatch, weighting):
    _, data = bed
    seen, scored = {}, []
    real_selection = base.select_noise

    def spied_selection(candidates, behaviour, log, episodes, **kwargs):
        scored.append(set(episodes))
        return real_selection(candidates, behaviour, log, episodes, **kwargs)

    monkeypatch.setattr(base, "select_noise", spied_selection)
    for module, name in ((base, "fit_dynamics"), (lfiw, "fit_transition_ratio")):
        real = getattr(module, name)

        def spy(*args, real=real, name=name, **kwargs):
            seen[name] = (set(kwargs["train"]), set(kwargs["held_out"]))
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, spy)
    config = replace(CONFIG, weighting=weighting, ratio_share=0.2)
    ope.LFIW(ope.Estimand(6), config).fit(data, seed=0)
    assert [len(part) for part in scored] == ([10] if weighting == "auto" else [])
    parts = [*seen["fit_dynamics"], *seen["fit_transition_ratio"], *scored]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 100


def test_each_member_is_compared_with_episodes_that_it_did_not_learn_from(bed, monkeypatch):
    """By default the classifiers learn from the dynamics' own episodes, cross-fitted."""
    data, told = bed[1], {}
    real_ratio, real_groups = lfiw.fit_transition_ratio, training.leave_group_out

    def groups(*args):
        told["learned"] = real_groups(*args)
        return told["learned"]

    def ratio(*args, **kwargs):
        told.update(kwargs)
        return real_ratio(*args, **kwargs)

    monkeypatch.setattr(training, "leave_group_out", groups)
    monkeypatch.setattr(lfiw, "fit_transition_ratio", ratio)
    fit = ope.LFIW(ope.Estimand(6), CONFIG).fit(data, seed=0)
    used = [*told["train"], *told["held_out"]]
    assert sorted(used) == sorted(set.union(*map(set, told["learned"])))
    assert not set(used) & set(fit.held_out)
    for learned, left_out in zip(told["learned"], told["left_out"], strict=True):
        assert left_out
        assert not set(learned) & set(left_out)
    log = DeviceLog.of(data, "cpu")
    member = ratio_fit.members_of(fit.dynamics, log, told["left_out"], 0)
    for number, left_out in enumerate(told["left_out"]):
        assert (member[log.rows_of(left_out)] == number).all()


def test_each_form_weighs_by_its_own_ratios(bed, fit):
    policy, _ = bed
    rollout = simulate(
        policy,
        fit.dynamics,
        fit.initial_states,
        horizon=6,
        rollouts=200,
        seed=0,
        ratio=fit.ratio,
        draws=4,
    )
    rewards = rollout.discounted(0.9)[0]
    forms = [
        (ope.Weighting(form="uniform"), torch.zeros_like(rewards)),
        (ope.Weighting(), rollout.log_ratio[0]),
        (ope.Weighting(conditional=True), rollout.conditional_log_ratio[0]),
        (ope.Weighting(form="stepwise", first=3), rollout.log_ratio[0]),
        (ope.Weighting(form="stepwise", conditional=True), rollout.conditional_log_ratio[0]),
    ]
    (found,) = fit.estimate_forms([policy], [weighting for weighting, _ in forms])
    for (weighting, log_ratio), estimate in zip(forms, found, strict=True):
        assert estimate.estimator == weighting.label
        assert estimate.value == pytest.approx(weigh(rewards, log_ratio, weighting).value)
    assert len({round(estimate.value, 6) for estimate in found}) == len(forms)
    # The default is the configuration's; the plain model's rollouts are the same ones.
    assert fit.estimate(policy).value == pytest.approx(found[4].value)
    assert fit.plain_model().estimate(policy).value == pytest.approx(found[0].value)


def test_log_ratios_are_divided_by_the_temperature(bed, fit):
    rows = bed[1].transitions()
    state, action = torch.tensor(rows.state[:50]), torch.tensor(rows.action[:50])
    step = fit.dynamics.sample(state, action, torch.Generator().manual_seed(0))
    ratio = fit.ratio
    slope = ratio.classifiers.calibration.slope
    before, kept = ratio.log_ratio(state, action, step), slope.clone()
    assert ratio.report.temperature == pytest.approx(1 / float(kept))
    try:
        slope.div_(3)
        torch.testing.assert_close(ratio.log_ratio(state, action, step), before / 3)
    finally:
        slope.copy_(kept)


@pytest.mark.parametrize("calibration", ["temperature", "isotonic"])
def test_each_classifier_weighs_on_its_own_where_estimates_are_averaged(bed, fit, calibration):
    data = bed[1]
    config = replace(CONFIG.ratio, members=3, average="estimates", calibration=calibration)
    ratio = ope.fit_transition_ratio(
        data, fit.dynamics, config, 0, train=range(60), held_out=range(60, 100)
    )
    rows = data.transitions()
    state = torch.tensor(rows.state[:40]).view(2, 20, 3)
    action = torch.tensor(rows.action[:40]).view(2, 20, 2)
    draws = fit.dynamics.draw(state, action, 5, torch.Generator().manual_seed(0))
    every = ratio.log_ratio(state, action, draws)
    assert every.shape == (5, 3, 2, 20)
    for draw in range(5):
        one = draws.each(operator.itemgetter(draw))
        own = ratio.log_ratio(state, action, one)
        assert own.shape == (3, 2, 20)
        torch.testing.assert_close(every[draw], own)
    # A classifier's place along the axis is its place in the network.
    features = ratio.features(ratio.given(state, action, one.mean), one).flatten(0, 1)
    logits = ratio.classifiers.member_logits(features)
    torch.testing.assert_close(own.flatten(1), ratio.classifiers.calibration(logits))
    assert (own[0] - own[1]).abs().max() > 1e-3


def test_draws_do_not_depend_on_a_caller_s_autocast(fit):
    state, action = torch.randn(64, 3), torch.randn(64, 2)
    plain = fit.dynamics.sample(state, action, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fit.dynamics.sample(state, action, torch.Generator().manual_seed(0))
    assert torch.equal(plain.next_state, inside.next_state)


def test_bf16_values_stay_within_the_simulation_noise(bed, fit):
    policy, data = bed
    half = replace(FIT, precision="bfloat16")
    config = replace(
        CONFIG,
        dynamics=replace(CONFIG.dynamics, fit=half),
        ratio=replace(CONFIG.ratio, fit=half),
    )
    found = ope.LFIW(ope.Estimand(6, 0.9), config).fit(data, seed=0).estimate(policy)
    full = fit.estimate(policy)
    assert found.value != full.value
    # The same starts, actions and noise: what differs is rounding, far less than the noise itself.
    assert abs(found.value - full.value) < full.mc_standard_error


def test_many_policies_are_simulated_in_several_calls_with_the_same_numbers(fit, monkeypatch):
    layers = torch.nn.Linear(3, 2)
    limit = torch.ones(1, 2)
    head = ope.policies.heads.GaussianHead(0 * limit, -limit, limit)
    policies = [
        ope.MLPPolicy.from_layers(
            [(i + 1) * layers.weight.T], [layers.bias], head, activation="tanh"
        )
        for i in range(5)
    ]
    together = fit.estimate(policies)
    calls = []
    real = fitted.simulate
    monkeypatch.setattr(fitted, "simulate", lambda *a, **k: calls.append(k) or real(*a, **k))
    monkeypatch.setattr(fitted, "ROWS_AT_ONCE", 2 * 200 * 4)
    apart = fit.estimate(policies)
    assert [call["policies"] for call in calls] == [2, 2, 1]
    for one, other in zip(together, apart, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-5)


def test_states_on_the_bounds_are_warned_of(bed, fit):
    policy, _ = bed
    assert fit.plain_model().estimate(policy).warnings == ()
    tight = copy.deepcopy(fit.dynamics)
    middle = (tight.low + tight.high) / 2
    tight.low, tight.high = middle - 1e-3, middle + 1e-3
    found = replace(fit.plain_model(), dynamics=tight).estimate(policy)
    assert found.bounded_share == pytest.approx(1.0)
    assert "100% of simulated steps left the range of the data" in found.warnings[0]


@pytest.mark.parametrize("weighting", [CONFIG.weighting, "auto"], ids=["named", "auto"])
def test_a_default_dtype_of_float64_changes_nothing(bed, weighting):
    layers = torch.nn.Linear(3, 2)
    limit = torch.ones(1, 2)
    head = ope.policies.heads.GaussianHead(0 * limit, -limit, limit)
    policy = ope.MLPPolicy.from_layers([layers.weight.T], [layers.bias], head, activation="tanh")
    lfiw = ope.LFIW(ope.Estimand(6, 0.9), replace(CONFIG, weighting=weighting))
    expected = lfiw.fit(bed[1], seed=0).estimate(policy)
    torch.set_default_dtype(torch.float64)
    try:
        again = lfiw.fit(bed[1], seed=0).estimate(policy)
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.value == pytest.approx(expected.value, rel=1e-4)


class Acting:
    state_size, action_size = 3, 2

    def __init__(self, act):
        self.act = act


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s, _: torch.zeros(*s.shape[:-1], 2, dtype=torch.float64), "gave torch.float64"),
        (lambda s, _: torch.zeros(s.shape[-2], 2), r"of shape \(2, 2\)"),
        (lambda s, _: torch.full((*s.shape[:-1], 2), torch.nan), "not finite"),
        (lambda s, _: s @ torch.ones(4, 2), "failed on states of shape"),
    ],
)  # fmt: skip
def test_policies_that_misbehave_are_refused_before_the_simulation(fit, act, message):
    with pytest.raises(ope.PolicyError, match=message):
        fit.estimate(Acting(act))


def test_a_stack_of_policies_does_not_stand_for_one(fit):
    layers = torch.nn.Linear(3, 2)
    limit = torch.ones(1, 2)
    head = ope.policies.heads.GaussianHead(0 * limit, -limit, limit)
    one = ope.MLPPolicy.from_layers([layers.weight.T], [layers.bias], head, activation="tanh")
    with pytest.raises(ope.PolicyError, match="cannot stand for one"):
        fit.estimate(one.stack([one]))


def test_numbers_of_numpy_are_stored(bed):
    policy, data = bed
    config = replace(CONFIG, rollouts=50)
    found = ope.LFIW(ope.Estimand(np.int64(6)), config).fit(data, seed=np.int64(3))
    assert ope.Estimate.from_json(found.estimate(policy).to_json()).seed == 3

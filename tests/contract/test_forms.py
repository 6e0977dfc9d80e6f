"""Every form of weights through a fit, the published method, and the fallback."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from testbeds import linear_gaussian, log_of, tabular

import lfiw_ope as ope
from lfiw_ope.stats import weigh

W = ope.Weighting


def small(fit):
    return ope.LFIWConfig(
        # Noise unlike the truth's, so that classifiers have something to tell apart.
        dynamics=ope.DynamicsConfig(members=2, hidden=(24, 24), noise_scale=1.3, fit=fit),
        ratio=ope.RatioConfig(members=3, hidden=(16,), fit=fit),
        weighting=W(form="stepwise", temper=0.8),
        rollouts=300,
        draws=4,
        fallback=None,
    )


CONFIG = small(ope.FitConfig(updates=300, evaluate_every=100, batch_size=128))
BRIEF = small(ope.FitConfig(updates=30, evaluate_every=10, batch_size=128))
"""For what holds however little was learned."""
HORIZON = 6
FORMS = [
    W(form="uniform"),
    *(
        W(form=form, **more)
        for form in ("trajectory", "stepwise")
        for more in (
            {},
            {"conditional": True},
            {"conditional": True, "temper": 0.98},
            {"clip": (0.8, 1.2), "exponent": 0.5, "first_ess": 0.98},
            {"pareto": True},
            {"candidates": 4},
            {"candidates": 4, "temper": 0.99},
            {"self_normalised": False},
        )
    ),
    W(form="uniform", candidates=4),
]


def log_for(make):
    truth, _, policy = make()
    return policy, log_of(truth, policy, episodes=200, horizon=HORIZON, seed=0)


@pytest.fixture(
    scope="module", params=[tabular, linear_gaussian], ids=["tabular", "linear-Gaussian"]
)
def bed(request):
    return log_for(request.param)


@pytest.fixture(scope="module")
def fit(bed):
    return ope.LFIW(ope.Estimand(HORIZON, 0.9), CONFIG).fit(bed[1], seed=0)


def test_every_form_of_one_call_is_that_of_a_call_of_its_own(bed, fit):
    policy, data = bed
    (together,) = fit.estimate_forms([policy], FORMS)
    assert [one.estimator for one in together] == [form.label for form in FORMS]
    for form, estimate in zip(FORMS, together, strict=True):
        alone = replace(fit, weighting=form).estimate(policy)
        assert alone.value == pytest.approx(estimate.value, abs=1e-9), form.label
        assert estimate.returns.shape == estimate.log_weights.shape == (300,)
        assert np.exp(estimate.log_weights).sum() == pytest.approx(1)
        assert (estimate.pareto_k is not None) >= form.pareto
        assert ope.Estimate.from_json(estimate.to_json()) == estimate
    # Each is another estimate, and on these data none is far from what the log itself says.
    assert len({round(one.value, 8) for one in together}) == len(FORMS)
    logged = data.returns(HORIZON, 0.9)
    for estimate in together:
        assert abs(estimate.value - logged.mean()) < logged.std(), estimate.estimator


def test_a_whole_product_is_the_weighted_mean_of_the_returns_that_are_told(bed, fit):
    """What an estimate carries is what its value was made of."""
    kept = [f for f in FORMS if f.form == "trajectory" and f.self_normalised]
    for estimate in fit.estimate_forms([bed[0]], kept)[0]:
        weights = np.exp(estimate.log_weights)
        assert (weights * estimate.returns).sum() == pytest.approx(estimate.value, abs=1e-5)


def test_policies_in_a_batch_resample_as_each_does_alone(bed, fit):
    policy, data = bed
    sizes = (data.state_size, 8, data.action_size)
    generator = torch.Generator().manual_seed(0)
    head = ope.policies.heads.CategoricalHead()
    if data.action_spec.kind == "continuous":
        one = torch.ones(1, data.action_size)
        head = ope.policies.heads.GaussianHead(-one, -one, one)
    nets = []
    for _ in range(3):
        layers = [torch.randn((a, b), generator=generator) for a, b in itertools.pairwise(sizes)]
        biases = [torch.zeros(b) for b in sizes[1:]]
        nets.append(ope.MLPPolicy.from_layers(layers, biases, head, activation="tanh"))
    forms = [form for form in FORMS if form.candidates > 1]
    together = fit.estimate_forms([*nets, policy], forms)
    for one, of_policy in zip([*nets, policy], together, strict=True):
        for estimate, alone in zip(of_policy, fit.estimate_forms([one], forms)[0], strict=True):
            assert estimate.value == pytest.approx(alone.value, abs=1e-4 * max(1, abs(alone.value)))


def test_the_published_form_averages_what_each_classifier_estimates(bed):
    policy, data = bed
    ratio = replace(BRIEF.ratio, average="estimates", calibration="none")
    config = replace(BRIEF, ratio=ratio, weighting=W())
    lfiw = ope.LFIW(ope.Estimand(HORIZON, 0.9), config)
    fit = lfiw.fit(data, seed=0)
    rollout = ope.simulate(
        policy,
        fit.dynamics,
        fit.initial_states,
        horizon=HORIZON,
        rollouts=300,
        seed=0,
        ratio=fit.ratio,
    )
    assert rollout.log_ratio.shape == (3, 1, 300, HORIZON)
    rewards = rollout.discounted(0.9)[0]
    for form in (W(), W(form="stepwise", first=3), W(temper=0.5)):
        each = [weigh(rewards, one[0], form).value for one in rollout.log_ratio]
        found = replace(fit, weighting=form).estimate(policy)
        assert found.value == pytest.approx(np.mean(each), abs=1e-9)
        assert len(set(each)) == 3
        averaged = weigh(rewards, rollout.log_ratio.mean(0)[0], form).value
        assert found.value != pytest.approx(averaged, abs=1e-6)
    with pytest.raises(ope.ConfigError, match="keeps the classifiers apart"):
        replace(config, weighting=W(candidates=4))
    with pytest.raises(ope.ConfigError, match="classifiers"):
        replace(fit, weighting=W(candidates=2)).estimate(policy)


def test_the_paper_s_settings_are_the_paper_s():
    lfiw = ope.LFIW.paper(ope.Estimand(100))
    dynamics, ratio = lfiw.config.dynamics, lfiw.config.ratio
    assert dynamics.hidden == ratio.hidden == (500, 500, 500)
    assert dynamics.activation == ratio.activation == "silu"  # swish
    assert (dynamics.fit.updates, dynamics.fit.batch_size) == (100_000, 128)
    assert (ratio.fit.updates, ratio.fit.batch_size) == (10_000, 250)
    assert (ratio.members, ratio.average, ratio.calibration) == (10, "estimates", "none")
    assert ratio.features == "raw"
    assert (lfiw.config.rollouts, lfiw.config.fallback) == (100, None)
    assert lfiw.config.weighting == W()
    first = W(form="stepwise", first=80)
    assert ope.LFIW.paper(ope.Estimand(100), first, device="cpu").config.weighting == first


def test_weights_that_mean_nothing_give_way_to_the_plain_model(bed, fit):
    policy, _ = bed
    weighting = W(conditional=True, temper=0.5)
    weighted, plain = fit.estimate_forms([policy], [weighting, W(form="uniform")])[0]
    accuracy = fit.ratio.report.accuracy
    assert weighted.value != plain.value
    share = weighted.raw_ess / weighted.rollouts
    cases = {
        (share * 0.99, min(1.0, accuracy + 0.01)): None,
        (min(1.0, share * 1.01), 1.0): "rest on",
        (0.0, max(0.5, accuracy - 0.01)): "tell",
    }
    for (least, most), said in cases.items():
        trusting = replace(
            fit, weighting=weighting, fallback=ope.Fallback(least_ess=least, most_accuracy=most)
        )
        found = trusting.estimate(policy)
        assert found.estimator == weighting.label
        assert found.fell_back == (said is not None)
        if said is None:
            assert found == weighted or found.value == weighted.value
            continue
        assert found.value == plain.value
        assert found.mc_standard_error == plain.mc_standard_error
        assert found.raw_ess == weighted.raw_ess
        assert "mean nothing here" in found.warnings[0]
        assert said in found.warnings[0]
        assert "plain model's" in str(found)
        np.testing.assert_array_equal(found.returns, plain.returns)
        # The forms themselves are told as they are, and the plain model has nothing to fall from.
        assert not trusting.estimate_forms([policy], [weighting])[0][0].fell_back
        assert not trusting.plain_model().estimate(policy).fell_back


def test_evaluate_gives_way_too():
    policy, data = log_for(tabular)
    never = replace(BRIEF, fallback=ope.Fallback(least_ess=1.0))
    lfiw = ope.LFIW(ope.Estimand(HORIZON), never)
    result = ope.evaluate(data, policy, lfiw, seed=0, diagnosis=None)
    assert result.estimate.fell_back
    assert result.estimate.value == result.estimates[-1].value
    assert result.to_dict()["estimates"][0]["fell_back"] is True


@pytest.mark.parametrize("wrong", [{"least_ess": 1.5}, {"most_accuracy": 0.3}])
def test_thresholds_out_of_range_raise(wrong):
    with pytest.raises(ope.ConfigError, match=next(iter(wrong))):
        ope.Fallback(**wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["uniform", "trajectory"])
def test_a_ratio_that_is_not_finite_is_never_resampled_by_in_silence(bed, fit, form, value):
    class Broken:
        dynamics, report = fit.ratio.dynamics, fit.ratio.report

        def log_ratio(self, state, action, transition):
            return torch.full_like(fit.ratio.log_ratio(state, action, transition), value)

    broken = replace(fit, ratio=Broken(), weighting=W(form=form, candidates=4))
    with pytest.raises(ope.DivergedError, match="not finite"):
        broken.estimate(bed[0])


def test_h_of_none_chosen_by_weights_is_the_model_s_value_and_says_so(bed, fit):
    policy, _ = bed
    strict = replace(fit, weighting=W(first_ess=1.0), fallback=ope.Fallback(most_accuracy=1.0))
    found = strict.estimate(policy)
    assert (found.first, found.fell_back) == (None, True)
    assert "very first ratios" in found.warnings[0]
    assert found.raw_ess < 300
    # Who asks for H = 0 has asked for the plain model: nothing fell back.
    asked = replace(strict, weighting=W(first=0)).estimate(policy)
    assert not asked.fell_back
    assert asked.value == pytest.approx(found.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"weighting": "stepwise"}, "`weighting` must be .* got 'stepwise'"),
        ({"fallback": False}, "`fallback` must be .* got False"),
        ({"weighting": W(pareto=True), "rollouts": 20}, "20 weights have no tail"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_before_the_fit(wrong, said):
    with pytest.raises(ope.ConfigError, match=said):
        replace(CONFIG, **wrong)


def test_forms_are_asked_for_in_lists(bed, fit):
    for wrong in ((bed[0], [W()]), ([bed[0]], W())):
        with pytest.raises(ope.ConfigError, match="put a single one into brackets"):
            fit.estimate_forms(*wrong)


def test_an_open_side_of_a_clip_is_saved(tmp_path):
    policy, data = log_for(linear_gaussian)

    def of(weighting):
        lfiw = ope.LFIW(ope.Estimand(HORIZON), replace(BRIEF, weighting=weighting))
        return ope.evaluate(data, policy, lfiw, seed=0, diagnosis=None)

    result = of(W(clip=(0.1, np.inf)))
    saved, _ = ope.evaluation.save_evaluation(result, tmp_path, "open", {})
    assert json.loads(saved.read_text())["config"]["weighting"]["clip"] == [0.1, None]
    assert [one.estimator for one in result.estimates] == ["LFIW clipped 0.1 to inf", "model"]
    assert [one.estimator for one in of(W(form="uniform")).estimates] == ["model"]

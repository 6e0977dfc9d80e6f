"""Weights shaped: flattened, clipped, tempered, cut to H, smoothed; alone and together."""

import itertools
import math

import numpy as np
import pytest
import torch

from lfiw_ope.core import ConfigError, DataError, DivergedError, MissingDependencyError
from lfiw_ope.stats import (
    LEAST_WEIGHTS,
    Weighting,
    average,
    clip,
    cumulate,
    effective_sample_size,
    flatten,
    longest_first,
    pareto_smooth,
    self_normalise,
    temper,
    weigh,
)

N, STEPS = 400, 12
PLAIN = Weighting(form="uniform")


@pytest.fixture(scope="module")
def rollouts():
    """Log-ratios and rewards that depend on each other; some rollouts end early."""
    rng = np.random.default_rng(0)
    log_ratio = 0.8 * rng.normal(size=(N, STEPS)) - 0.3
    rewards = rng.normal(size=(N, STEPS)) + log_ratio
    ended = np.arange(STEPS) >= rng.integers(3, 3 * STEPS, N)[:, None]
    return torch.tensor(np.where(ended, 0, rewards)), torch.tensor(np.where(ended, 0, log_ratio))


def naive_exponent(log_weight, ess):
    """The exponent by a fine grid, from the definition."""
    for exponent in np.linspace(1, 0, 100_001):
        w = np.exp(exponent * (log_weight - log_weight.max()))
        if w.sum() ** 2 / (w**2).sum() >= ess:
            return exponent
    raise AssertionError


@pytest.mark.parametrize("ess", [30.0, 60.0, 200.0, 399.0])
def test_tempering_keeps_the_wanted_effective_sample_size(rollouts, ess):
    log_weight = cumulate(rollouts[1])[:, -1]
    tempered, exponent = temper(log_weight, ess)
    assert tempered.shape == log_weight.shape
    assert float(effective_sample_size(tempered)) == pytest.approx(ess, rel=1e-9)
    assert float(exponent) == pytest.approx(naive_exponent(log_weight.numpy(), ess), abs=2e-5)


def test_tempering_leaves_alone_what_keeps_enough_and_levels_what_wants_all(rollouts):
    log_weight = cumulate(rollouts[1])[:, -1]
    assert temper(log_weight, 1.0).exponent == 1.0
    torch.testing.assert_close(temper(log_weight, 1.0).log_weight, log_weight)
    everyone = temper(log_weight, float(N))
    assert everyone.exponent == 0.0
    assert (everyone.log_weight == 0).all()
    # A million times the largest weight is no trouble in log space.
    huge = temper(torch.tensor([0.0, 1e6, 2e6]).double(), 2.0)
    assert float(effective_sample_size(huge.log_weight)) == pytest.approx(2.0, rel=1e-6)


def test_tempering_works_along_any_axis(rollouts):
    log_weight = cumulate(rollouts[1])
    tempered, exponent = temper(log_weight, 100.0, dim=0)
    assert exponent.shape == (STEPS,)
    for t in range(STEPS):
        alone, own = temper(log_weight[:, t], 100.0)
        torch.testing.assert_close(tempered[:, t], alone)
        torch.testing.assert_close(exponent[t], own)


def test_first_by_effective_sample_size_is_the_longest_that_keeps_it(rollouts):
    log_ratio = rollouts[1]
    ess = effective_sample_size(cumulate(log_ratio), dim=0).tolist()
    for wanted in (1.0, 5.0, 40.0, 150.0, float(N)):
        kept = list(itertools.takewhile(lambda e, w=wanted: e >= w, ess))
        assert int(longest_first(log_ratio, wanted)) == len(kept)
    # Once lost is lost, also where it comes back.
    bad_step = torch.zeros(N, 3).index_put(
        (torch.tensor([0]), torch.tensor([1])), torch.tensor(9.0)
    )
    returns = bad_step.clone()
    returns[0, 2] = -9.0
    assert int(longest_first(returns, N / 2)) == 1
    both = torch.stack((log_ratio, torch.zeros_like(log_ratio)))
    assert longest_first(both, float(N)).tolist() == [0, STEPS]


def test_flattening_and_clipping_follow_their_definitions(rollouts):
    log_ratio = rollouts[1]
    torch.testing.assert_close(flatten(log_ratio, 0.3).exp(), log_ratio.exp() ** 0.3)
    assert (flatten(log_ratio, 0.0) == 0).all()
    torch.testing.assert_close(clip(log_ratio, 0.5, 2.0).exp(), log_ratio.exp().clamp(0.5, 2.0))
    torch.testing.assert_close(clip(log_ratio, 0.0, math.inf), log_ratio)
    torch.testing.assert_close(clip(log_ratio, 0.5, math.inf).exp(), log_ratio.exp().clamp_min(0.5))


@pytest.mark.parametrize("k", [0.2, 0.5, 1.0])
def test_pareto_smoothing_finds_the_tail_s_shape(k):
    # log of a Pareto variable is k times an exponential one. The fit's prior pulls k̂ towards 0.5
    # (weight 10 of M + 10); its spread is (1 + k) / √M, M = 3 √n = 600 here: 4 of them allowed.
    n = 40_000
    values = k * np.random.default_rng(1).exponential(size=n)
    found = pareto_smooth(torch.tensor(values))
    tail = 3 * math.sqrt(n)
    pull = (tail * k + 10 * 0.5) / (tail + 10)
    assert abs(found.shape - pull) < 4 * (1 + k) / math.sqrt(tail)


def test_pareto_smoothing_touches_the_largest_weights_alone():
    log_weight = torch.tensor(2.0 * np.random.default_rng(0).normal(size=1000)) + 7
    smoothed, shape = pareto_smooth(log_weight)
    order = log_weight.argsort()
    # The order stays, the body moves by the normalisation alone, and the sum is kept: had the
    # sign been lost, the smallest weights would have been smoothed.
    assert (smoothed[order].diff() >= 0).all()
    moved = (smoothed - log_weight)[order]
    assert float(moved[:900].std()) < 1e-9
    assert float(moved[-20:].std()) > 1e-3
    assert float(torch.logsumexp(smoothed, 0)) == pytest.approx(
        float(torch.logsumexp(log_weight, 0)), abs=1e-9
    )
    assert shape > 0.5


def test_pareto_smoothing_leaves_equal_weights_alone():
    smoothed, shape = pareto_smooth(torch.full((100,), 3.0))
    assert shape is None
    assert (smoothed == 3.0).all()


def test_pareto_smoothing_says_what_it_lacks(monkeypatch):
    with pytest.raises(ConfigError, match=r"24 weights have no tail.*25 or more"):
        pareto_smooth(torch.randn(LEAST_WEIGHTS - 1))
    monkeypatch.setitem(__import__("sys").modules, "arviz_stats.base", None)
    with pytest.raises(MissingDependencyError, match=r"lfiw-ope\[pareto\]"):
        pareto_smooth(torch.zeros(100))


SHAPES = {
    "exponent": {"exponent": 0.5},
    "clip": {"clip": (0.5, 2.0)},
    "first": {"first": 5},
    "first_ess": {"first_ess": 0.3},
    "temper": {"temper": 0.4},
    "pareto": {"pareto": True},
    "all": {"exponent": 0.7, "clip": (0.2, 4.0), "first": 9, "temper": 0.5, "pareto": True},
}


def by_hand(rewards, log_ratio, weighting):
    """Each function in turn, with NumPy's own sums."""
    if weighting.clip is not None:
        log_ratio = clip(log_ratio, *weighting.clip)
    log_ratio = flatten(log_ratio, weighting.exponent)
    first = weighting.first
    if weighting.first_ess is not None:
        first = int(longest_first(log_ratio, weighting.first_ess * N))
    weights = cumulate(log_ratio, first).numpy()
    if weighting.form == "trajectory":
        weights = np.repeat(weights[:, -1:], STEPS, 1)
    value = 0.0
    for t in range(STEPS):
        w = torch.tensor(weights[:, t])
        if weighting.temper is not None:
            w = temper(w, weighting.temper * N).log_weight
        if weighting.pareto:
            w = pareto_smooth(w).log_weight
        w = np.exp(w.numpy())
        norm = w.sum() if weighting.self_normalised else N
        value += (w * rewards[:, t].numpy()).sum() / norm
    return value


@pytest.mark.parametrize("form", ["trajectory", "stepwise"])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_forms_combine_as_their_functions_do(rollouts, form, shape, normalised):
    weighting = Weighting(form=form, self_normalised=normalised, **SHAPES[shape])
    found = weigh(*rollouts, weighting)
    assert found.value == pytest.approx(by_hand(*rollouts, weighting), abs=1e-10)
    bare = weigh(*rollouts, Weighting(form=form, self_normalised=normalised))
    assert found.value != pytest.approx(bare.value, abs=1e-6)
    assert found.log_weights.shape == (N,)
    assert float(found.log_weights.exp().sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("form", ["trajectory", "stepwise"])
@pytest.mark.parametrize(
    "none", [{"exponent": 0.0}, {"first": 0}, {"temper": 1.0}, {"first_ess": 1.0}], ids=str
)
def test_each_dial_ends_at_the_plain_model(rollouts, form, none):
    found, plain = weigh(*rollouts, Weighting(form=form, **none)), weigh(*rollouts, PLAIN)
    assert found.value == pytest.approx(plain.value, abs=1e-12)
    assert found.ess_by_step.tolist() == pytest.approx([N] * STEPS)
    assert found.mc_standard_error == pytest.approx(plain.mc_standard_error, rel=1e-9)


@pytest.mark.parametrize("form", ["trajectory", "stepwise"])
def test_each_dial_begins_at_the_bare_product(rollouts, form):
    bare = weigh(*rollouts, Weighting(form=form))
    for all_of_it in ({"exponent": 1.0}, {"first": STEPS}, {"clip": (0.0, 1e9)}, {"temper": 0.0}):
        found = weigh(*rollouts, Weighting(form=form, **all_of_it))
        assert found.value == pytest.approx(bare.value, abs=1e-12)


def test_what_was_done_to_weights_is_said(rollouts):
    found = weigh(*rollouts, Weighting(clip=(0.5, 2.0), first_ess=0.3, temper=0.6, pareto=True))
    outside = (rollouts[1].exp() < 0.5) | (rollouts[1].exp() > 2.0)
    assert found.clipped_share == pytest.approx(float(outside.double().mean()))
    assert 0 < found.first < STEPS
    assert 0 < found.exponent < 1
    assert found.raw_ess < found.ess_by_step.min()
    assert found.pareto_k is not None
    bare = weigh(*rollouts, Weighting())
    assert (bare.clipped_share, bare.first, bare.exponent, bare.pareto_k) == (None,) * 4
    assert bare.raw_ess == bare.ess_by_step.min()


def test_ended_rollouts_keep_their_weight_whatever_the_shape(rollouts):
    rewards, log_ratio = rollouts
    ended = int((log_ratio[:, -3:] == 0).all(1).nonzero()[0])
    weighting = Weighting(form="stepwise", clip=(0.5, 2.0), exponent=0.5)
    weights = cumulate(flatten(clip(log_ratio, 0.5, 2.0), 0.5))
    assert weights[ended, -1] == weights[ended, -3]
    # Not dropped from the sums either: taking its last rewards away changes nothing but them.
    longer = torch.cat((rewards, torch.zeros(N, 1)), 1)
    frozen = torch.cat((log_ratio, torch.zeros(N, 1)), 1)
    assert weigh(longer, frozen, weighting).value == pytest.approx(
        weigh(rewards, log_ratio, weighting).value, abs=1e-12
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_raise(value):
    bad = torch.zeros(50, 4).index_put((torch.tensor([3]), torch.tensor([2])), torch.tensor(value))
    column = bad[:, 2]
    shaping = [  # to them −∞ is a weight of 0
        lambda: flatten(bad, 0.5),
        lambda: clip(bad, 0.1, 10.0),
        lambda: temper(column, 10.0),
        lambda: pareto_smooth(column),
    ]
    for act in (
        *(shaping if value != -math.inf else []),
        lambda: longest_first(bad, 10.0),
        *(
            lambda shape=shape: weigh(torch.zeros(50, 4), bad, Weighting(**shape))
            for shape in SHAPES.values()
        ),
    ):
        with pytest.raises(DivergedError, match=r"1 of .* not finite"):
            act()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temper": 1.5}, r"temper is 1.5; it must be a number, in \[0, 1\]"),
        ({"first_ess": -0.1}, "first_ess is -0.1"),
        ({"exponent": -1.0}, "exponent is -1"),
        ({"clip": (2.0, 3.0)}, "must hold 1"),
        ({"clip": (3.0, 2.0)}, "cannot be clipped"),
        ({"first": 3, "first_ess": 0.5}, "both say how long H is"),
        ({"form": "uniform", "temper": 0.5}, "nothing for temper"),
        ({"candidates": 4, "conditional": True}, "choose one of them"),
        ({"candidates": 0}, "candidates is 0"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Weighting(**settings)


def test_pure_functions_refuse_what_cannot_be(rollouts):
    with pytest.raises(ConfigError, match="wanted effective sample size is 401"):
        temper(cumulate(rollouts[1])[:, -1], N + 1.0)
    with pytest.raises(ConfigError, match="wanted effective sample size is 0"):
        longest_first(rollouts[1], 0)


def test_separate_classifiers_are_averaged_after_they_weighed(rollouts):
    rewards, log_ratio = rollouts
    sets = [log_ratio, 0.5 * log_ratio, log_ratio.roll(1, 1)]
    each = [weigh(rewards, one, Weighting()) for one in sets]
    found = average(each)
    assert found.value == pytest.approx(np.mean([one.value for one in each]), abs=1e-12)
    # It is a weighted mean with the mean of the normalised weights: its error follows from that.
    shares = torch.stack([self_normalise(cumulate(one)[:, -1]).exp() for one in sets]).mean(0)
    torch.testing.assert_close(found.log_weights.exp(), shares)
    assert found.value == pytest.approx(float((shares * rewards.sum(1)).sum()), abs=1e-10)
    assert found.mc_standard_error < np.mean([one.mc_standard_error for one in each])
    assert float(found.ess_by_step.min()) == pytest.approx(np.mean([v.raw_ess for v in each]))
    assert average(each[:1]) is each[0]
    collapsed = weigh(rewards, 20 * log_ratio, Weighting())
    assert average([each[0], collapsed]).mc_standard_error is None


def test_labels_tell_forms_apart():
    made = [
        Weighting(form=form, **shape)
        for form in ("trajectory", "stepwise")
        for shape in SHAPES.values()
    ]
    made += [PLAIN, Weighting(form="uniform", candidates=4), Weighting(candidates=4)]
    made += [Weighting(), Weighting(conditional=True)]
    assert len({one.label for one in made}) == len(made)
    assert Weighting(conditional=True, first=80).label == "c-LFIW first 80"
    assert Weighting(conditional=True, temper=0.5).label == "c-LFIW tempered 0.5"


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(1000).index_fill(0, torch.tensor([3]), 50.0),  # one has all the weight
        800 * torch.randn(1000, generator=torch.Generator().manual_seed(0)),
        torch.cat((torch.zeros(180), torch.randn(20, generator=torch.Generator().manual_seed(1)))),
        torch.cat((torch.zeros(960), torch.full((40,), 5.0))),
    ],
    ids=["one", "wide", "ended", "tied"],
)
def test_a_tail_that_cannot_be_fitted_leaves_weights_alone(values, recwarn):
    smoothed, shape = pareto_smooth(values)
    assert smoothed.isfinite().all()
    if shape is None:
        torch.testing.assert_close(smoothed, values)
    else:
        assert float(torch.logsumexp(smoothed, 0)) == pytest.approx(
            float(torch.logsumexp(values, 0)), abs=1e-4
        )
    rewards = torch.ones(len(values), 1)
    found = weigh(rewards, values[:, None], Weighting(form="stepwise", pareto=True))
    assert found.value == pytest.approx(1.0)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"exponent": math.inf}, "exponent is inf"),
        ({"clip": 2.0}, "clip is 2.0; it must be a pair"),
        ({"clip": (0.5,)}, "must be a pair"),
        ({"clip": (0.5, "b")}, "highest weight is 'b'"),
        ({"pareto": "yes"}, "pareto is 'yes'; it must be True or False"),
        ({"self_normalised": None}, "self_normalised is None"),
    ],
    ids=str,
)
def test_settings_of_another_kind_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Weighting(**settings)


def test_rewards_and_ratios_of_different_rollouts_are_refused():
    with pytest.raises(DataError, match=r"\[200, 30\] and log-ratios \[200, 3\]"):
        weigh(torch.zeros(200, 30), torch.zeros(200, 3), Weighting())
    with pytest.raises(ConfigError, match="first is -1"):
        cumulate(torch.zeros(5, 3), -1)

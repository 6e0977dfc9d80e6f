"""The choice among candidates of noise and weights, on held-out episodes."""

import math

import pytest
import torch
from testbeds import linear_gaussian, log_of

import lfiw_ope as ope
from lfiw_ope.data import DeviceLog
from lfiw_ope.dynamics import Draws
from lfiw_ope.estimators import Candidate, paired, select_noise, selection

STEPS = 6
SIMPLE, MIDDLE, COMPLEX = Candidate("none"), Candidate("bootstrap"), Candidate("bootstrap", 4)


class Acting:
    """The policy that made the log, acting afresh at every state."""

    def __init__(self, policy):
        self.policy = policy

    def act_like(self, state, logged_state, logged_action, known, generator):  # noqa: ARG002
        flat = self.policy.act(state.flatten(0, -2), generator)
        return flat.view(*state.shape[:-1], -1)


class Watched:
    """A model that keeps the states it is asked for first, and may be wrong by a shift."""

    def __init__(self, truth, shift=0.0):
        self.truth, self.shift, self.begun = truth, shift, None

    def sample(self, state, action, generator):
        if self.begun is None:
            self.begun = state
        step = self.truth.sample(state, action, generator)
        return Draws(step.next_state + self.shift, step.reward, step.terminated, step.bounded)


@pytest.fixture(scope="module")
def bed():
    truth, _, policy = linear_gaussian()
    data = log_of(truth, policy, episodes=120, horizon=12, seed=0)
    return truth, Acting(policy), DeviceLog.of(data, "cpu")


def select(bed, models, episodes=range(120), steps=STEPS, seed=0):
    _, behaviour, log = bed
    return select_noise(models, behaviour, log, episodes, steps=steps, seed=seed)


@pytest.mark.parametrize("order", [(0.0, 0.1), (0.1, 0.0)])
def test_the_true_dynamics_are_preferred_to_biased_ones(bed, order):
    """A shift of half of the noise's standard deviation at every step: the simpler or the other."""
    truth = bed[0]
    models = {SIMPLE: Watched(truth, order[0]), MIDDLE: Watched(truth, order[1])}
    found = select(bed, models)
    right, wrong = (SIMPLE, MIDDLE) if order[0] == 0 else (MIDDLE, SIMPLE)
    assert found.chosen == right
    assert found.excess[str(right)] == found.standard_errors[str(right)] == 0.0
    # Known to several standard errors, which is why a seed does not decide.
    assert found.excess[str(wrong)] > 4 * found.standard_errors[str(wrong)]
    difference = found.scores[str(wrong)] - found.scores[str(right)]
    assert found.excess[str(wrong)] == pytest.approx(difference)


def test_of_identical_candidates_the_simplest_is_taken(bed):
    models = {one: Watched(bed[0]) for one in (SIMPLE, MIDDLE, COMPLEX)}
    found = select(bed, models)
    assert found.chosen == SIMPLE
    assert set(found.excess.values()) == {0.0}
    backwards = dict(reversed(models.items()))
    for model in backwards.values():
        model.begun = None
    assert select(bed, backwards).chosen == COMPLEX


@pytest.mark.parametrize(("excess", "chosen"), [(0.5, SIMPLE), (1.5, MIDDLE)])
def test_the_simplest_within_one_standard_error_is_taken(bed, monkeypatch, excess, chosen):
    """Losses made by hand: the simplest is so many standard errors worse than the next."""
    noise = torch.randn(480, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = noise - noise.mean()

    def judge(model, behaviour, logged, seed):  # noqa: ARG001
        assert len(logged) == 480
        _, error = paired(noise, logged.episode)
        of = {"simple": noise + excess * error, "middle": 0 * noise, "complex": 0 * noise + 9.0}
        return of[model], torch.zeros(len(logged), dtype=torch.float64)

    monkeypatch.setattr(selection, "judge", judge)
    found = select(bed, {SIMPLE: "simple", MIDDLE: "middle", COMPLEX: "complex"})
    ratio = found.excess[str(SIMPLE)] / found.standard_errors[str(SIMPLE)]
    assert ratio == pytest.approx(excess)
    assert found.chosen == chosen


@pytest.mark.parametrize(("bias", "chosen"), [(2.5, COMPLEX), (3.5, SIMPLE)])
def test_a_sharper_candidate_is_left_out_for_its_bias(bed, monkeypatch, bias, chosen):
    """Errors made by hand: the one of least loss is so many standard errors more biased."""
    noise = torch.randn(480, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = noise - noise.mean()

    def judge(model, behaviour, logged, seed):  # noqa: ARG001
        _, error = paired(noise, logged.episode)
        of = {"simple": 0 * noise, "complex": noise - bias * error}
        return 0 * noise + (model == "simple"), of[model]

    monkeypatch.setattr(selection, "judge", judge)
    found = select(bed, {SIMPLE: "simple", COMPLEX: "complex"})
    assert found.chosen == chosen
    assert found.biases[str(COMPLEX)] == pytest.approx(-bias * found.bias_errors[str(COMPLEX)])


def test_three_episodes_know_no_bias_at_three_standard_errors():
    """With 2 degrees of freedom a Student's t is beyond 3 in 9.5 % of cases; as rare as 3 standard
    errors are of a normal, 0.27 %, is 19.
    """
    episode, sign = torch.arange(3), torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    error = paired(sign, episode)[1]
    for bias, kept in ((10.0, [SIMPLE, MIDDLE]), (30.0, [SIMPLE])):
        errors = {SIMPLE: 0 * sign, MIDDLE: sign + bias * error}
        assert selection.not_biased(errors, episode) == kept


def test_of_sir_the_number_of_candidates_with_the_least_loss_is_taken(bed, monkeypatch):
    """SIR of 4 is half a standard error worse than SIR of 16, and no simpler."""
    noise = torch.randn(480, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = noise - noise.mean()

    def judge(model, behaviour, logged, seed):  # noqa: ARG001
        _, error = paired(noise, logged.episode)
        of = {"none": 9.0 + 0 * noise, "SIR 4": noise + 0.5 * error, "SIR 16": 0 * noise}
        return of[model], torch.zeros(len(logged), dtype=torch.float64)

    monkeypatch.setattr(selection, "judge", judge)
    found = select(bed, {SIMPLE: "none", COMPLEX: "SIR 4", Candidate("bootstrap", 16): "SIR 16"})
    assert found.chosen == Candidate("bootstrap", 16)


def test_all_candidates_meet_the_same_stretches(bed):
    models = {one: Watched(bed[0], shift) for one, shift in ((SIMPLE, 0.0), (MIDDLE, 0.1))}
    found = select(bed, models)
    assert torch.equal(models[SIMPLE].begun, models[MIDDLE].begun)
    # 12 steps of 120 episodes: stretches of 6, one from every second step.
    assert (found.stretches, found.episodes, found.steps) == (480, 120, STEPS)
    assert len(models[SIMPLE].begun) == 480 * selection.DRAWS
    assert list(found.scores) == [str(SIMPLE), str(MIDDLE)]


def test_stretches_are_of_the_given_episodes_alone(bed):
    model = Watched(bed[0])
    found = select(bed, {SIMPLE: model}, episodes=[3, 7])
    assert (found.stretches, found.episodes) == (8, 2)
    log = bed[2]
    rows = log.first[torch.tensor([3] * 4 + [7] * 4)] + torch.tensor([0, 2, 4, 6] * 2)
    assert torch.equal(model.begun[:8], log.at(rows).state)


def test_no_choice_is_made_where_no_episode_is_long_enough(bed):
    assert select(bed, {SIMPLE: Watched(bed[0])}, steps=13) is None
    assert select(bed, {SIMPLE: Watched(bed[0])}, episodes=[]) is None
    # One episode alone has stretches, and no standard error.
    assert select(bed, {SIMPLE: Watched(bed[0])}, episodes=[3]) is None


def test_one_seed_is_one_choice(bed):
    def scores(seed):
        models = {one: Watched(bed[0], shift) for one, shift in ((SIMPLE, 0.0), (MIDDLE, 0.1))}
        return select(bed, models, seed=seed).scores

    assert scores(0) == scores(0)
    assert scores(0) != scores(1)


def test_a_paired_difference_is_clustered_by_episode():
    """Two alike differences of one episode know no more than one of them."""
    values = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, error = paired(values, torch.arange(50))
    assert mean == pytest.approx(float(values.mean()))
    assert error == pytest.approx(float(values.std()) / math.sqrt(50))
    twice = paired(values.repeat_interleave(2), torch.arange(50).repeat_interleave(2))
    assert twice[0] == pytest.approx(mean)
    # Within a cluster nothing varies, so that pairs have the error of the 50.
    assert twice[1] == pytest.approx(error, rel=0.03)


def test_candidates_are_named_by_noise_and_weights():
    assert [str(one) for one in (SIMPLE, MIDDLE, COMPLEX)] == [
        "none",
        "bootstrap",
        "bootstrap + SIR 4",
    ]


NETS = ope.FitConfig(updates=200, evaluate_every=50, batch_size=64)
DYNAMICS = ope.DynamicsConfig(members=2, hidden=(16,), fit=NETS)
RATIO = ope.RatioConfig(members=2, hidden=(16,), fit=NETS)


@pytest.fixture(scope="module")
def data():
    truth, _, policy = linear_gaussian()
    return policy, log_of(truth, policy, episodes=40, horizon=6, seed=0)


def lfiw(dynamics=DYNAMICS, **settings):
    config = ope.LFIWConfig(dynamics=dynamics, ratio=RATIO, rollouts=60, **settings)
    return ope.LFIW(ope.Estimand(6), config)


def test_lfiw_chooses_and_says_how(data):
    policy, log = data
    fit = lfiw().fit(log, seed=0)
    names = ["none", "gaussian", "bootstrap", "bootstrap + SIR 4", "bootstrap + SIR 16"]
    assert list(fit.selection.scores) == names
    assert (fit.selection.steps, fit.selection.episodes) == (6, 4)
    chosen = fit.selection.chosen
    assert fit.dynamics.noise.kind == chosen.noise
    assert fit.weighting == chosen.weighting
    found = fit.estimate(policy)
    assert found.noise_kind == chosen.noise
    for name in names:
        assert found.diagnostics[f"loss[{name}]"] == fit.selection.scores[name]
        assert found.diagnostics[f"loss_error[{name}]"] == fit.selection.standard_errors[name]
        assert name in str(found).splitlines()[1]
    assert ope.Estimate.from_json(found.to_json()) == found
    # Forms that are asked for by name are simulated with the noise of the ratio.
    (named,) = fit.estimate_forms([policy], [ope.Weighting()])[0]
    assert named.noise_kind == "bootstrap"
    assert fit.ratio.dynamics.noise.kind == "bootstrap"


def test_sir_that_is_chosen_is_simulated(data, monkeypatch):
    """A loss that prefers 4 candidates to all else: `select_noise` decides, and nothing else."""
    policy, log = data

    def judge(model, behaviour, logged, seed):  # noqa: ARG001
        best = getattr(model, "candidates", 1) == 4
        loss = torch.full((len(logged),), 0.0 if best else 1.0, dtype=torch.float64)
        return loss, torch.zeros_like(loss)

    monkeypatch.setattr(selection, "judge", judge)
    fit = lfiw().fit(log, seed=0)
    assert fit.selection.chosen == Candidate("bootstrap", 4)
    assert fit.weighting == ope.Weighting(form="uniform", candidates=4, calibrated=True)
    found = fit.estimate(policy)
    assert found.noise_kind == "bootstrap"
    assert found.value != fit.plain_model().estimate(policy).value
    assert len(fit.gaps) == 1  # the clone, simulated with SIR too


def test_a_named_noise_is_kept_and_a_named_form_is_not_chosen_against(data):
    _, log = data
    gaussian = ope.DynamicsConfig(members=2, hidden=(16,), fit=NETS, noise="gaussian")
    fit = lfiw(gaussian).fit(log, seed=0)
    assert list(fit.selection.scores) == ["gaussian", "gaussian + SIR 4", "gaussian + SIR 16"]
    assert fit.dynamics.noise.kind == "gaussian"
    named = lfiw(weighting=ope.Weighting(form="stepwise")).fit(log, seed=0)
    assert named.selection is None
    assert named.weighting == ope.Weighting(form="stepwise")
    assert named.dynamics.noise.kind == "bootstrap"


def test_the_plain_model_chooses_noise_alone(data):
    policy, log = data
    config = ope.ModelBasedConfig(dynamics=DYNAMICS, rollouts=60)
    fit = ope.ModelBased(ope.Estimand(6), config).fit(log, seed=0)
    assert list(fit.selection.scores) == ["none", "gaussian", "bootstrap"]
    assert fit.dynamics.noise.kind == fit.selection.chosen.noise
    assert fit.estimate(policy).noise_kind == fit.selection.chosen.noise


def test_a_short_log_has_bootstrap_noise_and_no_weights(data):
    _, log = data
    fit = lfiw().fit(log.select(range(9)), seed=0)
    assert fit.selection is None
    assert fit.dynamics.noise.kind == "bootstrap"
    assert fit.weighting == ope.Weighting(form="uniform")


def test_an_automatic_choice_needs_one_ratio():
    apart = ope.RatioConfig(members=2, average="estimates")
    with pytest.raises(ope.ConfigError, match="weighting"):
        ope.LFIWConfig(ratio=apart)

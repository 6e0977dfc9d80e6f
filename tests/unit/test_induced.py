"""What the induced model promises whatever the ratio; statistical/ has what it comes to."""

import pytest
import torch
from testbeds import ExactRatio, linear_gaussian, tabular
from torch import Tensor

import lfiw_ope as ope
from lfiw_ope.ratios import ExpectationStream


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(count, generator):
    return torch.randn((count, 2), generator=generator)


def tilt(x):
    return x[:, 0] - 0.5


MODEL = ope.InducedModel(normal, tilt)


class Table:
    """A draw that deals rows of a table in order, whatever the sizes asked for."""

    def __init__(self, rows):
        self.rows, self.at = rows, 0

    def __call__(self, count, generator):  # noqa: ARG002
        self.at += count
        return self.rows[self.at - count : self.at]


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("self_normalised", [True, False])
def test_chunks_do_not_change_the_numbers(self_normalised, offset):
    """Against the formulas at once, with the largest weight in any of the chunks."""
    rows = torch.randn((1000, 3), generator=generator(), dtype=torch.float64)
    log_weight, f = 3 * rows[:, 0], rows[:, 1:] + offset
    weight = log_weight.exp()
    if self_normalised:
        value = (weight[:, None] * f).sum(0) / weight.sum()
        influence = weight[:, None] * (f - value) / weight.sum()
    else:
        value = (weight[:, None] * f).mean(0)
        influence = (weight[:, None] * f - value) / 1000
    error = (influence.square().sum(0) * 1000 / 999).sqrt()
    for chunk in (1, 7, 1000):
        model = ope.InducedModel(
            Table(rows), lambda x: 3 * x[:, 0], lambda x: x.new_zeros(len(x)), chunk
        )
        found = model.expectation(
            lambda x: x[:, 1:] + offset, 1000, generator(), self_normalised=self_normalised
        )
        assert found.count == 1000
        torch.testing.assert_close(found.value, value, rtol=1e-12, atol=1e-12)
        # Squares of an offset of 1e6 would have lost four of the digits; centred ones lose none.
        torch.testing.assert_close(found.standard_error, error, rtol=1e-8, atol=0.0)
        ess = weight.sum().square() / weight.square().sum()
        torch.testing.assert_close(found.ess, ess, rtol=1e-12, atol=0.0)


def test_the_scale_of_the_weights_does_not_matter_where_self_normalised():
    plain = MODEL.expectation(lambda x: x, 500, generator())
    for shift in (-5000.0, 5000.0):
        shifted = ope.InducedModel(normal, lambda x, by=shift: tilt(x).double() + by)
        found = shifted.expectation(lambda x: x, 500, generator())
        torch.testing.assert_close(found.value, plain.value, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.standard_error, plain.standard_error, rtol=1e-9, atol=0)
        assert torch.equal(shifted.sample(50, 4, generator()), MODEL.sample(50, 4, generator()))
    with pytest.raises(ope.DivergedError, match=r"logarithm of 500.; use a self-normalised"):
        shifted.expectation(lambda x: x, 500, generator(), self_normalised=False)


def test_one_number_or_a_row_of_them():
    one = MODEL.expectation(lambda x: x[:, 1], 200, generator())
    row = MODEL.expectation(lambda x: x, 200, generator())
    assert one.value.shape == one.standard_error.shape == ()
    assert row.value.shape == row.standard_error.shape == (2,)
    torch.testing.assert_close(one.value, row.value[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.standard_error, row.standard_error[1], rtol=1e-12, atol=0.0)


def test_no_standard_error_where_few_draws_carry_the_weights():
    """One draw with all the weight would give a standard error of 0, a false certainty."""
    peaked = ope.InducedModel(normal, lambda x: 50 * x[:, 0])
    found = peaked.expectation(lambda x: x, 1000, generator())
    assert float(found.ess) < 10
    assert found.standard_error is None


@pytest.mark.parametrize("count", [1, 7, 100])
def test_one_candidate_is_the_model_itself(count):
    assert torch.equal(MODEL.sample(count, 1, generator()), normal(count, generator()))


@pytest.mark.parametrize("shape", [(), (3,), (2, 4, 4)])
def test_points_may_have_any_shape(shape):
    def draw(count, generator):
        return torch.randn((count, *shape), generator=generator)

    model = ope.InducedModel(draw, lambda x: x.reshape(len(x), -1).mean(1), chunk=50)
    # More candidates than a chunk, fewer, and rows that do not fill the last chunk.
    for candidates in (1, 3, 120):
        assert model.sample(20, candidates, generator()).shape == (20, *shape)
    assert model.expectation(lambda x: x.reshape(len(x), -1), 170, generator()).count == 170


def test_samples_are_the_candidates_that_were_drawn():
    rows = torch.arange(600.0)
    model = ope.InducedModel(Table(rows), lambda x: torch.where(x % 7 == 0, 60.0, 0.0))
    picked = model.sample(30, 20, generator())
    assert (picked % 1 == 0).all()
    assert len(picked.unique()) == 30
    assert (picked % 7 == 0).all()  # 20 candidates 30 apart hold such a row, e^60 times as likely


def test_the_density_is_the_model_s_times_the_ratio():
    x = normal(5, generator())

    def log_density(x):
        return -0.5 * x.square().sum(1)

    model = ope.InducedModel(normal, tilt, log_density)
    torch.testing.assert_close(model.unnormalised_log_density(x), log_density(x) + tilt(x))
    with pytest.raises(ope.ConfigError, match="known by its draws alone"):
        MODEL.unnormalised_log_density(x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_counted_and_raised(bad):
    def spoil(values: Tensor) -> Tensor:
        values = values.clone()
        values[[3, 5]] = bad
        return values

    broken = ope.InducedModel(normal, lambda x: spoil(tilt(x)))
    with pytest.raises(ope.DivergedError, match="2 of 20 log-ratios are not finite"):
        broken.expectation(lambda x: x, 20, generator())
    with pytest.raises(ope.DivergedError, match="2 of 40 log-ratios are not finite"):
        broken.sample(20, 2, generator())
    with pytest.raises(ope.DivergedError, match="2 of 20 values of f are not finite; f must give"):
        MODEL.expectation(lambda x: spoil(x[:, 0]), 20, generator())


def upper_half(x):
    """A weight of 1 or of 0: the induced model is N(0, 1) cut at 0."""
    return torch.where(x[:, 0] > 0, 0.0, -torch.inf)


@pytest.mark.parametrize("chunk", [1, 100])
@pytest.mark.parametrize("self_normalised", [True, False])
def test_a_weight_of_0_is_a_weight(chunk, self_normalised):
    """In chunks of one draw, half the chunks have none above 0."""
    model = ope.InducedModel(normal, upper_half, chunk=chunk)
    found = model.expectation(lambda x: x, 500, generator(), self_normalised=self_normalised)
    cut = [normal(min(chunk, 500), at) for at in [generator()] for _ in range(500 // chunk)]
    x = torch.cat(cut).double()
    kept = x[x[:, 0] > 0]
    expected = kept.mean(0) if self_normalised else kept.sum(0) / 500
    torch.testing.assert_close(found.value, expected, rtol=1e-9, atol=1e-12)
    assert float(found.ess) == pytest.approx(len(kept))
    assert found.standard_error.isfinite().all()


def test_samples_of_weight_0_are_never_kept():
    picked = ope.InducedModel(normal, upper_half).sample(500, 30, generator())
    assert (picked[:, 0] > 0).all()
    # Of two candidates both weigh 0 once in four.
    with pytest.raises(
        ope.DivergedError, match=r"All 2 candidates have a weight of 0 in \d+ of 100"
    ):
        ope.InducedModel(normal, upper_half).sample(100, 2, generator())


def test_weights_that_are_all_0_or_vanish_are_no_value_of_0():
    nothing = ope.InducedModel(normal, lambda x: torch.full((len(x),), -torch.inf))
    for self_normalised in (True, False):
        with pytest.raises(ope.DivergedError, match="All 20 draws have a weight of 0"):
            nothing.expectation(lambda x: x, 20, generator(), self_normalised=self_normalised)
    small = ope.InducedModel(normal, lambda x: tilt(x).double() - 5000)
    with pytest.raises(ope.DivergedError, match=r"underflow.*-(499|500)\d; use a self-normalised"):
        small.expectation(lambda x: x, 20, generator(), self_normalised=False)


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (
            lambda count, generator: normal(count + 1, generator),
            r"draw gave the shape \(21, 2\); 20",
        ),
        (lambda count, generator: normal(count, generator)[:0], r"draw gave the shape \(0, 2\)"),
        (lambda count, generator: torch.tensor(1.0), r"draw gave the shape \(\)"),  # noqa: ARG005
        (lambda count, generator: None, "drew a NoneType; a function that draws"),  # noqa: ARG005
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.expectation(lambda x: x, 20, generator()),
        lambda model: model.normaliser(20, generator()),
        lambda model: model.sample(20, 1, generator()),
        lambda model: model.sample(4, 5, generator()),
    ],
)
def test_a_draw_of_another_number_is_refused(draw, says, call):
    with pytest.raises(ope.ConfigError, match=says):
        call(ope.InducedModel(draw, tilt))


def test_functions_may_speak_numpy():
    """As `fit_density_ratio`'s may."""
    model = ope.InducedModel(
        lambda count, generator: normal(count, generator).numpy(),
        lambda x: tilt(x).numpy(),
        lambda x: x.numpy().sum(1),
    )
    for of in ((lambda x: x), (lambda x: x.numpy())):
        found = model.expectation(of, 50, generator())
        assert torch.equal(found.value, MODEL.expectation(lambda x: x, 50, generator()).value)
    for candidates in (1, 3):
        kept = model.sample(20, candidates, generator())
        assert torch.equal(kept, MODEL.sample(20, candidates, generator()))
    x = normal(5, generator())
    torch.testing.assert_close(model.unnormalised_log_density(x), x.sum(1) + tilt(x))


def test_functions_of_another_shape_are_refused():
    wide = ope.InducedModel(normal, lambda x: x[:, :1])  # [n, 1] against [n] would be [n, n]
    with pytest.raises(ope.ConfigError, match=r"shape \(20, 1\) for draws of shape \(20,\)"):
        wide.expectation(lambda x: x, 20, generator())
    with pytest.raises(ope.ConfigError, match=r"shape \(2,\) at draws of shape \(20,\)"):
        MODEL.expectation(lambda x: x.mean(0), 20, generator())
    with pytest.raises(ope.ConfigError, match="No draws"):
        ExpectationStream().expectation(self_normalised=True)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: MODEL.sample(0, 2, generator()), "count"),
        (lambda: MODEL.sample(2, 0, generator()), "candidates"),
        (lambda: MODEL.expectation(tilt, 0, generator()), "count"),
        (lambda: ope.InducedModel(normal, tilt, chunk=0), "chunk"),
        (lambda: ope.InducedDynamics(None, None, 0), "candidates"),
    ],
)
def test_counts_below_one_are_refused(call, name):
    with pytest.raises(ope.ConfigError, match=f"{name} is 0; it must be a whole number, 1 or more"):
        call()


def induced(make=linear_gaussian, candidates=1, **kwargs):
    truth, model, _ = make()
    return ope.InducedDynamics(model, ExactRatio(truth, model), candidates, **kwargs)


def rows(make, lead=(), n=4):
    truth, _, policy = make()
    state = truth.initial_states(n, generator(1))
    return (values.expand(*lead, -1, -1) for values in (state, policy.act(state, generator(2))))


def test_one_candidate_simulates_the_model():
    dynamics, (state, action) = induced(), rows(linear_gaussian)
    ours = dynamics.sample(state, action, generator())
    theirs = dynamics.dynamics.sample(state, action, generator())
    assert torch.equal(ours.next_state, theirs.next_state)


@pytest.mark.parametrize("make", [linear_gaussian, tabular])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_a_step_is_a_whole_transition_of_its_own_row(make, lead):
    """Fields come from one candidate, and random numbers are shared along the leading axes."""
    dynamics, (state, action) = induced(make, candidates=6), rows(make, lead, n=50)
    step = dynamics.sample(state, action, generator())
    assert step.next_state.shape == state.shape
    flat = step.next_state.reshape(-1, *state.shape[-2:])
    assert torch.equal(flat[:1].expand_as(flat), flat)
    model = dynamics.dynamics
    if make is tabular:
        reached, s, a = step.next_state.argmax(-1), state.argmax(-1), action.argmax(-1)
        assert torch.equal(step.reward, torch.as_tensor(model.reward)[s, a, reached].float())
        assert torch.equal(step.terminated, torch.as_tensor(model.terminal)[reached])
    else:
        torch.testing.assert_close(step.reward, model.reward(state, action))


def test_a_ratio_that_is_not_finite_shows_in_the_step():
    truth, model, _ = linear_gaussian()
    exact = ExactRatio(truth, model)

    class Spoilt:
        def log_ratio(self, state, action, transition):
            log_ratio = exact.log_ratio(state, action, transition)
            log_ratio[2, ..., 1] = torch.inf
            log_ratio[2, ..., 0] = torch.nan
            log_ratio[..., 3] = -torch.inf
            return log_ratio

    step = ope.InducedDynamics(model, Spoilt(), 4).sample(*rows(linear_gaussian), generator())
    assert step.reward.isnan().tolist() == [True, True, False, True]
    assert step.next_state.isnan().all(-1).tolist() == [True, True, False, True]


def test_a_candidate_of_weight_0_is_never_chosen():
    _, model, _ = linear_gaussian()

    class Upper:
        def log_ratio(self, state, action, transition):  # noqa: ARG002
            return torch.where(transition.next_state[..., 0] > state[..., 0], 0.0, -torch.inf)

    state, action = rows(linear_gaussian, n=200)
    dynamics = ope.InducedDynamics(model, Upper(), 60)
    step = dynamics.sample(state, action, generator())
    assert (step.next_state[..., 0] > state[..., 0]).all()
    found = dynamics.expectation(
        lambda step: step.next_state[..., 0], state, action, 60, generator()
    )
    assert (found.value > state[..., 0]).all()


def test_a_ratio_with_several_estimates_is_refused():
    """A ratio may keep its classifiers apart, `[K, C, ..., n]`; SIR goes by one ratio."""
    truth, model, _ = linear_gaussian()

    class Apart:
        def log_ratio(self, state, action, transition):
            log_ratio = ExactRatio(truth, model).log_ratio(state, action, transition)
            return log_ratio[:, None].expand(-1, 3, -1)

    dynamics = ope.InducedDynamics(model, Apart(), 4)
    with pytest.raises(ope.ConfigError, match=r"draws of shape \(4, 4\).*average=\"logits\""):
        dynamics.sample(*rows(linear_gaussian), generator())


def test_the_dynamics_density_is_the_truth_s_where_the_ratio_is_exact():
    truth, _, _ = linear_gaussian()
    dynamics, (state, action) = induced(), rows(linear_gaussian)
    step = truth.sample(state, action, generator())
    torch.testing.assert_close(
        dynamics.unnormalised_log_density(state, action, step),
        truth.log_density(state, action, step),
    )

    class DrawsAlone:
        sample = dynamics.dynamics.sample

    with pytest.raises(ope.ConfigError, match="DrawsAlone has no log_density"):
        ope.InducedDynamics(DrawsAlone(), dynamics.ratio).unnormalised_log_density(
            state, action, step
        )


def test_expectations_at_each_state_and_action():
    dynamics, (state, action) = induced(chunk=40), rows(linear_gaussian, (2,))
    wide = dynamics.expectation(lambda step: step.next_state, state, action, 33, generator())
    one = dynamics.expectation(lambda step: step.next_state[..., 1], state, action, 33, generator())
    assert wide.value.shape == wide.standard_error.shape == (2, 4, 3)
    assert wide.ess.shape == one.value.shape == (2, 4)
    assert wide.count == 33
    torch.testing.assert_close(wide.value[..., 1], one.value, rtol=1e-12, atol=1e-12)


def test_a_standard_error_is_nan_at_the_rows_that_have_none():
    truth, model, _ = linear_gaussian()
    exact = ExactRatio(truth, model)

    class Peaked:
        def log_ratio(self, state, action, transition):
            log_ratio = exact.log_ratio(state, action, transition)
            log_ratio[..., 2] *= 1000
            return log_ratio

    dynamics = ope.InducedDynamics(model, Peaked())
    found = dynamics.expectation(
        lambda step: step.next_state[..., 0], *rows(linear_gaussian), 200, generator()
    )
    assert found.standard_error.isnan().tolist() == [False, False, True, False]

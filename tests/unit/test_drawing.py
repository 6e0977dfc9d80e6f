import pytest
import torch
from testbeds import linear_gaussian, tabular

import lfiw_ope as ope
from lfiw_ope.dynamics import Draws, draws


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def at_one_state(n=3):
    _, model, _ = linear_gaussian()
    state = torch.tensor([[0.3, -0.2, 0.1]]).expand(n, -1)
    return model, state, torch.zeros(n, 2)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_fields_lead_with_the_draws_whatever_leads_the_states(lead):
    truth, _, _ = tabular()
    state = torch.eye(6)[:4].expand(*lead, -1, -1)
    action = torch.eye(3)[[0, 1, 2, 0]].expand(*lead, -1, -1)
    drawn = draws(truth, state, action, 5, generator())
    assert drawn.next_state.shape == (5, *lead, 4, 6)
    assert drawn.reward.shape == drawn.terminated.shape == drawn.bounded.shape == (5, *lead, 4)
    # Random numbers are shared along the leading axes, and states are equal there.
    flat = drawn.next_state.view(5, -1, 4, 6)
    assert torch.equal(flat[:, :1].expand_as(flat), flat)
    # Each draw is at its own (s, a): its reward is that of the state it led to.
    reached, s, a = drawn.next_state.argmax(-1), state.argmax(-1), action.argmax(-1)
    table = torch.as_tensor(truth.reward, dtype=torch.float32)
    assert torch.equal(drawn.reward, table[s, a, reached])


def test_draws_are_independent_and_distributed_as_sample_s():
    n, count = 4000, 4
    model, state, action = at_one_state(n)
    drawn = draws(model, state, action, count, generator(1)).next_state[..., 0]
    mean = model._mean(state, action)[0, 0]
    # Standard errors of a mean, of a Gaussian's variance and of a correlation; 4.5 of each.
    assert (drawn.mean(1) - mean).abs().max() < 4.5 * (0.05 / n) ** 0.5
    assert (drawn.var(1) / 0.05 - 1).abs().max() < 4.5 * (2 / n) ** 0.5
    assert (torch.corrcoef(drawn) - torch.eye(count)).abs().max() < 4.5 / n**0.5


def test_the_own_draw_is_the_first_and_costs_nothing():
    model, state, action = at_one_state()
    own = model.sample(state, action, generator(5))
    drawing = generator(6)
    alone = draws(model, state, action, 1, drawing, own=own)
    assert torch.equal(drawing.get_state(), generator(6).get_state())  # nothing was drawn
    several = draws(model, state, action, 4, drawing, own=own)
    others = draws(model, state, action, 3, generator(6))
    assert torch.equal(alone.next_state[0], own.next_state)
    assert torch.equal(several.next_state[0], own.next_state)
    assert torch.equal(several.next_state[1:], others.next_state)


def test_a_model_that_draws_many_is_asked_for_them_together():
    model, state, action = at_one_state()
    asked = []

    class Many:
        def sample(self, state, action, generator):  # noqa: ARG002
            raise AssertionError("asked one by one")

        def draw(self, state, action, count, generator):
            asked.append((state.shape, count))
            step = model.sample(state, action, generator)
            return Draws(*(field.expand(count, *field.shape) for field in step))

    drawn = draws(Many(), state, action, 7, generator())
    assert asked == [(torch.Size([1, 3, 3]), 7)]
    assert drawn.next_state.shape == (7, 3, 3)


def test_no_draw_is_refused():
    model, state, action = at_one_state()
    with pytest.raises(ope.ConfigError, match="number of draws is 0; it must be a whole number, 1"):
        draws(model, state, action, 0, generator())

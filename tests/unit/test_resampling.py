import math
from typing import NamedTuple

import pytest
import torch
from testbeds import ExactRatio, linear_gaussian

import lfiw_ope as ope
from lfiw_ope.dynamics import PER_DRAW, Draws, simulate
from lfiw_ope.stats import choose

LAST = 1 - 2**-53  # the largest number that torch.rand draws
GRID = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_candidate_is_chosen_in_proportion_to_its_ratio():
    log_ratio = torch.randn((5, 1), generator=generator()).expand(5, len(GRID))
    index, log_mean = choose(log_ratio, GRID)
    share = torch.bincount(index, minlength=5) / len(GRID)
    assert (share - torch.softmax(log_ratio[:, 0], 0)).abs().max() <= 1 / len(GRID)
    assert log_mean[0].exp() == pytest.approx(float(log_ratio[:, 0].exp().mean()))
    assert log_mean.dtype == torch.float64


class Step(NamedTuple):
    next_state: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    bounded: torch.Tensor


class Labels:
    """s' and the reward are one label, drawn from [0, 1) and pushed by the action.

    High labels end the episode, low ones are said to be bounded, and the ratio rises with them.
    Remembers the states that it is sampled at.
    """

    def __init__(self, slope=3.0):
        self.slope, self.seen = slope, []

    def sample(self, state, action, generator):
        if action.shape[-2] == self.rows * self.candidates:
            self.seen.append(state[..., : self.rows, 0].clone())
        label = torch.rand(state.shape[-2], generator=generator) + 0.1 * action[..., 0]
        return Step(label[..., None], label, label > 0.95, label < 0.2)

    def log_ratio(self, state, action, transition):  # noqa: ARG002
        return self.slope * transition.reward


class Pushing:
    """Policies that each push with a force of their own, at whatever state."""

    state_size = action_size = 1

    def __init__(self, *forces):
        self.forces = torch.tensor(forces)

    def act(self, state, generator):  # noqa: ARG002
        return self.forces[:, None, None].expand(*state.shape[:2], 1)


def play(candidates, *, forces=(0.0, 1.0), n=60, slope=3.0, draws=1, horizon=8, seed=0):
    model = Labels(slope)
    model.rows, model.candidates = n, candidates
    rollout = simulate(
        Pushing(*forces),
        model,
        torch.zeros(1, 1),
        horizon=horizon,
        rollouts=n,
        seed=seed,
        policies=len(forces),
        ratio=model,
        draws=draws,
        candidates=candidates,
    )
    return rollout, torch.stack(model.seen)


class Counted:
    """A model that counts how often its networks would be evaluated."""

    def __init__(self, model):
        self.model, self.samples, self.drawn = model, 0, []

    def sample(self, state, action, generator):
        self.samples += 1
        return self.model.sample(state, action, generator)

    def draw(self, state, action, count, generator):
        self.drawn.append(count)
        wide = (state.repeat(1, count, 1), action.repeat(1, count, 1))
        step = self.model.sample(*wide, generator)
        fields = (getattr(step, name) for name in PER_DRAW)
        lead = (len(state), count, state.shape[1])
        return Draws(*(of.view(*lead, *of.shape[2:]).transpose(0, 1) for of in fields))


class Level:
    """A ratio of 1 at every transition."""

    def log_ratio(self, state, action, transition):  # noqa: ARG002
        return torch.zeros_like(transition.reward)


def test_candidates_of_a_step_are_drawn_by_one_evaluation():
    truth, model, policy = linear_gaussian()
    starts = truth.initial_states(40, generator())
    counted = Counted(model)
    arguments = {"horizon": 6, "rollouts": 500, "seed": 1, "ratio": Level()}
    simulate(policy, counted, starts, candidates=16, **arguments)
    assert counted.drawn == [16] * 6
    assert counted.samples == 0


def test_a_rollout_goes_on_from_the_candidate_that_was_chosen():
    rollout, seen = play(6, n=400)
    reward, alive = rollout.rewards.movedim(-1, 0), rollout.alive.movedim(-1, 0)
    for t in range(7):
        assert torch.equal(seen[t + 1][alive[t]], reward[t][alive[t]])
        assert torch.equal(alive[t + 1], alive[t] & ~(reward[t] > 0.95))
    share = ((reward < 0.2) & alive).sum((0, 2)) / alive.sum((0, 2))
    torch.testing.assert_close(rollout.bounded_share, share)
    # Chosen by e^{3x} for x uniform on [0, 1): the mean goes from 1/2 towards 0.72.
    assert float(reward[0, 0].mean()) > 0.65
    # The mean of six ratios, whose expectation is (e³ − 1) / 3, to 4 standard errors of 400 · 6.
    error = math.sqrt(((math.e**6 - 1) / 6 - ((math.e**3 - 1) / 3) ** 2) / 2400)
    found = float(rollout.log_ratio[0, :, 0].exp().mean())
    assert abs(found - (math.e**3 - 1) / 3) < 4 * error


class Separate:
    """Three classifiers' ratios, each on its own: `[K, C, P, n]`."""

    def __init__(self, truth, model):
        self.exact = ExactRatio(truth, model)

    def log_ratio(self, state, action, transition):
        one = self.exact.log_ratio(state, action, transition)
        return torch.stack([factor * one for factor in (0.5, 1.0, 2.0)], one.ndim - 2)


def test_ratios_of_separate_classifiers_keep_their_axis():
    truth, model, policy = linear_gaussian()
    starts = truth.initial_states(40, generator())
    arguments = {"horizon": 4, "rollouts": 50, "seed": 1}
    separate = Separate(truth, model)
    one = simulate(policy, model, starts, ratio=separate.exact, draws=3, **arguments)
    three = simulate(policy, model, starts, ratio=separate, draws=3, **arguments)
    assert three.log_ratio.shape == three.conditional_log_ratio.shape == (3, 1, 50, 4)
    torch.testing.assert_close(three.log_ratio[1], one.log_ratio)
    torch.testing.assert_close(three.log_ratio[2], 2 * one.log_ratio)
    torch.testing.assert_close(three.conditional_log_ratio[1], one.conditional_log_ratio)
    with pytest.raises(ope.ConfigError, match=r"3 estimates of each log-ratio.*average"):
        simulate(policy, model, starts, ratio=separate, candidates=2, **arguments)


@pytest.mark.parametrize("uniform", [0.0, 0.3, LAST])
def test_a_candidate_without_weight_is_never_chosen(uniform):
    candidates = torch.tensor([[-torch.inf], [0.0], [-torch.inf]])
    u = torch.tensor([uniform], dtype=torch.float64)
    assert choose(candidates, u)[0].tolist() == [1]


def test_a_policy_gives_the_same_rollouts_alone_and_among_others():
    together, _ = play(3, forces=(0.0, 1.0, 3.0))
    for place, force in enumerate((0.0, 1.0, 3.0)):
        alone, _ = play(3, forces=(force,))
        for name in ("rewards", "alive", "log_ratio"):
            of_many, of_one = getattr(together, name), getattr(alone, name)
            torch.testing.assert_close(of_many[place], of_one[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("candidates", "draws", "message"),
    [
        (0, 1, "candidates is 0; it must be a whole number, 1 or more"),
        (2, 3, "candidates is 2 and draws is 3"),
    ],
)
def test_candidates_that_make_no_sense_are_refused(candidates, draws, message):
    with pytest.raises(ope.ConfigError, match=message):
        play(candidates, draws=draws)


def test_candidates_without_a_ratio_are_refused():
    truth, model, policy = linear_gaussian()
    starts = truth.initial_states(4, generator())
    with pytest.raises(ope.ConfigError, match="chosen by a density ratio, and none was given"):
        simulate(policy, model, starts, horizon=2, rollouts=4, seed=0, candidates=2)

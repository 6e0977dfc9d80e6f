import math
from typing import NamedTuple

import pytest
import torch
from testbeds import ExactRatio, linear_gaussian

import lfiw_ope as ope
from lfiw_ope.dynamics import PER_DRAW, Draws, simulate
from lfiw_ope.stats import (
    Resampling,
    choose,
    cumulate,
    effective_sample_size,
    systematic,
    weigh_populations,
)

LAST = 1 - 2**-53  # the largest number that torch.rand draws
GRID = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def offspring(ancestors):
    """How many slots continue each slot, `[..., n]`."""
    return torch.nn.functional.one_hot(ancestors, ancestors.shape[-1]).sum(-2)


def test_offspring_lie_within_one_of_their_expectation():
    log_weight = 2 * torch.randn((3, 40, 50), generator=generator(), dtype=torch.float64)
    uniform = torch.rand((3, 40), generator=generator(1), dtype=torch.float64)
    ancestors = systematic(log_weight, uniform)
    wanted = 50 * torch.softmax(log_weight, -1)
    assert ((offspring(ancestors) - wanted).abs() < 1).all()
    assert (ancestors.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(systematic(log_weight + 1000, uniform), ancestors)


def test_offspring_are_unbiased():
    log_weight = torch.randn(7, generator=generator(), dtype=torch.float64)
    found = offspring(systematic(log_weight.expand(len(GRID), 7), GRID)).double().mean(0)
    # A slot's count jumps at two values of u at most, so the midpoint rule errs by one grid step.
    wanted = 7 * torch.softmax(log_weight, -1)
    assert (found - wanted).abs().max() <= 1 / len(GRID)


@pytest.mark.parametrize("uniform", [0.0, 0.3, LAST])
def test_a_slot_without_weight_is_never_continued(uniform):
    u = torch.tensor(uniform, dtype=torch.float64)
    zero = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf])
    assert set(systematic(zero, u).tolist()) == {1, 3}
    alone = torch.tensor([-torch.inf, -3000.0, -torch.inf])
    assert systematic(alone, u).tolist() == [1, 1, 1]
    many = torch.full((100_000,), -torch.inf).index_fill(0, torch.tensor([77]), 2.0)
    assert (systematic(many, u) == 77).all()
    candidates = torch.tensor([[-torch.inf], [0.0], [-torch.inf]])
    assert choose(candidates, u[None])[0].tolist() == [1]


def test_equal_weights_keep_every_slot():
    equal = torch.full((64,), -5.0)
    assert systematic(equal, torch.tensor(0.5, dtype=torch.float64)).tolist() == [*range(64)]


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


def play(resampling, *, forces=(0.0, 1.0), n=60, slope=3.0, draws=1, horizon=8, seed=0):
    model = Labels(slope)
    model.rows, model.candidates = n, resampling.candidates
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
        resampling=resampling,
    )
    return rollout, torch.stack(model.seen)


def test_one_candidate_and_no_share_are_the_plain_rollout():
    plain, kept = play(Resampling())[0], play(Resampling(below=0.0, populations=5))[0]
    assert plain.log_weight is None
    assert plain.ancestors is None
    for name in ("rewards", "alive", "log_ratio", "bounded_share"):
        assert torch.equal(getattr(plain, name), getattr(kept, name))
    torch.testing.assert_close(kept.log_weight, cumulate(plain.log_ratio), rtol=0, atol=1e-12)
    own = torch.arange(60)[None, :, None].expand_as(kept.ancestors)
    assert torch.equal(kept.ancestors, own)


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
    simulate(policy, counted, starts, resampling=Resampling(candidates=16), **arguments)
    assert counted.drawn == [16] * 6
    assert counted.samples == 0


def test_a_rollout_goes_on_from_the_candidate_that_was_chosen():
    rollout, seen = play(Resampling(candidates=6), n=400)
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


def by_hand(rollout, increments, below, populations):
    """SMC's weights and the slots that may continue, one policy, step and population at a time."""
    policies, n, steps = rollout.rewards.shape
    size = n // populations
    log_weight = torch.zeros((policies, n, steps), dtype=torch.float64)
    resampled = torch.zeros((policies, populations, steps), dtype=torch.bool)
    for p in range(policies):
        for r in range(populations):
            mine = slice(r * size, (r + 1) * size)
            now = torch.zeros(size, dtype=torch.float64)
            for t in range(steps):
                now = now + increments[p, mine, t]
                log_weight[p, mine, t] = now
                slots = rollout.ancestors[p, mine, t] - r * size
                if effective_sample_size(now) < below * size and t + 1 < steps:
                    assert ((offspring(slots) - size * torch.softmax(now, 0)).abs() < 1).all()
                    now = torch.full_like(now, float(now.exp().mean().log()))
                    resampled[p, r, t] = True
                else:
                    assert torch.equal(slots, torch.arange(size))
    return log_weight, resampled


@pytest.mark.parametrize("below", [0.6, 1.0])
@pytest.mark.parametrize("how", [{}, {"candidates": 3}, {"conditional": True}], ids=str)
def test_populations_resample_by_themselves_and_carry_their_mean_weight(below, how):
    draws = 5 if "conditional" in how else 1
    rollout, seen = play(Resampling(below=below, populations=4, **how), draws=draws)
    of = rollout.conditional_log_ratio if draws > 1 else rollout.log_ratio
    log_weight, resampled = by_hand(rollout, of, below, populations=4)
    torch.testing.assert_close(rollout.log_weight, log_weight, rtol=0, atol=1e-9)
    assert resampled.any()
    if below < 1 and not how:
        assert not torch.equal(resampled[0], resampled[1])  # each policy by its own weights
        assert not torch.equal(resampled[:, 0], resampled[:, 1])  # and each population
    reward, alive = rollout.rewards.movedim(-1, 0), rollout.alive.movedim(-1, 0)
    for t in range(7):
        ancestors = rollout.ancestors[..., t]
        reached = torch.where(alive[t], reward[t], torch.nan).gather(-1, ancestors)
        going_on = (alive[t] & ~(reward[t] > 0.95)).gather(-1, ancestors)
        assert torch.equal(alive[t + 1], going_on)
        assert torch.equal(seen[t + 1][going_on], reached[going_on])
    ended = ~rollout.alive
    assert ended.any()
    assert (rollout.rewards[ended] == 0).all()
    assert (rollout.log_ratio[ended] == 0).all()


@pytest.mark.parametrize(
    "resampling",
    [
        Resampling(candidates=3),
        Resampling(below=0.6, populations=4),
        Resampling(below=0.8, candidates=2),
    ],
    ids=str,
)
def test_a_policy_gives_the_same_rollouts_alone_and_among_others(resampling):
    together, _ = play(resampling, forces=(0.0, 1.0, 3.0))
    for place, force in enumerate((0.0, 1.0, 3.0)):
        alone, _ = play(resampling, forces=(force,))
        for name in ("rewards", "alive", "log_ratio", "log_weight", "ancestors"):
            of_many, of_one = getattr(together, name), getattr(alone, name)
            if of_one is None:
                assert of_many is None
            else:
                torch.testing.assert_close(of_many[place], of_one[0], rtol=0, atol=1e-6)


def test_the_conditional_ratio_is_not_what_smc_goes_by_unless_asked():
    plain, asked = (play(Resampling(below=0.0, conditional=c), draws=4)[0] for c in (False, True))
    torch.testing.assert_close(plain.log_weight, cumulate(plain.log_ratio))
    torch.testing.assert_close(asked.log_weight, cumulate(plain.conditional_log_ratio))


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
    for resampling in (Resampling(candidates=2), Resampling(below=0.5)):
        with pytest.raises(ope.ConfigError, match=r"3 estimates of each log-ratio.*average"):
            simulate(policy, model, starts, ratio=separate, resampling=resampling, **arguments)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidates": 0}, "candidates is 0; it must be a whole number, 1 or more"),
        ({"below": 1.5}, r"below is 1.5; it must be a number, in \[0, 1\]"),
        ({"populations": 4}, "below a share"),
        ({"conditional": True}, "below a share"),
        ({"below": 0.5, "conditional": True, "candidates": 2}, "use one or the other"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ope.ConfigError, match=message):
        Resampling(**wrong)


@pytest.mark.parametrize(
    ("resampling", "settings", "message"),
    [
        (Resampling(candidates=2), {"draws": 3}, "candidates is 2 and draws is 3"),
        (Resampling(below=0.5, conditional=True), {}, "needs 2 or more draws, and draws is 1"),
        (Resampling(below=0.5, populations=7), {}, "60 rollouts cannot be cut into 7 populations"),
    ],
)
def test_resampling_that_does_not_fit_the_simulation_is_refused(resampling, settings, message):
    with pytest.raises(ope.ConfigError, match=message):
        play(resampling, **settings)


def test_resampling_without_a_ratio_is_refused():
    truth, model, policy = linear_gaussian()
    starts = truth.initial_states(4, generator())
    with pytest.raises(ope.ConfigError, match="needs a density ratio"):
        simulate(
            policy, model, starts, horizon=2, rollouts=4, seed=0, resampling=Resampling(below=0.5)
        )


def test_a_ratio_that_is_not_a_number_is_left_for_the_weights_to_refuse():
    rollout, _ = play(Resampling(below=0.5), slope=math.nan)
    assert rollout.log_weight.isnan().any()
    with pytest.raises(ope.DivergedError, match="log-weights are not finite"):
        weigh_populations(
            rollout.rewards[0], rollout.log_weight[0], rollout.ancestors[0], populations=1
        )

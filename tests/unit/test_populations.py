import math

import numpy as np
import pytest
import torch

from lfiw_ope.core import DivergedError
from lfiw_ope.stats import (
    LEAST_POPULATIONS_FOR_A_STANDARD_ERROR,
    Weighting,
    effective_sample_size,
    trace,
    weigh,
    weigh_populations,
)

FORMS = [(form, sn) for form in ("trajectory", "stepwise") for sn in (True, False)]


def slots(n=24, steps=6, populations=6, spread=0.5, resampled=0.4, seed=0):
    """Rewards, log-weights and ancestors that a population could have, `[n, T]`."""
    rng = np.random.default_rng(seed)
    size = n // populations
    ancestors = np.tile(np.arange(n)[:, None], (1, steps))
    for t in range(steps - 1):
        for r in range(populations):
            if rng.random() < resampled:
                mine = slice(r * size, (r + 1) * size)
                ancestors[mine, t] = r * size + np.sort(rng.integers(size, size=size))
    log_weight = np.cumsum(spread * rng.normal(size=(n, steps)), 1)
    return (torch.tensor(x) for x in (rng.normal(size=(n, steps)), log_weight, ancestors))


def followed(ancestors, i):
    """The slots that final slot i comes from, one step at a time."""
    steps = ancestors.shape[1]
    path = [i]
    for t in range(steps - 2, -1, -1):
        path.append(int(ancestors[path[-1], t]))
    return path[::-1]


def test_values_are_traced_along_the_ancestry():
    rewards, _, ancestors = slots()
    found = trace(rewards, ancestors)
    for i in range(len(rewards)):
        expected = [float(rewards[s, t]) for t, s in enumerate(followed(ancestors, i))]
        assert found[i].tolist() == expected
    batched = trace(torch.stack((rewards, 2 * rewards)), torch.stack((ancestors, ancestors)))
    assert torch.equal(batched[1], 2 * found)


def naive(rewards, log_weight, ancestors, form, self_normalised):
    n, steps = rewards.shape
    total = 0.0
    for t in range(steps):
        met = steps - 1 if form == "trajectory" else t
        weight = [math.exp(log_weight[i, met]) for i in range(n)]
        of = [followed(ancestors, i)[t] if form == "trajectory" else i for i in range(n)]
        norm = sum(weight) if self_normalised else n
        total += sum(w * float(rewards[s, t]) for w, s in zip(weight, of, strict=True)) / norm
    return total


@pytest.mark.parametrize(("form", "self_normalised"), FORMS)
def test_the_value_follows_its_definition(form, self_normalised):
    given = [*slots()]
    found = weigh_populations(*given, populations=6, form=form, self_normalised=self_normalised)
    assert found.value == pytest.approx(naive(*given, form, self_normalised), abs=1e-12)
    assert found.log_weights.exp().tolist() == pytest.approx(
        torch.softmax(given[1][:, -1], 0).tolist()
    )


@pytest.mark.parametrize(("form", "self_normalised"), FORMS)
def test_rollouts_on_their_own_are_weighed_as_independent(form, self_normalised):
    """Each its own population and none resampled: nothing is left of SMC but the weights."""
    rewards, log_weight, ancestors = slots(n=200, populations=200, resampled=0.0)
    found = weigh_populations(
        rewards,
        log_weight,
        ancestors,
        populations=200,
        form=form,
        self_normalised=self_normalised,
    )
    log_ratio = torch.diff(log_weight, prepend=torch.zeros(200, 1))
    plain = weigh(rewards, log_ratio, Weighting(form=form, self_normalised=self_normalised))
    assert found.value == pytest.approx(plain.value, abs=1e-9)
    assert found.standard_error == pytest.approx(plain.mc_standard_error, rel=1e-9)
    torch.testing.assert_close(found.log_weights, plain.log_weights)
    torch.testing.assert_close(found.ess_by_step, plain.ess_by_step)
    assert found.resampled == 0


@pytest.mark.parametrize("form", ["trajectory", "stepwise"])
def test_unnormalised_estimates_are_the_mean_over_populations(form):
    rewards, log_weight, ancestors = slots()
    together = weigh_populations(
        rewards, log_weight, ancestors, populations=6, form=form, self_normalised=False
    )
    of_each = [
        weigh_populations(
            rewards[rows],
            log_weight[rows],
            ancestors[rows] - rows.start,
            populations=1,
            form=form,
            self_normalised=False,
        )
        for rows in (slice(4 * r, 4 * r + 4) for r in range(6))
    ]
    values = np.array([one.value for one in of_each])
    assert together.value == pytest.approx(values.mean())
    assert sum(one.resampled for one in of_each) == together.resampled > 0
    # Populations of weights this far apart are fewer in effect than six.
    equal = weigh_populations(
        rewards, 0 * log_weight, ancestors, populations=6, form=form, self_normalised=False
    )
    assert equal.standard_error is not None


def test_the_standard_error_of_a_mean_over_populations():
    rewards, log_weight, ancestors = slots()
    log_weight = 0 * log_weight
    for self_normalised in (True, False):  # the same, where all weights are one
        found = weigh_populations(
            rewards,
            log_weight,
            ancestors,
            populations=6,
            form="stepwise",
            self_normalised=self_normalised,
        )
        values = rewards.sum(1).view(6, 4).mean(1)
        assert found.standard_error == pytest.approx(float(values.std()) / math.sqrt(6))


def test_the_effective_sample_size_counts_the_lines_that_survive():
    given = [*slots(populations=2, resampled=0.9)]
    found = weigh_populations(*given, populations=2)
    share = torch.softmax(given[1][:, -1], 0)
    for t in range(6):
        on_slot = torch.zeros(24, dtype=torch.float64)
        for i in range(24):
            on_slot[followed(given[2], i)[t]] += share[i]
        assert float(found.ess_by_step[t]) == pytest.approx(1 / float(on_slot.square().sum()))
    assert float(found.ess_by_step[0]) < float(found.ess_by_step[-1]) / 2
    stepwise = weigh_populations(*given, populations=2, form="stepwise")
    torch.testing.assert_close(stepwise.ess_by_step, effective_sample_size(given[1], 0))


def test_no_standard_error_from_a_handful_of_populations():
    rewards, log_weight, ancestors = slots()
    few = int(LEAST_POPULATIONS_FOR_A_STANDARD_ERROR) - 1
    few_of = weigh_populations(rewards, 0 * log_weight, ancestors, populations=few)
    assert few_of.standard_error is None
    enough = weigh_populations(rewards, 0 * log_weight, ancestors, populations=few + 2)
    assert enough.standard_error > 0
    log_weight = torch.zeros_like(log_weight)
    log_weight[:4] += 50  # the first of six populations has all the weight
    alone = weigh_populations(rewards, log_weight, ancestors, populations=6)
    assert alone.standard_error is None


def test_weights_that_overflow_raise():
    rewards, log_weight, ancestors = slots()
    with pytest.raises(DivergedError, match=r"6 populations overflow.*use a self-normalised form"):
        weigh_populations(
            rewards, log_weight + 800, ancestors, populations=6, self_normalised=False
        )
    shifted = weigh_populations(rewards, log_weight + 800, ancestors, populations=6)
    assert shifted.value == pytest.approx(
        weigh_populations(rewards, log_weight, ancestors, populations=6).value
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_raise(value):
    rewards, log_weight, ancestors = slots()
    log_weight[3, 2] = value
    with pytest.raises(DivergedError, match="1 of 144 log-weights are not finite"):
        weigh_populations(rewards, log_weight, ancestors, populations=6)

"""Proper scores of draws against closed forms."""

import math

import pytest
import torch

from lfiw_ope.core import DataError
from lfiw_ope.stats import crps, energy_score


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def crps_of_normal(mean, scale, observed):
    """Gneiting and Raftery 2007, equation 21 with the sign of a loss."""
    z = (observed - mean) / scale
    density = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + math.erf(z / math.sqrt(2)))
    return scale * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))


@pytest.mark.parametrize("observed", [-2.0, 0.3, 1.5])
@pytest.mark.parametrize("count", [2, 16])
def test_crps_of_normal_draws_has_its_closed_form(observed, count):
    """4 standard errors of the mean of 20 000 independent scores."""
    rows = 20_000
    found = crps(0.5 + 2.0 * normal(count, rows), torch.full((rows,), observed))
    expected = crps_of_normal(0.5, 2.0, observed)
    error = float(found.std()) / math.sqrt(rows)
    assert abs(float(found.mean()) - expected) < 4 * error
    # The score of the draws as a distribution of their own has ½ E|X − X'| / K more, where
    # E|X − X'| = 2 σ / √π: the check sees that the score is the fair one.
    assert 2.0 / math.sqrt(math.pi) / count > 4 * error


def test_scores_of_few_and_of_many_draws_have_one_mean():
    """Means over 4000 rows of K = 2 and of K = 64, 3 entries, to 4 standard errors together."""
    rows = 4000
    observed = normal(rows, 3, seed=1)
    found = {k: energy_score(1.5 * normal(k, rows, 3, seed=k), observed) for k in (2, 64)}
    error = math.hypot(*(float(of.std()) / math.sqrt(rows) for of in found.values()))
    means = {k: float(of.mean()) for k, of in found.items()}
    assert abs(means[2] - means[64]) < 4 * error
    # Not fair, they would be apart by ½ E‖X − X'‖ (1 / 2 − 1 / 64) > 0.4 σ: E‖X − X'‖ > 1.6 σ
    # in three entries, with σ = 1.5.
    assert 4 * error < 0.4 * 1.5


def test_the_score_is_the_mean_over_all_pairs():
    draws, observed = normal(5, 7, 2), normal(7, 2, seed=1)
    to_observed = (draws - observed).norm(dim=-1).mean(0)
    pairs = (draws[:, None] - draws).norm(dim=-1).sum((0, 1)) / (5 * 4)
    torch.testing.assert_close(energy_score(draws, observed), to_observed - pairs / 2)


def test_the_score_of_a_number_is_the_crps():
    draws, observed = normal(6, 9), normal(9, seed=1)
    torch.testing.assert_close(
        crps(draws, observed), energy_score(draws[..., None], observed[:, None])
    )


def test_the_truth_scores_best():
    """The score is proper: draws of the observations' own distribution against three others.

    Of 20 000 paired differences, each is above 0 by more than 4 standard errors.
    """
    rows, observed = 20_000, normal(20_000, seed=1)
    own = crps(normal(4, rows), observed)
    for other in (normal(4, rows) + 0.3, 1.3 * normal(4, rows), 0.7 * normal(4, rows)):
        worse = crps(other, observed) - own
        assert float(worse.mean()) > 4 * float(worse.std()) / math.sqrt(rows)


def test_scores_are_float64_of_any_floating_type():
    assert crps(normal(3, 4).float(), normal(4).float()).dtype == torch.float64


@pytest.mark.parametrize(
    ("draws", "observed"), [((1, 5, 2), (5, 2)), ((4, 5, 2), (5, 3)), ((4, 5, 2), (2, 5, 2))]
)
def test_shapes_that_do_not_fit_are_refused(draws, observed):
    with pytest.raises(DataError, match="draws"):
        energy_score(torch.zeros(draws), torch.zeros(observed))


def test_one_draw_has_no_crps():
    with pytest.raises(DataError, match="draws"):
        crps(torch.zeros(1, 3), torch.zeros(3))

"""The noise of a simulated step: each kind against its own residuals."""

import math

import pytest
import torch

import lfiw_ope as ope
from lfiw_ope.core import ConfigError
from lfiw_ope.dynamics import Noise
from lfiw_ope.nn import Standardiser

MEMBERS, ROWS, SIZE = 3, 5, 2
N = 30_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def residuals():
    """`[M, R, D]`, correlated, of a scale of their own for each member, not of mean zero."""
    drawn = torch.randn((MEMBERS, ROWS, SIZE), generator=generator(1))
    drawn[..., 1] = drawn[..., 1] + 0.8 * drawn[..., 0]
    return drawn * torch.tensor([0.5, 1.0, 3.0])[:, None, None] + 1.0


def members(n=N):
    return torch.arange(n) % MEMBERS


def ensemble(noise="bootstrap", **settings):
    one = Standardiser(torch.zeros(2), torch.ones(2))
    settings["fit"] = ope.FitConfig()  # float32 on every machine
    config = ope.DynamicsConfig(members=MEMBERS, hidden=(8,), noise=noise, **settings)
    return ope.EnsembleDynamics(
        config,
        one,
        Standardiser(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.1])),
        (torch.full((2,), -math.inf), torch.full((2,), math.inf)),
        state_size=1,
        learns_termination=False,
        generator=generator(2),
    ).requires_grad_(False)


def rows(n):
    return torch.full((n, 1), 0.2), torch.full((n, 1), -0.4)


def test_none_adds_nothing(residuals):
    assert Noise("none").draw(members(), SIZE, generator()) is None
    assert Noise("none", residuals).draw(members(), SIZE, generator()) is None
    dynamics = ensemble("none")
    state, action = rows(60)
    mean = dynamics.targets.inverse(dynamics.member_outputs(state[:1], action[:1]).mean[:, 0])
    mean[:, :-1] += state[0]
    drawn = dynamics.sample(state, action, generator())
    found = torch.cat((drawn.next_state, drawn.reward[:, None]), 1)
    distance = (found[:, None] - mean).abs().amax(-1).amin(1)
    assert float(distance.max()) < 1e-5


@pytest.mark.parametrize("kind", ["gaussian", "bootstrap", "heteroscedastic"])
def test_a_scale_of_zero_adds_nothing(residuals, kind):
    noise = Noise(kind, None if kind == "heteroscedastic" else residuals, scale=0.0)
    assert noise.draw(members(), SIZE, generator(), torch.zeros(N, SIZE)) is None


def test_bootstrap_draws_are_rows_of_the_member_s_own_bank_equally_often(residuals):
    drawn = Noise("bootstrap", residuals).draw(members(), SIZE, generator())
    matches = (drawn[:, None, None] == residuals).all(-1)  # [N, M, R]
    own = matches[torch.arange(N), members()]
    assert (own.sum(1) == 1).all()
    assert int(matches.sum()) == N  # and no row of another member's
    # Each of R rows has the share 1 / R of a member's N / M draws: 4 standard errors of a share.
    error = math.sqrt((1 / ROWS) * (1 - 1 / ROWS) / (N / MEMBERS))
    for member in range(MEMBERS):
        share = own[members() == member].double().mean(0)
        assert (share - 1 / ROWS).abs().max() < 4 * error


def test_gaussian_noise_has_the_residuals_second_moment(residuals):
    drawn = Noise("gaussian", residuals).draw(members(), SIZE, generator()).double()
    flat = residuals.double().flatten(0, 1)
    moment = flat.T @ flat / len(flat)
    moment.diagonal().mul_(1 + 1e-3)  # the ridge that `cholesky_factor` adds
    # An average of N products x_i x_j of a normal vector has the variance
    # (M_ii M_jj + M_ij²) / N: 4 standard errors of each entry, and of the mean 0.
    variance = moment.diagonal()
    error = ((torch.outer(variance, variance) + moment.square()) / N).sqrt()
    assert ((drawn.T @ drawn / N - moment).abs() < 4 * error).all()
    assert (drawn.mean(0).abs() < 4 * (variance / N).sqrt()).all()
    # The residuals' mean is in the second moment and not in the covariance: this can fail.
    centred = torch.cov(flat.T, correction=0)
    assert ((moment - centred).diagonal() > 4 * error.diagonal()).all()


def test_gaussian_noise_of_entries_that_move_as_one_is_finite():
    together = torch.randn((1, 50, 1), generator=generator()).expand(1, 50, 2)
    drawn = Noise("gaussian", together).draw(torch.zeros(1000, dtype=torch.int64), 2, generator())
    assert torch.corrcoef(drawn.T)[0, 1] > 0.99


@pytest.mark.parametrize("kind", ["gaussian", "bootstrap", "heteroscedastic"])
def test_the_scale_multiplies_the_noise(residuals, kind):
    bank = None if kind == "heteroscedastic" else residuals
    log_scale = torch.randn((N, SIZE), generator=generator(3))
    one, larger = (
        Noise(kind, bank, scale=scale).draw(members(), SIZE, generator(), log_scale)
        for scale in (1.0, 2.5)
    )
    assert one.abs().max() > 0
    torch.testing.assert_close(larger, 2.5 * one)


def test_heteroscedastic_noise_has_the_predicted_scale():
    log_scale = torch.tensor([-1.0, 0.4]).expand(N, SIZE)
    drawn = Noise("heteroscedastic").draw(members(), SIZE, generator(), log_scale)
    # The standard deviation of N normal draws has the relative standard error 1 / √(2N).
    relative = drawn.std(0) / log_scale[0].exp() - 1
    assert (relative.abs() < 4 / math.sqrt(2 * N)).all()


def test_policies_share_the_noise_along_the_rows(residuals):
    log_scale = torch.zeros((4, 10, SIZE))
    drawn = Noise("heteroscedastic").draw(members(10), SIZE, generator(), log_scale)
    assert drawn.shape == (4, 10, SIZE)
    assert (drawn == drawn[:1]).all()
    assert Noise("bootstrap", residuals).draw(members(10), SIZE, generator()).shape == (10, SIZE)


def test_a_sampled_step_has_the_noise_of_the_member_that_predicts_it(residuals):
    """Draws at one (s, a), for each member: its mean plus rows of its own bank."""
    dynamics = ensemble()
    dynamics.noise = Noise("bootstrap", residuals)
    state, action = rows(300)
    mean = dynamics.member_outputs(state[:1], action[:1]).mean  # [M, 1, D], standardised
    possible = dynamics.targets.inverse(mean + residuals).flatten(0, 1)
    possible[:, :-1] += state[0]
    many = dynamics.draw(state[None], action[None], 2, generator())
    for drawn in (
        dynamics.sample(state, action, generator()),
        many._replace(next_state=many.next_state.flatten(0, 2), reward=many.reward.flatten()),
    ):
        found = torch.cat((drawn.next_state, drawn.reward[:, None]), 1)
        distance = (found[:, None] - possible).abs().amax(-1)
        assert float(distance.amin(1).max()) < 1e-4
        # Every one of the M · R possibilities is drawn: (1 − 1 / 15)^300 = 1e-9 for each to miss.
        assert len(distance.argmin(1).unique()) == MEMBERS * ROWS


def test_networks_refuse_a_noise_that_they_were_not_trained_for(residuals):
    own, shared = ensemble("heteroscedastic"), ensemble("gaussian")
    shared.noise = Noise("gaussian", residuals)
    for kind in ("none", "gaussian", "bootstrap"):
        assert shared.with_noise(kind).noise.kind == kind
        with pytest.raises(ConfigError, match="kind"):
            own.with_noise(kind)
    with pytest.raises(ConfigError, match="kind"):
        shared.with_noise("heteroscedastic")
    assert own.with_noise("heteroscedastic", 0.5).noise.scale == 0.5


def test_noise_without_residuals_cannot_be_drawn_from_them():
    for kind in ("gaussian", "bootstrap"):
        with pytest.raises(ConfigError, match="residuals"):
            Noise(kind)
        with pytest.raises(ConfigError, match="residuals"):
            ensemble("none").with_noise(kind)


def test_another_noise_shares_the_parameters_and_leaves_the_model_as_it_was(residuals):
    dynamics = ensemble(noise_scale=0.5)
    dynamics.noise = Noise("bootstrap", residuals, scale=0.5)
    before = dynamics.sample(*rows(20), generator())
    other = dynamics.with_noise("none")
    scaled = dynamics.with_noise("gaussian", 2.0)
    assert (dynamics.noise.kind, dynamics.noise.scale) == ("bootstrap", 0.5)
    assert (other.noise.kind, other.noise.scale) == ("none", 0.5)
    assert (scaled.noise.kind, scaled.noise.scale) == ("gaussian", 2.0)
    for mine, theirs in zip(dynamics.network.parameters(), other.network.parameters(), strict=True):
        assert mine is theirs
    assert torch.equal(dynamics.sample(*rows(20), generator()).next_state, before.next_state)
    assert not torch.equal(other.sample(*rows(20), generator()).next_state, before.next_state)
    # Back again: the residuals were kept.
    again = other.with_noise("bootstrap")
    assert torch.equal(again.sample(*rows(20), generator()).next_state, before.next_state)


def test_a_member_s_noise_is_its_own_residuals_and_all_members_covariance(residuals):
    one = Noise("bootstrap", residuals, scale=2.0).of_member(2)
    assert torch.equal(one.residuals, residuals[2:])
    assert (one.kind, one.scale) == ("bootstrap", 2.0)
    gaussian = Noise("gaussian", residuals)
    assert torch.equal(gaussian.of_member(0).factor, gaussian.factor)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"kind": "residual"}, "noise"),
        ({"kind": "auto"}, "noise"),
        ({"kind": "none", "scale": -0.1}, "noise_scale"),
        ({"kind": "none", "scale": math.nan}, "noise_scale"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong, name):
    with pytest.raises(ConfigError, match=name):
        Noise(**wrong)

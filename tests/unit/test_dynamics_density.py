"""The dynamics' log-density against what its draws and its integral say."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal

import lfiw_ope as ope
from lfiw_ope.core import ConfigError
from lfiw_ope.dynamics import PER_DRAW, Draws, Noise
from lfiw_ope.nn import Standardiser


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def model(states=1, width=3.0, pinned=(), noise="gaussian", **kwargs):
    """An ensemble of random networks, in units far from 1; `width` is the bounds' distance."""
    entries = states + 1
    scale = torch.tensor([0.3, 5.0, 0.05, 2.0])[:entries]
    mean = torch.tensor([0.1, -4.0, 0.02, 1.0])[:entries]
    limit = width * scale
    limit[list(pinned)] = 0.0
    dynamics = ope.EnsembleDynamics(
        ope.DynamicsConfig(
            members=3,
            hidden=(8,),
            activation="tanh",
            layer_norm=False,
            noise=noise,
            fit=ope.FitConfig(),  # float32 on every machine
        ),
        Standardiser(torch.zeros(states + 1), torch.ones(states + 1)),
        Standardiser(mean, scale),
        (mean - limit, mean + limit),
        state_size=states,
        generator=generator(1),
        **{"learns_termination": False} | kwargs,
    )
    for parameter in dynamics.network.weights:
        parameter.data.mul_(3.0)  # so that members differ
    if noise == "gaussian":
        correlated = 0.8 * (torch.eye(entries) + 0.6 * torch.ones(entries, entries).tril(-1))
        # Rows whose second moment is `correlated @ correlated.T`.
        dynamics.noise = Noise("gaussian", entries**0.5 * correlated.T[None])
    return dynamics.requires_grad_(False)


def at(states, n=1):
    return torch.full((n, states), 0.1), torch.full((n, 1), -0.4)


def transition(next_state, reward, terminated=None):
    still = torch.zeros(reward.shape, dtype=torch.bool)
    return Draws(next_state, reward, still if terminated is None else terminated, still)


def midpoints(low, high, points=400):
    """Midpoints between two ends, and their distance."""
    width = float(high - low) / points
    return low + width * (torch.arange(points) + 0.5), width


def known(state, action, next_state):  # noqa: ARG001
    return 7 * next_state[..., 0]


@pytest.mark.parametrize("noise", ["gaussian", "heteroscedastic"])
def test_one_entry_integrates_to_one(noise):
    """Over s', where a rule says the reward; the ends are 20 standard deviations away."""
    dynamics = model(width=20.0, noise=noise, reward=known)
    value, step = midpoints(dynamics.low[0], dynamics.high[0], 4000)
    drawn = transition(value[:, None, None], torch.full((len(value), 1), torch.nan))
    density = dynamics.log_density(*at(1), drawn)[:, 0].exp()
    assert float(density.sum()) * step == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("noise", ["gaussian", "heteroscedastic"])
def test_two_entries_integrate_to_one(noise):
    dynamics = model(width=12.0, noise=noise)
    (s, ds), (r, dr) = (midpoints(dynamics.low[i], dynamics.high[i]) for i in (0, 1))
    grid = torch.cartesian_prod(s, r)
    density = dynamics.log_density(*at(1), transition(grid[:, None, :1], grid[:, None, 1])).exp()
    assert float(density.sum()) * ds * dr == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("width", [1.0, 10.0])
def test_the_density_is_that_of_the_draw_before_it_is_clipped(width):
    bounded, free = model(2, width), model(2, math.inf)
    drawn = free.sample(*at(2, 100), generator())
    torch.testing.assert_close(
        bounded.log_density(*at(2, 100), drawn), free.log_density(*at(2, 100), drawn)
    )


def test_a_correlated_gaussian_is_scipy_s():
    dynamics = model(2, math.inf)
    drawn = dynamics.sample(*at(2, 20), generator())
    outputs = dynamics.member_outputs(*at(2, 1))
    point = torch.cat((drawn.next_state, drawn.reward[:, None]), 1).double()
    scale, factor = dynamics.targets.scale.double(), dynamics.noise.factor.double()
    covariance = (factor @ factor.T) * torch.outer(scale, scale)
    densities = []
    for m in range(3):
        mean = dynamics.targets.inverse(outputs.mean[m, 0]).double()
        mean[:2] += at(2)[0][0]
        densities.append(multivariate_normal.pdf(point, mean, covariance))
    wanted = torch.as_tensor(sum(densities) / 3).log()
    torch.testing.assert_close(
        dynamics.log_density(*at(2, 20), drawn), wanted, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("noise", ["gaussian", "heteroscedastic"])
@pytest.mark.parametrize("width", [10.0])
def test_draws_follow_the_density(width, noise):
    """E_{p_θ}[g / p_θ] is g's mass between the bounds, for a narrow g about a member's mean."""
    dynamics = model(2, width, noise=noise)
    n = 20_000
    state, action = at(2, n)
    drawn = dynamics.sample(state, action, generator())
    log_density = dynamics.log_density(state, action, drawn)
    assert log_density.isfinite().all()
    outputs = dynamics.member_outputs(*at(2))
    narrow = 0.4 if outputs.log_scale is None else 0.5 * outputs.log_scale[0, 0].exp()
    centre = dynamics.targets.inverse(outputs.mean[0, 0])
    centre[:2] += state[0]
    g = torch.distributions.Normal(centre.double(), narrow * dynamics.targets.scale.double())
    point = torch.cat((drawn.next_state, drawn.reward[:, None]), 1).double()
    inside = ((point > dynamics.low) & (point < dynamics.high)).all(1)
    ratio = (g.log_prob(point).sum(1) - log_density).exp() * inside
    mass = float((g.cdf(dynamics.high) - g.cdf(dynamics.low)).prod())
    error = float(ratio.std()) / n**0.5
    assert error < 0.05 * mass
    assert abs(float(ratio.mean()) - mass) < 3.5 * error


def test_an_entry_that_never_varies_adds_nothing():
    dynamics = model(2, 10.0, pinned=[1])
    drawn = dynamics.sample(*at(2, 100), generator())
    assert (drawn.next_state[:, 1] == dynamics.low[1]).all()
    log_density = dynamics.log_density(*at(2, 100), drawn)
    # The others' own density: the same model without its bounds, integrated over that entry.
    free = model(2, math.inf)
    value = torch.linspace(-80, 80, 4001)
    wide = drawn.next_state.expand(len(value), -1, -1).clone()
    wide[:, :, 1] = value[:, None]
    over = free.log_density(*at(2, 100), transition(wide, drawn.reward.expand(len(value), -1)))
    marginal = over.exp().sum(0) * 160 / 4000
    torch.testing.assert_close(log_density.exp(), marginal, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("noise", ["none", "bootstrap"])
def test_noise_without_a_density_is_refused(noise):
    dynamics = model(2)
    drawn = dynamics.sample(*at(2, 4), generator())
    with pytest.raises(ConfigError, match=f"noise='{noise}'"):
        dynamics.with_noise(noise).log_density(*at(2, 4), drawn)


def test_the_noise_s_scale_is_in_the_density():
    """Twice the noise is the density of a model whose residuals are twice as large."""
    dynamics = model(2, 2.0)
    larger = model(2, 2.0)
    larger.noise = Noise("gaussian", 2 * dynamics.noise.residuals)
    drawn = larger.sample(*at(2, 50), generator())
    found = dynamics.with_noise("gaussian", 2.0).log_density(*at(2, 50), drawn)
    torch.testing.assert_close(found, larger.log_density(*at(2, 50), drawn), rtol=1e-4, atol=1e-4)
    assert (found - dynamics.log_density(*at(2, 50), drawn)).abs().max() > 0.1


@pytest.mark.parametrize("lead", [(), (2,)])
def test_learned_termination_is_of_each_member(lead):
    """Probabilities of both outcomes add up to the rest's density; a K axis is evaluated alike."""
    dynamics = model(2, 2.0, learns_termination=True)
    state, action = (values.expand(*lead, -1, -1) for values in at(2, 6))
    drawn = dynamics.draw(state.view(-1, 6, 2), action.view(-1, 6, 1), 5, generator())
    fields = (getattr(drawn, name) for name in PER_DRAW)
    drawn = Draws(*(field.view(5, *lead, 6, *field.shape[3:]) for field in fields))
    both = [
        dynamics.log_density(state, action, drawn._replace(terminated=torch.full_like(t, ended)))
        for t in (drawn.terminated,)
        for ended in (True, False)
    ]
    never = model(2, 2.0)
    outputs = dynamics.member_outputs(state[..., :, :].reshape(-1, 2), action.reshape(-1, 1))
    chance = outputs.termination_logit.sigmoid()
    assert chance.std(0).min() > 0.01  # members differ, so the mixture is no product
    assert both[0].shape == (5, *lead, 6)
    mixed = dynamics.log_density(state, action, drawn)
    expected = torch.where(drawn.terminated, *both)
    torch.testing.assert_close(mixed, expected)
    for k in range(5):
        one = Draws(*(getattr(drawn, name)[k] for name in PER_DRAW))
        torch.testing.assert_close(dynamics.log_density(state, action, one), mixed[k])
    ended = drawn._replace(terminated=torch.ones_like(drawn.terminated))
    assert (never.log_density(state, action, ended) == -math.inf).all()


def test_the_share_of_terminated_draws_is_the_density_s():
    """At one (s, a), E[1{ended} | s', r] by the density, averaged over draws, is their share."""
    dynamics = model(1, 3.0, learns_termination=True)
    n = 20_000
    drawn = dynamics.sample(*at(1, n), generator())
    log = [
        dynamics.log_density(*at(1, n), drawn._replace(terminated=torch.full((n,), ended)))
        for ended in (True, False)
    ]
    off = drawn.terminated.double() - torch.sigmoid(log[0] - log[1])
    assert abs(float(off.mean())) < 4 * float(off.std()) / n**0.5
    # And along s', which tells the members apart.
    weighed = off * drawn.next_state[:, 0]
    assert abs(float(weighed.mean())) < 4 * float(weighed.std()) / n**0.5


def test_the_ensemble_s_induced_dynamics_has_a_density():
    class Flat:
        def log_ratio(self, state, action, drawn):  # noqa: ARG002
            return torch.full_like(drawn.reward, 0.25)

    dynamics = model(2, 2.0)
    drawn = dynamics.sample(*at(2, 5), generator())
    found = ope.InducedDynamics(dynamics, Flat()).unnormalised_log_density(*at(2, 5), drawn)
    torch.testing.assert_close(found, dynamics.log_density(*at(2, 5), drawn) + 0.25)

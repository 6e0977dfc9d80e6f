"""Log-probabilities of single action entries, as the environment executes them.

An executed entry has a density between its bounds and, where a draw is clipped or a tanh rounds
to 1, a probability of lying exactly on a bound. Each function gives the log of the one or of the
other, entry by entry, with respect to the same measure: Lebesgue between the bounds plus a unit
mass on each bound. So ratios of two policies are right on the bounds too, whatever their kind.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.special import log_ndtr


class Bounds(NamedTuple):
    """Action bounds in a shape that meets the actions; infinite where there are none."""

    low: Tensor
    high: Tensor


def log_normal(mean: Tensor, log_std: Tensor, value: Tensor) -> Tensor:
    """log N(value; mean, σ²)"""
    z = (value - mean) * torch.exp(-log_std)
    return -0.5 * z.square() - log_std - 0.5 * math.log(2.0 * math.pi)


def log_clipped_normal(mean: Tensor, log_std: Tensor, action: Tensor, bounds: Bounds) -> Tensor:
    """Of clip(N(mean, σ²), low, high): the censored normal distribution.

    The density inside, log Φ((low − mean)/σ) at the lower bound and log Φ((mean − high)/σ) at the
    upper; an action beyond a bound counts as on it, which is where the environment executes it.
    """
    on_low, on_high = action <= bounds.low, action >= bounds.high
    at_low = _log_mass(torch.where(on_low, bounds.low - mean, 0.0), log_std)
    at_high = _log_mass(torch.where(on_high, mean - bounds.high, 0.0), log_std)
    density = log_normal(mean, log_std, action)
    found = _piecewise(density, on_low, at_low, on_high, at_high)
    return torch.where(bounds.low == bounds.high, 0.0, found)  # nothing is left to chance


def _log_mass(reach: Tensor, log_std: Tensor) -> Tensor:
    """log Φ(reach / σ), in float64: in float32 its gradient is wrong beyond 1000 σ.

    A reach of 0 where there is none to speak of: an infinite one would make the gradient NaN.
    """
    mass: Tensor = log_ndtr(reach.double() * torch.exp(-log_std).double())
    return mass.to(reach.dtype)


def squash(value: Tensor, bounds: Bounds) -> Tensor:
    """low + ½ (tanh(value) + 1)(high − low), and the bound itself where tanh rounds to ±1."""
    unit, edge = torch.tanh(value), _edge(bounds)
    action = bounds.low + 0.5 * (unit + 1.0) * (bounds.high - bounds.low)
    action = torch.where(unit >= edge, bounds.high, action)
    return torch.where(unit <= -edge, bounds.low, action)


def log_squashed_normal(mean: Tensor, log_std: Tensor, action: Tensor, bounds: Bounds) -> Tensor:
    """Of `squash(u)`, u ~ N(mean, σ²): log N(u) − log(1 − tanh²u) − log((high − low)/2).

    In float32 tanh reaches ±1 at |u| of 8.3, and there the executed action is the bound itself:
    its log-probability is that of all u beyond, and so stays finite. In float64, since the inverse
    of tanh loses the digits that 1 − tanh does.
    """
    mean, log_std, low, high = (t.double() for t in (mean, log_std, *bounds))
    edge = _edge(bounds).double()
    unit = 2.0 * (action.double() - low) / (high - low) - 1.0
    inside = torch.maximum(torch.minimum(unit, edge), -edge)
    log_slope = torch.log((1.0 - inside) * (1.0 + inside)) + torch.log(0.5 * (high - low))
    density = log_normal(mean, log_std, torch.atanh(inside)) - log_slope
    scale, limit = torch.exp(-log_std), torch.atanh(edge)
    at_low, at_high = log_ndtr((-limit - mean) * scale), log_ndtr((mean - limit) * scale)
    found = _piecewise(density, unit <= -edge, at_low, unit >= edge, at_high)
    return torch.where(low == high, 0.0, found).to(action.dtype)


def _edge(bounds: Bounds) -> Tensor:
    """The least tanh that counts as 1: half a range is resolved as finely as its bound is."""
    largest = torch.maximum(bounds.low.abs(), bounds.high.abs())
    coarseness = (2.0 * largest / (bounds.high - bounds.low)).clamp_min(1.0)
    return 1.0 - torch.finfo(torch.float32).eps * coarseness


def _piecewise(
    inside: Tensor, on_low: Tensor, at_low: Tensor, on_high: Tensor, at_high: Tensor
) -> Tensor:
    return torch.where(on_low, at_low, torch.where(on_high, at_high, inside))

"""The log-density of Gaussian draws that were put back on bounds (a censored normal)."""

import math

import torch
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)

POINTS = 256
"""Of the quasi-random integral over entries that lie on bounds together. With two to five such
entries its logarithm is within 0.01 of SciPy's; with more it is coarser."""

MOST_ENTRIES = 1 << 24
"""Of the factors that rows on bounds take at a time; each row there needs one of its own."""


def censored_log_density(residual: Tensor, side: Tensor, factor: Tensor) -> Tensor:
    """log-density of a draw of N(0, L Lᵀ) of which each entry was clamped to its bounds.

    With respect to the measure that is Lebesgue's between the bounds and counts points on them: the
    log of the density of the entries I inside, plus that of the probability that the others lie on
    or beyond their bounds b given those inside,

        log N(x_I; 0, Σ_II) + log P(±x_B ≥ ±b | x_I)

    One entry on a bound, or several of a diagonal Σ, are exact; several correlated ones are
    integrated numerically (Geweke, Hajivassiliou, Keane; Genz 1992), always with the same points.

    Args:
        residual: `[..., D]` float64, the clamped draw less its mean.
        side: `[..., D]`, 1 on the upper bound, −1 on the lower one, 0 between.
        factor: `[D, D]` float64, L, lower triangular.

    Returns:
        `[...]`
    """
    rows, sides = residual.flatten(0, -2), side.flatten(0, -2)
    white = torch.linalg.solve_triangular(factor, rows.T, upper=False).T
    constant = factor.diagonal().log().sum() + factor.shape[0] * HALF_LOG_TWO_PI
    log_density = -0.5 * white.square().sum(-1) - constant
    covariance = factor @ factor.T
    together = (sides != 0).sum(-1)
    for entries in range(1, int(together.max()) + 1 if together.numel() else 0):
        at = (together == entries).nonzero()[:, 0]
        # The last entry is not drawn, so one alone needs no points.
        uniform = _points(entries - 1, residual)
        most = max(1, MOST_ENTRIES // (factor.numel() + entries * len(uniform)))
        for start in range(0, len(at), most):
            some = at[start : start + most]
            log_density[some] = _with_point_masses(rows[some], sides[some], covariance, uniform)
    found: Tensor = log_density.view(residual.shape[:-1])
    return found


def _with_point_masses(
    residual: Tensor, side: Tensor, covariance: Tensor, uniform: Tensor
) -> Tensor:
    """The same for rows `[B, D]` of which each has b entries on bounds, with `[points, b − 1]`."""
    # Entries inside go first: the rest of a row's own factor then conditions on them.
    order = (side != 0).long().argsort(dim=-1, stable=True)
    residual, side = residual.gather(-1, order), side.gather(-1, order)
    factor = torch.linalg.cholesky(covariance[order[:, :, None], order[:, None, :]])
    scale = factor.diagonal(dim1=1, dim2=2)
    white = torch.linalg.solve_triangular(factor, residual[..., None], upper=False)[..., 0]
    points, drawing = uniform.shape
    inside = residual.shape[-1] - drawing - 1
    log_density = (-0.5 * white.square() - scale.log() - HALF_LOG_TWO_PI)[:, :inside].sum(-1)
    drawn = residual.new_zeros((len(residual), points, drawing + 1))
    log_mass = residual.new_zeros((len(residual), points))
    for i in range(drawing + 1):
        row = factor[:, inside + i, : inside + i]
        known = (row[:, :inside] * white[:, :inside]).sum(-1, keepdim=True)
        known = known + (drawn[..., :i] @ row[:, inside:, None])[..., 0]
        bound = (residual[:, inside + i, None] - known) / scale[:, inside + i, None]
        sign = side[:, inside + i, None]
        # On the upper bound P(e ≥ bound), on the lower one P(e ≤ bound).
        log_mass += torch.special.log_ndtr(-sign * bound)
        if i < drawing:
            level = uniform[:, i] * torch.special.ndtr(-sign * bound)
            beyond = -sign * torch.special.ndtri(level)
            # Where the probability underflows, nearly all of it lies at the bound.
            drawn[..., i] = torch.where(beyond.isfinite(), beyond, bound)
    found: Tensor = log_density + torch.logsumexp(log_mass, -1) - math.log(points)
    return found


def _points(size: int, like: Tensor) -> Tensor:
    """`[points, size]` evenly spread points of the open unit cube, the same at every call."""
    if size == 0:
        return like.new_empty((1, 0))
    sobol = torch.quasirandom.SobolEngine(size, scramble=False)  # type: ignore[no-untyped-call]
    # The first is the origin, which has no quantile.
    points: Tensor = sobol.draw(POINTS, dtype=torch.float64) + 0.5 / POINTS
    return points.to(like.device)


def members_log_density(
    drawn: Tensor,
    bounds: tuple[Tensor, Tensor],
    mean: Tensor,
    scale: Tensor,
    log_scale: Tensor | None,
    factor: Tensor,
) -> Tensor:
    """log-density of draws under each of M networks' Gaussians, clamped to bounds.

    An entry whose bounds are one point is there with certainty, and adds nothing.

    Args:
        drawn: `[K?, ..., n, D]`, in the environment's units, as the bounds are.
        bounds: the lowest and the highest `[D]`.
        mean: `[M, ..., n, D]` float64, each network's, in the environment's units.
        scale: `[D]`, what one unit of the noise is in the environment's.
        log_scale: `[M, ..., n, D]`, of each network's own noise beside; None is 0.
        factor: `[D, D]`, Cholesky factor of the noise, in its own units.

    Returns:
        `[M, K?, ..., n]` float64; −∞ beyond the bounds.
    """
    low, high = bounds
    beyond = ((drawn < low) | (drawn > high)).any(-1)
    free = low < high
    side = (drawn >= high).long()[..., free] - (drawn <= low).long()[..., free]
    inside = (side == 0).double()
    covariance = (factor.double() @ factor.double().T)[free][:, free]
    factor, scale = torch.linalg.cholesky(covariance), scale.double()[free]
    members = []
    for m in range(len(mean)):
        unit = scale if log_scale is None else scale * log_scale[m][..., free].double().exp()
        residual = (drawn.double() - mean[m])[..., free] / unit
        # Densities are in the environment's units; point masses have none.
        units = (inside * unit.log()).sum(-1)
        members.append(censored_log_density(residual, side, factor) - units)
    return torch.stack(members).masked_fill(beyond, -torch.inf)

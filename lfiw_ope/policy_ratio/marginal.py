"""The behaviour's actions without regard to states: what a clone has to beat."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.special import log_ndtr

from lfiw_ope.policies.density import Bounds


def marginal_frequencies(actions: Tensor) -> Tensor:
    """log-frequencies `[A]` of one-hot actions `[R, A]`; each counts half an action more than seen.

    So (Jeffreys' prior) an action that was never seen keeps a probability.
    """
    counts = actions.double().sum(0) + 0.5
    return torch.log(counts / counts.sum())


def marginal_normal(actions: Tensor, bounds: Bounds, *, censored: bool) -> Tensor:
    """(mean, log σ) `[2A]` of the likeliest normal distribution of actions `[R, A]`.

    Args:
        actions: what was drawn, or executed.
        bounds: `[A]` each.
        censored: actions on a bound stand for draws beyond it.
    """
    values = actions.double()
    low, high = (bound.double() for bound in bounds)
    at_low, at_high = values <= low, values >= high
    if not censored or not (at_low | at_high).any():
        log_std = values.std(0, unbiased=False).clamp_min(1e-8).log()
        return torch.cat((values.mean(0), log_std))
    inside = ~(at_low | at_high)
    count = inside.sum(0)
    mean = torch.where(inside, values, 0.0).sum(0) / count.clamp_min(1)
    squares = torch.where(inside, values - mean, 0.0).square().sum(0)
    masses = at_low.sum(0), at_high.sum(0)
    # A bound that nothing lies on does not matter; infinity would make its gradient NaN.
    low, high = (
        torch.where(there > 0, bound, 0.0) for there, bound in zip(masses, (low, high), strict=True)
    )
    start = torch.cat((values.mean(0), values.std(0, unbiased=False).clamp_min(1e-3).log()))

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Of (mean, log σ), and its gradient."""
        point = torch.from_numpy(at.copy()).to(values.device).requires_grad_()
        centre, log_std = point.chunk(2)
        scale = torch.exp(-log_std)
        density = 0.5 * (squares + count * (mean - centre).square()) * scale.square()
        beyond = masses[0] * log_ndtr((low - centre) * scale)
        beyond = beyond + masses[1] * log_ndtr((centre - high) * scale)
        total = (density + count * log_std - beyond).sum() / len(values)
        (gradient,) = torch.autograd.grad(total, point)
        return total.item(), gradient.cpu().numpy()

    # scipy's, since torch's optimizers import its compiler, which takes seconds.
    options = {"maxiter": 100, "ftol": 1e-12, "gtol": 1e-8}
    with torch.enable_grad():
        found = minimize(loss, start.cpu().numpy(), jac=True, method="L-BFGS-B", options=options)
    kept = torch.from_numpy(found.x).to(start)
    return torch.where(kept.isfinite(), kept, start)

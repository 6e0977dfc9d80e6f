"""Pareto smoothing of importance weights, by arviz-stats, which is imported here and only here."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.errors import ConfigError
from lfiw_ope.extras import needed
from lfiw_ope.weights import require_weights

LEAST_WEIGHTS = 25
"""Fewer have a tail of less than five, which nothing can be fitted to."""


MOST_SHAPE = 0.7
"""k̂ above which the paper calls an estimate unreliable."""


class Smoothed(NamedTuple):
    """Smoothed weights, and how heavy their tail was before."""

    log_weight: Tensor  # [n], as large as before in sum
    shape: float | None  # k̂; None where no tail could be fitted


def check_smoothing(count: int) -> Any:
    """That so many weights can be smoothed; arviz-stats' functions on arrays.

    Raises:
        ConfigError: if there are fewer than `LEAST_WEIGHTS` of them.
        MissingDependencyError: if arviz-stats is not installed.
    """
    if count < LEAST_WEIGHTS:
        raise ConfigError(
            f"{count} weights have no tail that could be fitted; Pareto smoothing needs "
            f"{LEAST_WEIGHTS} or more, so simulate more rollouts."
        )
    with needed("Pareto smoothing needs arviz-stats", extra="pareto"):
        from arviz_stats.base import array_stats
    return array_stats


def pareto_smooth(log_weight: Tensor) -> Smoothed:
    """Replace the largest weights by quantiles of a generalised Pareto fitted to them.

    PSIS (Vehtari, Simpson, Gelman, Yao and Gabry, JMLR 2024, arXiv 1507.02646). k̂ is the tail's
    shape: with k the mean of the weights has a finite variance below 1/2 and exists below 1; see
    `MOST_SHAPE`.

    Weights whose tail no generalised Pareto could be fitted to stay as they are, without a k̂: those
    of the tail are all the same or mostly so, or one is beyond all proportion to the others. A
    weight of 0 is none: it stays, and fewer than `LEAST_WEIGHTS` others are left as they are.

    Args:
        log_weight: `[n]`; their sum is kept, so that unnormalised weights stay unnormalised.

    Raises:
        ConfigError: if there are fewer than `LEAST_WEIGHTS` of them.
        DivergedError: if one is NaN or ∞.
        MissingDependencyError: if arviz-stats is not installed.
    """
    array_stats = check_smoothing(len(log_weight))
    every = require_weights(log_weight, "log-weights").double().cpu().numpy()
    carried = every > -np.inf
    values = every[carried]
    if len(values) < LEAST_WEIGHTS:
        return Smoothed(log_weight, None)
    total = np.logaddexp.reduce(values)
    try:
        # It takes log-likelihoods of left-out points, whose negatives are the log-weights.
        with np.errstate(all="ignore"):  # what is not finite is looked for below
            smoothed, shape = array_stats.psislw(total - values)
    except ValueError as error:
        if "the same" not in str(error):
            raise
        return Smoothed(log_weight, None)  # equal weights are as smooth as can be
    # The fit breaks down where a few weights are all there is, or many of the tail are tied.
    if not (np.isfinite(smoothed).all() and np.isfinite(shape)):
        return Smoothed(log_weight, None)
    found = every.copy()  # the log-weights' own memory, where they are float64
    found[carried] = smoothed + total
    kept = torch.from_numpy(found).to(log_weight)
    return Smoothed(kept, float(shape))

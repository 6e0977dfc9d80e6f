"""Proper scores of a predictive distribution that is known by draws; lower is better.

Gneiting and Raftery 2007, "Strictly proper scoring rules, prediction, and estimation". Both scores
are the fair ones (Ferro 2014): unbiased for infinitely many draws, whatever their number, so that
distributions of different spread are compared without a penalty for few draws.
"""

from torch import Tensor

from lfiw_ope.core.errors import DataError


def energy_score(draws: Tensor, observed: Tensor) -> Tensor:
    """E‖X − y‖ − ½ E‖X − X'‖ with X, X' independent draws.

    Args:
        draws: `[K, B, D]`, K >= 2 draws for each of B observations.
        observed: `[B, D]`

    Returns:
        `[B]` float64.

    Raises:
        DataError: if there are fewer than two draws, or the shapes do not fit.

    Example:
        >>> energy_score(torch.zeros(2, 1, 3), torch.ones(1, 3))
        tensor([1.7321], dtype=torch.float64)
    """
    count = len(draws)
    if count < 2 or draws.shape[1:] != observed.shape:
        raise DataError(
            "`draws` must be [K, B, D] with K >= 2 and `observed` [B, D], got "
            f"{list(draws.shape)} and {list(observed.shape)}."
        )
    draws, observed = draws.double(), observed.double()
    error: Tensor = (draws - observed).norm(dim=-1).mean(0)
    # Pair by pair along K: all pairs at once would take K times the draws' memory.
    apart = error.new_zeros(error.shape)
    for i in range(count - 1):
        apart += (draws[i + 1 :] - draws[i]).norm(dim=-1).sum(0)
    return error - apart / (count * (count - 1))


def crps(draws: Tensor, observed: Tensor) -> Tensor:
    """Continuous ranked probability score: the energy score of a number.

    Args:
        draws: `[K, B]`, K >= 2 draws for each of B observations.
        observed: `[B]`

    Returns:
        `[B]` float64, in the units of the observations.

    Raises:
        DataError: if there are fewer than two draws, or the shapes do not fit.

    Example:
        >>> crps(torch.tensor([[0.0], [2.0]]), torch.tensor([1.0]))
        tensor([0.], dtype=torch.float64)
    """
    return energy_score(draws[..., None], observed[..., None])

"""How good estimates v̂ of P policies are, given the true values v: pure functions.

Every function takes `[..., P]` and gives `[...]`: a number for a list of policies, and one for each
of many lists at once. What is undefined is NaN, and each says when; NaN goes in nowhere.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.validation import whole

Numbers = NDArray[np.float64]


def absolute_error(estimate: ArrayLike, truth: ArrayLike) -> Any:
    """mean_i |v̂_i − v_i|, in units of return."""
    estimate, truth = _checked(estimate, truth)
    return np.abs(estimate - truth).mean(-1)


def relative_error(estimate: ArrayLike, truth: ArrayLike) -> Any:
    """mean_i |v̂_i − v_i| / |v_i|; NaN where a true value is 0."""
    estimate, truth = _checked(estimate, truth)
    return _ratio(np.abs(estimate - truth), np.abs(truth)).mean(-1)


def range_normalised_error(estimate: ArrayLike, truth: ArrayLike) -> Any:
    """mean_i |v̂_i − v_i| / (max v − min v); NaN where true values are all the same.

    Fu et al. (2021), "Benchmarks for deep off-policy evaluation".
    """
    estimate, truth = _checked(estimate, truth)
    return _ratio(np.abs(estimate - truth).mean(-1), np.ptp(truth, -1))


def root_mean_squared_error(estimate: ArrayLike, truth: ArrayLike) -> Any:
    """√(mean_i (v̂_i − v_i)²), in units of return."""
    estimate, truth = _checked(estimate, truth)
    error = np.abs(estimate - truth)
    # In units of the largest, which may be a product of a thousand ratios, no square overflows.
    largest = error.max(-1, keepdims=True)
    unit = np.where(largest > 0, largest, 1.0)
    return unit[..., 0] * np.sqrt(np.square(error / unit).mean(-1))


def spearman(estimate: ArrayLike, truth: ArrayLike) -> Any:
    """Spearman's ρ: the correlation of ranks, of which equal values share the mean.

    NaN for one policy, and where estimates or true values are all the same. Fu et al. (2021).
    """
    from scipy import stats  # as long to import as all of this package

    estimate, truth = _checked(estimate, truth)
    one, other = (
        ranks - ranks.mean(-1, keepdims=True)
        for ranks in (stats.rankdata(values, axis=-1) for values in (estimate, truth))
    )
    scale = np.sqrt((one**2).sum(-1) * (other**2).sum(-1))
    return _ratio((one * other).sum(-1), scale)


def kendall(estimate: ArrayLike, truth: ArrayLike) -> Any:
    """Kendall's τ_b: pairs in the right order less pairs in the wrong one, ties allowed for.

    (concordant − discordant) / √(pairs not tied in v̂ · pairs not tied in v)

    NaN where Spearman's ρ is. Takes P² numbers.
    """
    estimate, truth = _checked(estimate, truth)
    upper = np.triu(np.ones((estimate.shape[-1],) * 2, bool), 1)
    one, other = (
        np.sign(values[..., :, None] - values[..., None, :])[..., upper]
        for values in (estimate, truth)
    )
    scale = np.sqrt((one != 0).sum(-1) * (other != 0).sum(-1))
    return _ratio((one * other).sum(-1), scale)


def regret_at_k(estimate: ArrayLike, truth: ArrayLike, k: int = 1) -> Any:
    """max_i v_i − max of v over the k policies of largest v̂, in units of return, 0 or more.

    What is lost by trying only the k that look best (Fu et al. 2021). NaN where there are fewer
    than k policies, and where estimates tie so that it is open which k are best.
    """
    estimate, truth = _checked(estimate, truth)
    if whole("k", k, least=1) > estimate.shape[-1]:
        return _undefined(estimate)
    return truth.max(-1) - _best(estimate, truth, k).max(-1)


def normalised_regret_at_k(estimate: ArrayLike, truth: ArrayLike, k: int = 1) -> Any:
    """regret@k / (max v − min v), in [0, 1]; NaN where true values are all the same."""
    _, true = _checked(estimate, truth)
    return _ratio(regret_at_k(estimate, truth, k), np.ptp(true, -1))


def expected_regret(estimate: ArrayLike, truth: ArrayLike) -> Any:
    """max_i v_i − mean of v over the policies of largest v̂, in units of return, 0 or more.

    regret@1 where a tie is broken at random: defined for estimates that are all the same, too.
    """
    estimate, truth = _checked(estimate, truth)
    best = estimate == estimate.max(-1, keepdims=True)
    # A mean of losses: a mean of values may round to more than the largest of them.
    lost = truth.max(-1, keepdims=True) - truth
    return np.where(best, lost, 0.0).sum(-1) / best.sum(-1)


def precision_at_k(estimate: ArrayLike, truth: ArrayLike, k: int = 1) -> Any:
    """Of the k policies of largest v̂, the share that is among the k of largest v.

    Policies whose true value equals the k-th largest are all among them. NaN where regret@k is.
    """
    estimate, truth = _checked(estimate, truth)
    if whole("k", k, least=1) > estimate.shape[-1]:
        return _undefined(estimate)
    least = np.sort(truth, -1)[..., -k]
    chosen = _best(estimate, truth, k)
    return np.where(np.isnan(chosen), np.nan, chosen >= least[..., None]).mean(-1)


def type_one_error(estimate: ArrayLike, truth: ArrayLike, threshold: float) -> Any:
    """Of the policies with v < threshold, the share with v̂ ≥ threshold.

    The null hypothesis is that a policy is worse than the threshold: this is how often one that is
    so would be let pass. Lower ends of intervals in place of estimates say how often the intervals
    let one pass. NaN where every policy reaches the threshold.
    """
    estimate, truth = _checked(estimate, truth)
    worse = truth < threshold
    return _ratio((worse & (estimate >= threshold)).sum(-1), worse.sum(-1))


def type_two_error(estimate: ArrayLike, truth: ArrayLike, threshold: float) -> Any:
    """Of the policies with v ≥ threshold, the share with v̂ < threshold: good ones held back.

    See `type_one_error`. NaN where no policy reaches the threshold.
    """
    estimate, truth = _checked(estimate, truth)
    good = truth >= threshold
    return _ratio((good & (estimate < threshold)).sum(-1), good.sum(-1))


def sharpe_ratio_at_k(estimate: ArrayLike, truth: ArrayLike, k: int, behaviour: float) -> Any:
    """(best@k − v(behaviour)) / std@k: what the k that look best gain, for the risk of trying them.

    best@k is the largest true value of the k policies of largest v̂, and std@k the standard
    deviation of their true values (divided by k): Kiyohara et al. (2024), "Towards assessing and
    benchmarking risk-return tradeoff of off-policy evaluation". NaN for k = 1, where the k values
    are all the same, and where regret@k is.
    """
    estimate, truth = _checked(estimate, truth)
    if whole("k", k, least=1) > estimate.shape[-1]:
        return _undefined(estimate)
    chosen = _best(estimate, truth, k)
    return _ratio(chosen.max(-1) - behaviour, chosen.std(-1))


def _best(estimate: Numbers, truth: Numbers, k: int) -> Numbers:
    """`[..., k]`, true values of the k policies of largest v̂; NaN where ties leave it open.

    A tie of policies with one true value, as of one that a bootstrap drew twice, leaves nothing
    open.
    """
    order = np.argsort(-estimate, axis=-1, kind="stable")[..., :k]
    chosen = np.take_along_axis(truth, order, -1)
    least = np.take_along_axis(estimate, order[..., -1:], -1)
    tied = estimate == least
    too_many = (estimate >= least).sum(-1) > k
    lowest = np.where(tied, truth, np.inf).min(-1)
    highest = np.where(tied, truth, -np.inf).max(-1)
    return np.where((too_many & (lowest < highest))[..., None], np.nan, chosen)


def _checked(estimate: ArrayLike, truth: ArrayLike) -> tuple[Numbers, Numbers]:
    one, other = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    if one.ndim == 0 or one.shape[-1] == 0 or one.shape[-1:] != other.shape[-1:]:
        raise ConfigError(
            f"Estimates have shape {one.shape} and true values {other.shape}; expected one of each "
            "for every policy, along the last axis."
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ConfigError(
            "An estimate or a true value is not finite; leave out policies that have none."
        )
    one, other = np.broadcast_arrays(one, other)
    return one, other


def _undefined(estimate: Numbers) -> Any:
    return np.full(estimate.shape[:-1], np.nan)[()]


def _ratio(above: Any, below: Any) -> Any:
    """`above / below`, NaN where `below` is 0."""
    below = np.asarray(below, np.float64)
    return (np.asarray(above, np.float64) / np.where(below > 0, below, np.nan))[()]

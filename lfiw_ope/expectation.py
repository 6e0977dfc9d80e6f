"""Expectations under importance weights, gathered from a stream of draws in log space."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lfiw_ope.errors import ConfigError, DivergedError
from lfiw_ope.weighted import LEAST_ESS_FOR_A_STANDARD_ERROR
from lfiw_ope.weights import require_finite

LOWEST = -1e300
"""Stands for the largest log-weight of draws whose weights are all 0: less than any other, and
finite, so that differences are numbers."""


def require_weights(log_ratio: Tensor) -> Tensor:
    """The argument, or an error: log-ratios may be −∞, a weight of 0, but not NaN or +∞.

    Raises:
        DivergedError: if an entry is; it says how many.
    """
    require_finite(log_ratio.masked_fill(log_ratio == -torch.inf, 0.0), "log-ratios")
    return log_ratio


def one_each(log_ratio: Tensor, shape: torch.Size) -> Tensor:
    """The argument, or an error: one log-ratio for each draw.

    Raises:
        ConfigError: if its shape is not the draws'.
    """
    if log_ratio.shape != shape:
        apart = log_ratio.dim() == len(shape) + 1
        raise ConfigError(
            f"The log-ratio has shape {tuple(log_ratio.shape)} for draws of shape {tuple(shape)}; "
            "it must give one number for each draw"
            + (', so fit a ratio with average="logits", not "estimates".' if apart else ".")
        )
    return log_ratio


@dataclass(frozen=True)
class Expectation:
    """E[f] under weights, with what is known of its error; float64.

    The shapes are those of one expectation, `[]`, or of one for each (s, a), `[..., n]`; F, where
    f has several entries, comes last.

    Attributes:
        value: `[..., F?]`, the estimate.
        standard_error: `[..., F?]`, of the draws alone, by the delta method where self-normalised.
            NaN where fewer than `LEAST_ESS_FOR_A_STANDARD_ERROR` effective draws carry the
            weights, and None where that is so everywhere.
        ess: `[...]`, the effective sample size of the weights.
        count: draws.
    """

    value: Tensor
    standard_error: Tensor | None
    ess: Tensor
    count: int


class _Running(NamedTuple):
    """Moments of values under some weights, merged chunk by chunk (Chan et al. 1983)."""

    total: Tensor  # [...], of the weights
    mean: Tensor  # [..., F]
    squares: Tensor  # [..., F], weighted, about the mean

    @classmethod
    def of(cls, weight: Tensor, values: Tensor) -> "_Running":
        """Of weights `[k, ...]` and values `[k, ..., F]`."""
        total = weight.sum(0)
        mean = ((weight / _or_one(total))[..., None] * values).sum(0)
        return cls(total, mean, (weight[..., None] * (values - mean).square()).sum(0))

    def merged(self, other: "_Running") -> "_Running":
        total = self.total + other.total
        share = (other.total / _or_one(total))[..., None]
        shift = other.mean - self.mean
        squares = self.squares + other.squares + self.total[..., None] * share * shift.square()
        return _Running(total, self.mean + share * shift, squares)

    def weighing(self, factor: Tensor) -> "_Running":
        """The same values, every weight times `factor`."""
        return self._replace(total=self.total * factor, squares=self.squares * factor[..., None])

    def times(self, factor: Tensor) -> "_Running":
        """The same weights, every value times `factor`."""
        wide = factor[..., None]
        return self._replace(mean=self.mean * wide, squares=self.squares * wide.square())


def _or_one(total: Tensor) -> Tensor:
    """A divisor of what is 0 where the total weight is."""
    return total.where(total > 0, 1.0)


class _Moments(NamedTuple):
    """What an expectation needs of draws; weights w are relative to exp(top), so none overflows."""

    top: Tensor  # [...], the largest log-weight
    plain: _Running  # of f under w
    squared: _Running  # of f under w²
    product: _Running  # of w f, all draws alike

    @classmethod
    def of(cls, log_weight: Tensor, values: Tensor) -> "_Moments":
        top = log_weight.amax(0).clamp_min(LOWEST)
        weight = (log_weight - top).exp()
        product = weight[..., None] * values
        return cls(
            top,
            _Running.of(weight, values),
            _Running.of(weight.square(), values),
            _Running.of(torch.ones_like(weight), product),
        )

    def relative_to(self, top: Tensor) -> "_Moments":
        factor = (self.top - top).exp()
        return _Moments(
            top,
            self.plain.weighing(factor),
            self.squared.weighing(factor.square()),
            self.product.times(factor),
        )

    def merged(self, other: "_Moments") -> "_Moments":
        top = torch.maximum(self.top, other.top)
        mine, theirs = self.relative_to(top), other.relative_to(top)
        pairs = zip(mine[1:], theirs[1:], strict=True)
        return _Moments(top, *(one.merged(another) for one, another in pairs))


class ExpectationStream:
    """E[f] from draws that come in chunks: memory does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self._moments: _Moments | None = None
        self._several = False

    def add(self, log_weight: Tensor, values: Tensor) -> None:
        """Take k further draws.

        Args:
            log_weight: `[k, ...]`; −∞ is a weight of 0.
            values: of f, `[k, ...]` or `[k, ..., F]`.

        Raises:
            ConfigError: if f's shape fits neither.
            DivergedError: if a log-weight is NaN or +∞, or a value of f is not finite.
        """
        several = values.dim() == log_weight.dim() + 1
        if values.shape[: log_weight.dim()] != log_weight.shape or (
            not several and values.dim() != log_weight.dim()
        ):
            raise ConfigError(
                f"f gave shape {tuple(values.shape)} at draws of shape {tuple(log_weight.shape)}; "
                "it must give one number, or a row of them, for each draw."
            )
        require_weights(log_weight)
        require_finite(values, "values of f", "f must give a finite number at every draw")
        wide = values.double() if several else values.double()[..., None]
        moments = _Moments.of(log_weight.double(), wide)
        self._moments = moments if self._moments is None else self._moments.merged(moments)
        self.count += len(log_weight)
        self._several = several

    def expectation(self, self_normalised: bool) -> Expectation:
        """Of all draws so far.

        self-normalised: Σ w f / Σ w, with standard error √(Σ w² (f − v)²) / Σ w (delta method)
        else:            Σ w f / n, with that of a mean

        Raises:
            DivergedError: if no draw has a weight above 0, or weights that are not self-normalised
                overflow or underflow.
        """
        if self._moments is None:
            raise ConfigError("No draws were given; an expectation needs one or more.")
        top, plain, squared, product = self._moments
        if bool((top <= LOWEST).any()):
            raise DivergedError(
                f"All {self.count} draws have a weight of 0; the model never draws what the ratio "
                "gives weight to, so draw more, or mend one of the two."
            )
        ess = plain.total.square() / squared.total
        # The factor n / (n − 1) makes the variance of plain draws unbiased.
        unbiased = self.count / max(self.count - 1, 1)
        if self_normalised:
            value = plain.mean
            off = squared.mean - value
            squares = squared.squares + squared.total[..., None] * off.square()
            error = (squares * unbiased).sqrt() / plain.total[..., None]
        else:
            scale = top.exp()[..., None]
            if bool((scale < torch.finfo(scale.dtype).tiny).any()):
                raise DivergedError(
                    f"The weights underflow: the largest has a logarithm of {float(top.min()):.0f}"
                    "; use a self-normalised expectation."
                )
            value = product.mean * scale
            error = (product.squares * unbiased).sqrt() / self.count * scale
        if not bool((value.isfinite() & error.isfinite()).all()):
            raise DivergedError(
                f"The weights overflow: the largest has a logarithm of {float(top.max()):.0f}; "
                "use a self-normalised expectation."
            )
        known = ess >= LEAST_ESS_FOR_A_STANDARD_ERROR
        error = error.where(known[..., None], torch.nan)
        if not self._several:
            value, error = value[..., 0], error[..., 0]
        return Expectation(value, error if bool(known.any()) else None, ess, self.count)

"""The model that a density ratio induces, p_θ w, and expectations under its weights.

A generative model p_θ and a weight w ≥ 0 make a product of experts p_θ(x) w(x) / Z, which equals
the data's distribution where w = p / p_θ (Grover et al. 2019, section 5). Samples come by
sampling-importance-resampling (SIR; Rubin 1987): of k draws of p_θ one is kept, in proportion to w.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lfiw_ope.core.errors import ConfigError, DivergedError
from lfiw_ope.core.protocols import DensityDynamics, Dynamics, LogRatio, Transition
from lfiw_ope.core.validation import whole
from lfiw_ope.dynamics.sampling import Draws, draws
from lfiw_ope.ratios.density_ratio import Draw, tensor_of
from lfiw_ope.stats.weighted_mean import LEAST_ESS_FOR_A_STANDARD_ERROR
from lfiw_ope.stats.weighting import choose
from lfiw_ope.stats.weights import require_finite

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


@dataclass(frozen=True)
class InducedModel:
    """p_θ(x) w(x) / Z over points x of any shape D, from draws of p_θ and the log of w.

    Attributes:
        draw: `(count, generator) -> [count, D]`, independent draws of p_θ, tensors or arrays.
        log_ratio: `[count, D] -> [count]`, log w, such as a fitted ratio's `log_ratio`; −∞ where w
            is 0.
        log_density: `[count, D] -> [count]`, log p_θ, where it is known.
        chunk: draws that are made and weighed at a time; memory grows with it and not with the
            number of draws.
    """

    draw: Draw
    log_ratio: Callable[[Tensor], Tensor]
    log_density: Callable[[Tensor], Tensor] | None = None
    chunk: int = 1 << 14

    def __post_init__(self) -> None:
        whole("chunk", self.chunk, least=1)

    def unnormalised_log_density(self, x: Tensor) -> Tensor:
        """log p_θ(x) + log w(x) `[count]`: the induced model's, but for the constant log Z.

        With an exact ratio Z is 1 and this is log p; `normaliser` estimates it.

        Raises:
            ConfigError: if the log-density of p_θ is not known.
        """
        if self.log_density is None:
            raise ConfigError(
                "This model is known by its draws alone and has no log-density; "
                "build InducedModel with log_density=, or use its expectations and samples."
            )
        return torch.as_tensor(self.log_density(x), device=x.device) + self._log_ratio(x)

    @torch.no_grad()
    def expectation(
        self,
        f: Callable[[Tensor], Tensor],
        count: int,
        generator: torch.Generator,
        *,
        self_normalised: bool = True,
    ) -> Expectation:
        """E[f] under the induced model, from `count` weighted draws of p_θ.

        Args:
            f: `[k, D] -> [k]` or `[k, F]`.
            count: draws.
            generator: of the draws.
            self_normalised: Σ w f / Σ w, consistent whatever the scale of w; else Σ w f / n, which
                is unbiased for E_p[f] with an exact ratio and off by the factor Z with another.

        Raises:
            ConfigError: if the count is below 1, or a function gives another shape.
            DivergedError: if a log-ratio is NaN or +∞, a value of f is not finite, all weights are
                0, or plain weights overflow or underflow.
        """
        stream = ExpectationStream()
        left = whole("count", count, least=1)
        while left:
            x = self._draw(min(left, self.chunk), generator)
            stream.add(self._log_ratio(x), torch.as_tensor(f(x), device=x.device))
            left -= len(x)
        return stream.expectation(self_normalised)

    def normaliser(self, count: int, generator: torch.Generator) -> Expectation:
        """Z = E_{p_θ}[w]: a free check of a learned ratio, since an exact one has 1."""
        return self.expectation(
            lambda x: torch.ones(len(x), device=x.device), count, generator, self_normalised=False
        )

    @torch.no_grad()
    def sample(self, count: int, candidates: int, generator: torch.Generator) -> Tensor:
        """`[count, D]` independent draws by SIR, each one of `candidates` draws of p_θ.

        One candidate is p_θ itself; as their number k grows, the distribution goes to the induced
        model's at a rate of 1/k, and the cost grows with k.

        Raises:
            ConfigError: if a number is below 1, or a function gives another shape.
            DivergedError: if a log-ratio is NaN or +∞, or all candidates of a draw weigh 0.
        """
        whole("count", count, least=1)
        if whole("candidates", candidates, least=1) == 1:
            return self._draw(count, generator)
        rows = max(1, self.chunk // candidates)
        sizes = [min(rows, count - start) for start in range(0, count, rows)]
        return torch.cat([self._one_of(size, candidates, generator) for size in sizes])

    def _one_of(self, rows: int, candidates: int, generator: torch.Generator) -> Tensor:
        x = self._draw(rows * candidates, generator)
        log_ratio = require_weights(self._log_ratio(x)).reshape(candidates, rows)
        lost = int((log_ratio.amax(0) == -torch.inf).sum())
        if lost:
            raise DivergedError(
                f"All {candidates} candidates have a weight of 0 in {lost} of {rows} draws; use "
                "more candidates, or a model that draws what the ratio gives weight to."
            )
        chosen = _choose(log_ratio, generator)
        return x.view(candidates, rows, *x.shape[1:])[chosen, torch.arange(rows, device=x.device)]

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        x = tensor_of("draw", self.draw(count, generator), generator.device)
        if x.shape[:1] != (count,):
            raise ConfigError(
                f"draw gave the shape {tuple(x.shape)}; {count} draws were asked for, one a row."
            )
        return x

    def _log_ratio(self, x: Tensor) -> Tensor:
        log_ratio = torch.as_tensor(self.log_ratio(x), device=x.device)
        return one_each(log_ratio, x.shape[:1])


@dataclass(frozen=True)
class InducedDynamics:
    """p_θ(· | s, a) w(s, a, ·) / Z(s, a) at every (s, a): a dynamics model, to be simulated.

    `sample` draws by SIR: of k transitions of the model at (s, a), one is kept in proportion to its
    ratio. The mean weight of the k is dropped, so that a rollout is one of the locally normalised
    model: Z(s, a), which is 1 for an exact ratio, is taken to be 1 for any. With exact ratios the
    distribution goes to the truth at a rate of 1/k; k = 1 is the model itself.

    Attributes:
        dynamics: p_θ.
        ratio: log w.
        candidates: k.
        chunk: transitions that `expectation` draws and weighs at a time.
    """

    dynamics: Dynamics
    ratio: LogRatio
    candidates: int = 1
    chunk: int = 1 << 16

    def __post_init__(self) -> None:
        whole("candidates", self.candidates, least=1)
        whole("chunk", self.chunk, least=1)

    @torch.no_grad()
    def sample(self, state: Tensor, action: Tensor, generator: torch.Generator) -> Transition:
        """One draw at each (state `[..., n, S]`, action `[..., n, A]`).

        Random numbers are drawn for the n axis and shared along the leading axes. Where a
        candidate's log-ratio is NaN or +∞, or all of them are −∞, the next state and the reward are
        NaN, so that whatever is computed of them says so: a simulation must not wait for the device
        to find out here.

        Raises:
            ConfigError: if the ratio gives another shape than one number for each transition.
        """
        if self.candidates == 1:
            return self.dynamics.sample(state, action, generator)
        drawn = draws(self.dynamics, state, action, self.candidates, generator)
        log_ratio = self._log_ratio(state, action, drawn)
        chosen = _choose(log_ratio, generator)[None]
        reached = drawn.next_state.take_along_dim(chosen[..., None], 0)[0]
        reward, terminated, bounded = (
            field.take_along_dim(chosen, 0)[0]
            for field in (drawn.reward, drawn.terminated, drawn.bounded)
        )
        lost = ~log_ratio.amax(0).isfinite()  # which NaN passes through
        return Draws(
            reached.masked_fill(lost[..., None], torch.nan),
            reward.masked_fill(lost, torch.nan),
            terminated,
            bounded,
        )

    def unnormalised_log_density(
        self, state: Tensor, action: Tensor, transition: Transition
    ) -> Tensor:
        """log p_θ + log w of K transitions at each (s, a) `[K, ..., n]`, or of one `[..., n]`.

        The induced model's, but for log Z(s, a), which is 0 for an exact ratio.

        Raises:
            ConfigError: if the model has no log-density.
        """
        if not isinstance(self.dynamics, DensityDynamics):
            raise ConfigError(
                f"{type(self.dynamics).__name__} has no log_density, so p_θ w has none either; "
                "give the model one, or use the expectations and samples."
            )
        log_density = self.dynamics.log_density(state, action, transition)
        return log_density + self._log_ratio(state, action, transition)

    @torch.no_grad()
    def expectation(
        self,
        f: Callable[[Transition], Tensor],
        state: Tensor,
        action: Tensor,
        count: int,
        generator: torch.Generator,
        *,
        self_normalised: bool = True,
    ) -> Expectation:
        """E[f | s, a] under the induced model, from `count` weighted draws at each (s, a).

        Args:
            f: of transitions whose fields lead with a K axis, `[K, ..., n]` or `[K, ..., n, F]`.
            state: `[..., n, S]`
            action: `[..., n, A]`
            count: draws at each (s, a).
            generator: of the draws, which are shared along the leading axes.
            self_normalised: as `InducedModel.expectation`'s.

        Returns:
            Of shapes `[..., n]` or `[..., n, F]`.

        Raises:
            ConfigError: if the count is below 1, or a function gives another shape.
            DivergedError: as `InducedModel.expectation`, at any (s, a).
        """
        stream = ExpectationStream()
        left = whole("count", count, least=1)
        most = max(1, self.chunk // max(1, state.shape[:-1].numel()))
        while left:
            drawn = draws(self.dynamics, state, action, min(left, most), generator)
            values = torch.as_tensor(f(drawn), device=drawn.reward.device)
            stream.add(self._log_ratio(state, action, drawn), values)
            left -= len(drawn.reward)
        return stream.expectation(self_normalised)

    def _log_ratio(self, state: Tensor, action: Tensor, transition: Transition) -> Tensor:
        log_ratio = self.ratio.log_ratio(state, action, transition)
        return one_each(log_ratio, transition.reward.shape)


def _choose(log_ratio: Tensor, generator: torch.Generator) -> Tensor:
    """SIR's choice `[..., n]` among candidates `[k, ..., n]`; leading axes share the draw."""
    uniform = torch.rand(
        log_ratio.shape[-1], dtype=torch.float64, generator=generator, device=log_ratio.device
    )
    return choose(log_ratio, uniform)[0]

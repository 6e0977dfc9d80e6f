"""The model that a density ratio induces, p_θ w: its density, its expectations and its samples.

A generative model p_θ and a weight w ≥ 0 make a product of experts p_θ(x) w(x) / Z, which equals
the data's distribution where w = p / p_θ (Grover et al. 2019, section 5). Samples come by
sampling-importance-resampling (SIR; Rubin 1987): of k draws of p_θ one is kept, in proportion to w.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_ope.checks import whole
from lfiw_ope.drawing import Draws, draws
from lfiw_ope.errors import ConfigError, DivergedError
from lfiw_ope.expectation import Expectation, ExpectationStream, one_each, require_weights
from lfiw_ope.resampling import choose
from lfiw_ope.samples import Draw, tensor_of
from lfiw_ope.types import DensityDynamics, Dynamics, LogRatio, Transition


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

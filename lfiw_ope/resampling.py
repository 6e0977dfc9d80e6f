"""Resampling while rollouts run: among candidates of a step (SIR), across rollouts (SMC).

Weights are given as logarithms and are float64 throughout. Nothing here hands a number to the
host, so that a rollout's loop on a GPU never waits.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_ope.checks import real, whole
from lfiw_ope.errors import ConfigError
from lfiw_ope.weights import effective_sample_size


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """What is resampled while rollouts run. The default is nothing: independent rollouts of p_θ.

    Sampling-importance-resampling (SIR; Rubin 1988; Grover et al. 2019, section 5) draws k
    candidates at each step and goes on from one of them, chosen in proportion to its ratio. The
    step's weight is then the candidates' mean ratio: carried, estimates with an exact ratio keep
    their target at any k; dropped, they approach it with a bias of O(1/k).

    Sequential Monte Carlo (SMC; Doucet, de Freitas and Gordon 2001) resamples whole rollouts, in
    proportion to the product of their ratios so far, when the effective sample size of those
    products falls below a share of the rollouts. Rollouts of one population then depend on each
    other; populations do not, and standard errors come from their spread.

    Attributes:
        candidates: k of SIR at each step; 1 is none.
        below: SMC's share, in [0, 1], of a population's size: it is resampled at the end of every
            step that leaves its effective sample size lower. 0 keeps the weights and never
            resamples; None is no SMC.
        populations: independent repeats of SMC: the n rollouts are cut along n into so many
            populations of equal size.
        conditional: SMC's weights are products of conditionally normalised ratios.
    """

    candidates: int = 1
    below: float | None = None
    populations: int = 1
    conditional: bool = False

    def __post_init__(self) -> None:
        whole("candidates", self.candidates, least=1)
        whole("populations", self.populations, least=1)
        if self.below is not None:
            real("below", self.below, least=0.0, most=1.0)
        elif self.populations > 1 or self.conditional:
            raise ConfigError(
                "populations and conditional are settings of sequential Monte Carlo, and below is "
                "None, which is none; give below a share, such as 0.5."
            )
        if self.conditional and self.candidates > 1:
            raise ConfigError(
                f"conditional divides by the mean ratio that {self.candidates} candidates have for "
                "their weight, so nothing would be left; use one or the other."
            )

    @property
    def none(self) -> bool:
        """Whether nothing is resampled and no running weights are kept."""
        return self.candidates == 1 and self.below is None

    def check(self, *, rollouts: int, draws: int, weighted: bool) -> None:
        """That a simulation of n rollouts with K draws, with or without a ratio, can do this.

        Raises:
            ConfigError: if it cannot; it says why.
        """
        if self.none:
            return
        if not weighted:
            raise ConfigError("Resampling needs a density ratio, and none was given.")
        if self.candidates > 1 and draws > 1:
            raise ConfigError(
                f"candidates is {self.candidates} and draws is {draws}: both are draws of one "
                "step, to choose from or to normalise by; set one of them to 1."
            )
        if self.conditional and draws == 1:
            raise ConfigError("Conditional normalisation needs 2 or more draws, and draws is 1.")
        if rollouts % self.populations:
            raise ConfigError(
                f"{rollouts} rollouts cannot be cut into {self.populations} populations of equal "
                "size; let populations divide rollouts."
            )


NO_RESAMPLING = Resampling()


def choose(log_ratio: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """SIR's step: which of K candidates goes on, with probability w_j / Σ w, and their mean ratio.

    Args:
        log_ratio: `[K, ..., n]`
        uniform: `[n]` or `[..., n]`, float64 in [0, 1).

    Returns:
        The chosen index `[..., n]`, and log (1/K) Σ_j w_j `[..., n]`, float64.
    """
    log_ratio = log_ratio.double()
    level = torch.softmax(log_ratio, 0).cumsum(0)
    # A candidate of weight 0 does not raise the level, and so is passed over.
    index = (level <= uniform * level[-1]).sum(0).clamp_max(len(log_ratio) - 1)
    return index, torch.logsumexp(log_ratio, 0) - math.log(len(log_ratio))


def systematic(log_weight: Tensor, uniform: Tensor) -> Tensor:
    """Systematic resampling: which slot each of n slots continues, `[..., n]` int64, ascending.

    The n points (j + u) / n, j = 0 .. n − 1, of one uniform u are looked up in the cumulative
    normalised weights. The expected number of slots that continue slot i is n W_i, and the number
    itself lies within 1 of it (Kitagawa 1996; Douc and Cappé 2005). A slot of weight 0 is never
    continued.

    Args:
        log_weight: `[..., n]`, not all −∞.
        uniform: `[...]` or fewer axes, float64 in [0, 1): one of each population.
    """
    n = log_weight.shape[-1]
    level = torch.softmax(log_weight.double(), -1).cumsum(-1)
    step = torch.arange(n, dtype=torch.float64, device=log_weight.device)
    point = (step + uniform[..., None]) / n
    # Rounding may carry the last point to 1, past every slot that has weight.
    point = point.clamp_max(1.0 - 2.0**-53)
    point = point.expand(level.shape).contiguous()
    found = torch.searchsorted(level / level[..., -1:], point, right=True)
    return found.clamp_max(n - 1)


class RunningWeights:
    """SMC's weights of P policies' n rollouts while they run, and who continues whom.

    A population that is resampled goes on with weights equal to their mean, not to 1: so the
    product of mean weights is carried, and E[W f] keeps its target.

    Attributes:
        log_weight: `[T, P, n]` float64, what meets the reward of step t, before resampling at t.
        ancestors: `[T, P, n]` int64, the slot at step t that each slot of step t + 1 continues.
    """

    def __init__(
        self, resampling: Resampling, shape: tuple[int, int, int], generator: torch.Generator
    ) -> None:
        """Of shape (T, P, n), on the generator's device."""
        assert resampling.below is not None
        _, policies, n = shape
        device = generator.device
        self.populations, self.size = resampling.populations, n // resampling.populations
        self.least_ess = resampling.below * self.size
        self.generator = generator
        self.now = torch.zeros((policies, n), dtype=torch.float64, device=device)
        self.slot = torch.arange(n, device=device)
        self.log_weight = torch.zeros(shape, dtype=torch.float64, device=device)
        self.ancestors = self.slot.expand(shape).contiguous()

    def add(self, t: int, log_ratio: Tensor) -> None:
        """Step t's log-ratios `[P, n]`, 0 after the end."""
        self.now = self.now + log_ratio
        self.log_weight[t] = self.now

    def resample(self, t: int) -> Tensor:
        """Ancestors `[P, n]` of the slots of step t + 1, within each population of each policy."""
        weight = self.now.view(-1, self.populations, self.size)
        # NaN compares false: a population that diverged is left as it is, and raises when weighed.
        poor = (effective_sample_size(weight) < self.least_ess)[..., None]
        # Drawn at every step and shared along P: what one policy needs changes no other's numbers.
        uniform = torch.rand(
            self.populations, dtype=torch.float64, generator=self.generator, device=weight.device
        )
        slot = self.slot.view(self.populations, self.size)
        ancestors = torch.where(poor, systematic(weight, uniform) + slot[:, :1], slot).flatten(-2)
        mean = torch.logsumexp(weight, -1, keepdim=True) - math.log(self.size)
        self.now = torch.where(poor, mean, weight).flatten(-2)
        self.ancestors[t] = ancestors
        return ancestors

"""The choice of noise and of SIR's candidates, without the true value.

Each candidate is a model of the environment. From states of held-out episodes the policy that
logged them acts in it for up to H steps. First, a value is a mean: candidates are left out whose
mean partial return is known, at three standard errors, to be off, and by more than that of the
least biased one. Then partial returns and states are scored against the logged continuations
(CRPS and energy score), and the simplest candidate within one standard error of the best is taken.
Of SIR's k none is simpler: they share all networks, so that of the least loss is taken. All
comparisons are paired: every candidate meets the same stretches.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.special import ndtr, stdtrit
from torch import Tensor

from lfiw_ope.core.protocols import Dynamics
from lfiw_ope.core.seeding import torch_generator
from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.dynamics.noise import NoiseKind
from lfiw_ope.dynamics.replay import Continuations, LoggedBehaviour, replay, score
from lfiw_ope.estimators.simulation_intervals import clustered
from lfiw_ope.stats.weighting import Weighting

STEPS = 30
"""H: candidates differ little over a few steps, and after many a replay of logged behaviour means
little."""

MARKS = 3
"""Of H, evenly spaced steps at which returns and states are scored: the noise of a step shows soon,
what it does to a rollout shows late."""

STRETCHES = 800
"""Of held-out episodes, at most. Each begins a third of H after the one before, so they overlap."""

DRAWS = 8
"""Rollouts of each stretch."""

KNOWN = 3.0
"""Standard errors from which on a bias counts as one: five candidates make ten comparisons, of
which all are right with a chance of 97 %."""

CHOICES: tuple[NoiseKind, ...] = ("none", "gaussian", "bootstrap")
"""Noises that networks trained by squared error can have, from the simplest."""


@dataclass(frozen=True)
class Candidate:
    """A noise of the simulated step, and how many candidates SIR chooses each step from.

    Attributes:
        noise: see `lfiw_ope.dynamics.Noise`.
        sir_candidates: k; 1 is the model without weights.
    """

    noise: NoiseKind
    sir_candidates: int = 1

    @property
    def weighting(self) -> Weighting:
        """Its form of weights."""
        several = self.sir_candidates > 1
        return Weighting(form="uniform", candidates=self.sir_candidates, calibrated=several)

    def __str__(self) -> str:
        return self.noise + f" + SIR {self.sir_candidates}" * (self.sir_candidates > 1)


@dataclass(frozen=True)
class NoiseSelection:
    """The outcome of a choice.

    Attributes:
        chosen: the candidate that was taken.
        scores: mean loss of each candidate, in order of simplicity; lower is better.
        biases: mean partial return minus the logged one, of each candidate.
        bias_errors: standard error of each bias, clustered by episode.
        excess: mean paired loss against the best of the candidates that are not left out for bias.
        standard_errors: of `excess`, clustered by episode.
        steps: H.
        stretches: that were scored.
        episodes: that they come from.
        seconds: wall-clock of the choice.
    """

    chosen: Candidate
    scores: dict[str, float]
    biases: dict[str, float]
    bias_errors: dict[str, float]
    excess: dict[str, float]
    standard_errors: dict[str, float]
    steps: int
    stretches: int
    episodes: int
    seconds: float


def select_noise(
    candidates: Mapping[Candidate, Dynamics],
    behaviour: LoggedBehaviour,
    log: DeviceLog,
    episodes: Sequence[int],
    *,
    steps: int,
    seed: int,
) -> NoiseSelection | None:
    """Score the candidates on held-out episodes and take one.

        bias = E[Σ_{u<H} r̂_u] − Σ_{u<H} r_u

        loss = (1/J) Σ_h CRPS(Σ_{u<h} r_u) / σ_h + ES(s_h / σ_s) / √S,   h = H/J, 2H/J, .., H

    σ_h is the standard deviation of the logged partial returns of h steps and σ_s that of each
    state entry.

    Args:
        candidates: models, from the simplest to the least simple.
        behaviour: the policy that logged the data, or its clone.
        log: the data.
        episodes: that no candidate has learned from.
        steps: H.
        seed: of stretches and draws; the candidates share them.

    Returns:
        None where fewer than two held-out episodes have a stretch that is logged to its end: one
        alone says nothing of its standard error.
    """
    started = time.perf_counter()
    device = log.rewards.device
    numbers = torch.as_tensor(list(episodes), dtype=torch.int64, device=device)
    drawing = torch_generator(seed, "selection", "stretches", device=device)
    stride = math.ceil(steps / MARKS)
    logged = Continuations.of(log, numbers, steps, STRETCHES, drawing, stride=stride)
    scored = len(torch.unique(logged.episode))
    if scored < 2:
        return None
    judged = {c: judge(model, behaviour, logged, seed) for c, model in candidates.items()}
    losses = {c: of_loss for c, (of_loss, _) in judged.items()}
    biases = {c: paired(error, logged.episode) for c, (_, error) in judged.items()}
    unbiased = not_biased({c: error for c, (_, error) in judged.items()}, logged.episode)
    means = {c: float(of.mean()) for c, of in losses.items()}
    best = min(unbiased, key=means.__getitem__)
    excess, errors = {}, {}
    for candidate, of in losses.items():
        excess[candidate], errors[candidate] = paired(of - losses[best], logged.episode)
    chosen = next(c for c in unbiased if excess[c] <= errors[c])
    if chosen.sir_candidates > 1:
        chosen = best
    return NoiseSelection(
        chosen,
        {str(c): means[c] for c in candidates},
        {str(c): biases[c][0] for c in candidates},
        {str(c): biases[c][1] for c in candidates},
        {str(c): excess[c] for c in candidates},
        {str(c): errors[c] for c in candidates},
        steps,
        len(logged),
        scored,
        time.perf_counter() - started,
    )


def not_biased(errors: Mapping[Candidate, Tensor], episode: Tensor) -> list[Candidate]:
    """Candidates that are not known to be biased, or not more than the least one, in their order.

    All share the noise of the logged returns, which alone can make one of them look unbiased. So a
    candidate is left out where its own bias and the paired difference from the least one are both
    beyond three standard errors, or as many as are as rare by Student's t with so few episodes.

    Args:
        errors: `[B]` of each candidate, simulated minus logged partial returns.
        episode: `[B]`, of each stretch.
    """
    # Each with the sign that makes its mean the absolute bias, so that differences are paired.
    absolute = {c: of * (1.0 if of.mean() >= 0 else -1.0) for c, of in errors.items()}
    least = min(absolute, key=lambda c: float(absolute[c].mean()))
    more = {c: paired(of - absolute[least], episode) for c, of in absolute.items()}
    own = {c: paired(of, episode) for c, of in absolute.items()}
    known = float(stdtrit(len(torch.unique(episode)) - 1, ndtr(KNOWN)))
    return [c for c in errors if any(bias <= known * error for bias, error in (own[c], more[c]))]


def judge(
    model: Dynamics, behaviour: LoggedBehaviour, logged: Continuations, seed: int
) -> tuple[Tensor, Tensor]:
    """Loss and error of the mean partial return, `[B]` float64 each, of each stretch."""
    device = logged.rewards.device
    generator = torch_generator(seed, "selection", "draws", device=device)
    steps = len(logged.rewards)
    marks = tuple(sorted({max(1, steps * part // MARKS) for part in range(1, MARKS + 1)}))
    replayed = replay(model, behaviour, logged, draws=DRAWS, generator=generator, marks=marks)
    of_return, of_state = score(replayed, logged, _scale(logged.states.flatten(0, -2)))
    observed = logged.returns(marks)
    loss = of_return / _scale(observed.T)[:, None] + of_state / math.sqrt(logged.states.shape[-1])
    return loss.mean(0), replayed.returns[-1].mean(0) - observed[-1]


def _scale(rows: Tensor) -> Tensor:
    """`[D]`, standard deviations of rows `[R, D]`, 1 where an entry does not vary."""
    scale = rows.std(0, correction=0)
    return torch.where(scale > 1e-6, scale, torch.ones_like(scale))


def paired(difference: Tensor, episode: Tensor) -> tuple[float, float]:
    """Mean of differences `[B]`, and its standard error with episodes `[B]` as clusters."""
    count = len(difference)
    mean = difference.mean()
    influence = (difference - mean) / count * math.sqrt(count / max(count - 1, 1))
    return float(mean), clustered(influence, episode).standard_error

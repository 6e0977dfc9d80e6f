"""Calibration of a ratio's moments, for resampling by it.

Sampling-importance-resampling (SIR) of k candidates by a learned ratio moves the mean of the
simulated step: the classifiers err, and k is finite. A mean that is off at every step adds up over
a rollout, although the dynamics, which were trained for the mean, had it right. So the log-ratio
gets an exponential tilt, bilinear in the outcome e = (s', r) and in φ = (1, s, a), standardised:

    log w'(s, a, e) = log w(s, a, e) + eᵀ A φ(s, a)

e and (s, a) are clipped (`lfiw_ope.ratios.tilted`), here as in a rollout. A is chosen so that SIR
of k candidates has the moments of logged transitions, each as the member sees it that did not learn
from it,

    E[Σ_j p_j e_j φᵀ] = E[e φᵀ],   p_j ∝ w'(s, a, e_j),   j = 1..k

to which the tilt is the dual solution: they are the stationary point of the convex function

    Φ(A) = E[log Σ_j w(s, a, e_j) exp(e_jᵀ A φ)] − E[eᵀ A φ]

as in exponential tilting and calibration of survey weights (Deville and Särndal 1992) and entropy
balancing (Hainmueller 2012). Moments of few or dependent transitions are noise in part: a ridge,
Φ(A) + ρ |A|², is chosen by cross-validation of Φ, and A is 0 where none lowers it. Moments that the
candidates cannot have would drive A to infinity and leave one of k candidates all weight: A is
halved until the candidates keep half of their effective number.

Errors of members that left out a group each all but cancel over the groups. So this undoes what
resampling does to the mean, and not what the dynamics themselves have wrong.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lfiw_ope.core.seeding import torch_generator
from lfiw_ope.data.tensors import DeviceLog, thin
from lfiw_ope.dynamics.sampling import draws
from lfiw_ope.ratios.transition_ratio import (
    MOST_INPUT,
    MOST_OUTCOME,
    Given,
    Moments,
    TransitionRatio,
    centred,
    episode_boundary,
    members_of,
    tilted,
)

MOST_TRANSITIONS = 1 << 14
"""That moments are taken of: their error is then 1/128 of a standard deviation."""

MOST_NUMBERS = 1 << 25
"""Of candidates' outcomes that are kept at once, 128 MB."""

RIDGES = (1.0, 0.1, 0.01)
"""ρ, from the strongest. At the minimum of Φ(A) + ρ |A|² the moments differ by 2 ρ A."""

LEAST_CANDIDATES = 0.5
"""Of the effective number of candidates, 1 / Σ_j p_j², that a tilt leaves, on average."""

ITERATIONS = 60
"""Of L-BFGS, at most."""

HALVINGS = 10


def calibrate_moments(
    ratio: TransitionRatio,
    log: DeviceLog,
    episodes: Sequence[int],
    candidates: int,
    seed: int,
    *,
    left_out: Sequence[Sequence[int]] | None = None,
) -> TransitionRatio:
    """The ratio with the tilt that gives SIR of k candidates the moments of these episodes.

    Args:
        ratio: the ratio; networks are shared with the result, not copied.
        log: the data.
        episodes: that the dynamics were not trained on, or a member of them was not.
        candidates: k.
        seed: of the candidates.
        left_out: see `lfiw_ope.fit_transition_ratio`.
    """
    device = log.rewards.device
    generator = torch_generator(seed, "ratio", "moments", device=device)
    size = ratio.outcomes.mean.numel()
    most = min(MOST_TRANSITIONS, max(1, MOST_NUMBERS // (candidates * size)))
    rows = thin(log.rows_of(list(episodes)), most, generator)
    inputs, real_outcomes, outcomes, log_ratios = [], [], [], []
    with torch.no_grad():
        member = members_of(ratio.dynamics, log, left_out, seed)
        for some, centre in centred(ratio.config, ratio.dynamics, log, rows, member):
            state, action = some.state[None], some.action[None]
            drawn = draws(ratio.dynamics, state, action, candidates, generator)
            standardised = ratio.inputs(torch.cat((some.state, some.action), -1))
            given, outcome = ratio.parts(ratio.features(Given(standardised, centre), some))
            inputs.append(given.clamp(-MOST_INPUT, MOST_INPUT))
            real_outcomes.append(outcome.clamp(-MOST_OUTCOME, MOST_OUTCOME))
            features = ratio.features(ratio.given(state, action, drawn.mean), drawn)
            drawn_outcome = ratio.parts(features)[1][:, 0]
            outcomes.append(drawn_outcome.clamp(-MOST_OUTCOME, MOST_OUTCOME))
            log_ratios.append(ratio.classifiers.log_ratio(features)[:, 0])
    seen = Candidates(
        torch.cat(inputs),
        torch.cat(real_outcomes),
        torch.cat(outcomes, 1),
        torch.cat(log_ratios, 1),
    )
    tilt = seen.tilt(episode_boundary(log, rows))
    (gap, before), (tilted_gap, after) = (seen.moments(one) for one in (0.0 * tilt, tilt))
    return ratio.with_tilt(tilt, Moments(gap, tilted_gap, before, after))


class Candidates(NamedTuple):
    """k candidates of the simulated step at each of B logged pairs (s, a)."""

    inputs: Tensor  # [B, S + A], standardised (s, a)
    real: Tensor  # [B, D], logged outcomes, standardised
    outcomes: Tensor  # [k, B, D], the candidates'
    log_ratios: Tensor  # [k, B]

    def tilt(self, middle: int) -> Tensor:
        """`[D, 1 + S + A]`, A at the ridge that cross-validation takes.

        Args:
            middle: where its two parts meet; a part may be empty, and A is then 0.
        """
        halves = self._part(slice(middle)), self._part(slice(middle, None))
        none = self.real.new_zeros((self.real.shape[-1], 1 + self.inputs.shape[-1]))
        if not 0 < middle < len(self.real):
            return none
        found, lowest, ridge = [none, none], sum(half.objective(none) for half in halves), None
        for tried in RIDGES:
            found = [half.solve(tried, start) for half, start in zip(halves, found, strict=True)]
            other = halves[0].objective(found[1]) + halves[1].objective(found[0])
            if other >= lowest:
                break
            lowest, ridge = other, tried
        return none if ridge is None else self._spread(self.solve(ridge, (found[0] + found[1]) / 2))

    def _part(self, rows: slice) -> "Candidates":
        outcomes, log_ratios = self.outcomes[:, rows], self.log_ratios[:, rows]
        return Candidates(self.inputs[rows], self.real[rows], outcomes, log_ratios)

    def solve(self, ridge: float, start: Tensor) -> Tensor:
        """A that minimises Φ(A) + ρ |A|²."""
        tilt = start.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([tilt], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def step() -> Tensor:
            optimiser.zero_grad()
            loss = self._objective(tilt) + ridge * tilt.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            optimiser.step(step)  # type: ignore[no-untyped-call]
        return tilt.detach()

    def objective(self, tilt: Tensor) -> float:
        """Φ(A)."""
        return float(self._objective(tilt))

    def _objective(self, tilt: Tensor) -> Tensor:
        level = torch.logsumexp(self.log_ratios + tilted(tilt, self.inputs, self.outcomes), 0)
        return (level - tilted(tilt, self.inputs, self.real)).mean()

    def moments(self, tilt: Tensor) -> tuple[float, float]:
        """Root mean square of E[Σ_j p_j e_j φᵀ] − E[e φᵀ], and the mean of 1 / Σ_j p_j²."""
        logits = self.log_ratios + tilted(tilt, self.inputs, self.outcomes)
        chance = torch.softmax(logits, 0).to(self.real.dtype)
        error = (chance[..., None] * self.outcomes).sum(0) - self.real
        phi = torch.nn.functional.pad(self.inputs, (1, 0), value=1.0)
        gap = error.T @ phi / len(phi)
        return float(gap.square().mean().sqrt()), float((1.0 / chance.square().sum(0)).mean())

    def _spread(self, tilt: Tensor) -> Tensor:
        """A, halved until candidates keep their effective number."""
        least = LEAST_CANDIDATES * self.moments(torch.zeros_like(tilt))[1]
        for _ in range(HALVINGS):
            if self.moments(tilt)[1] >= least:
                return tilt
            tilt = tilt / 2
        return torch.zeros_like(tilt)

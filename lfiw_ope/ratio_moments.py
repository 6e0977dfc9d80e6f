"""Calibration of a ratio's moments, for resampling by it.

Sampling-importance-resampling (SIR) of k candidates by a learned ratio moves the mean of the
simulated step: the classifiers err, and k is finite. A mean that is off at every step adds up over
a rollout, although the dynamics, which were trained for the mean, had it right. So the log-ratio
gets an exponential tilt, bilinear in the outcome e = (s', r) and in φ = (1, s, a), standardised:

    log w'(s, a, e) = log w(s, a, e) + eᵀ A φ(s, a)

A is chosen so that SIR of k candidates has the moments of held-out transitions,

    E[Σ_j p_j e_j φᵀ] = E[e φᵀ],   p_j ∝ w'(s, a, e_j),   j = 1..k

to which the tilt is the dual solution: they are the stationary point of the convex function

    Φ(A) = E[log Σ_j w(s, a, e_j) exp(e_jᵀ A φ)] − E[eᵀ A φ]

as in exponential tilting and calibration of survey weights (Deville and Särndal 1992) and entropy
balancing (Hainmueller 2012). Moments that the candidates cannot have would drive A to infinity and
leave one of k candidates all weight: A is kept within bounds, and halved until the candidates keep
half of their effective number.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from torch import Tensor

from lfiw_ope.data.tensors import DeviceLog, thin
from lfiw_ope.drawing import draws
from lfiw_ope.ratio import Given, TransitionRatio, tilted
from lfiw_ope.ratio_fit import centred, members_of
from lfiw_ope.seeding import torch_generator

MOST_TRANSITIONS = 1 << 14
"""That moments are taken of: their error is then 1/128 of a standard deviation."""

MOST_NUMBERS = 1 << 25
"""Of candidates' outcomes that are kept at once, 128 MB."""

EACH = 10
"""Transitions that there must be for each number in A; with fewer, φ is 1 alone, and with fewer
than that for each entry of e, A is 0."""

RIDGE = 1e-3
"""Of |A|². At the minimum of Φ(A) + RIDGE |A|² the moments differ by 2 RIDGE A."""

MOST_TILT = 2.0
"""Of each number in A: with normal candidates, a shift of e by two standard deviations."""

LEAST_CANDIDATES = 0.5
"""Of the effective number of candidates, 1 / Σ_j p_j², that a tilt leaves, on average."""

ITERATIONS = 60
"""Of L-BFGS-B, at most."""

HALVINGS = 10


class Moments(NamedTuple):
    """How SIR's moments E[e φᵀ] differ from held-out ones, and how many candidates have weight.

    Attributes:
        gap: root mean square of the differences, in standard deviations of e, without the tilt.
        tilted_gap: the same with the tilt.
        candidates: mean of 1 / Σ_j p_j², without the tilt.
        tilted_candidates: the same with the tilt.
    """

    gap: float
    tilted_gap: float
    candidates: float
    tilted_candidates: float


def calibrate_moments(
    ratio: TransitionRatio,
    log: DeviceLog,
    episodes: Sequence[int],
    candidates: int,
    seed: int,
    *,
    left_out: Sequence[Sequence[int]] | None = None,
) -> tuple[TransitionRatio, Moments]:
    """The ratio with the tilt that gives SIR of k candidates the moments of these episodes.

    The moments themselves come with it.

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
            inputs.append(given)
            real_outcomes.append(outcome)
            features = ratio.features(ratio.given(state, action, drawn.mean), drawn)
            outcomes.append(ratio.parts(features)[1][:, 0])
            log_ratios.append(ratio.classifiers.log_ratio(features)[:, 0])
    given, real = torch.cat(inputs), torch.cat(real_outcomes)
    candidates_at = torch.cat(outcomes, 1), torch.cat(log_ratios, 1)
    columns = 1 + given.shape[-1]
    if len(rows) < EACH * real.shape[-1] * columns:
        columns = 1 if len(rows) >= EACH * real.shape[-1] else 0
    tilt = solve(given, real, *candidates_at, columns)
    gap, before = moments(torch.zeros_like(tilt), given, real, *candidates_at)
    tilted_gap, after = moments(tilt, given, real, *candidates_at)
    return ratio.with_tilt(tilt), Moments(gap, tilted_gap, before, after)


def solve(
    inputs: Tensor, real: Tensor, outcomes: Tensor, log_ratios: Tensor, columns: int
) -> Tensor:
    """A `[D, 1 + S + A]` that minimises Φ(A) + RIDGE |A|² at B pairs (s, a), within its bounds.

    Args:
        inputs: `[B, S + A]`, standardised (s, a).
        real: `[B, D]`, logged outcomes.
        outcomes: `[k, B, D]`, of the candidates.
        log_ratios: `[k, B]`, theirs.
        columns: of φ that A is not 0 in: all, 1, or 0.
    """
    tilt = real.new_zeros((real.shape[-1], 1 + inputs.shape[-1]))
    if not columns:
        return tilt

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        free = torch.as_tensor(flat, dtype=real.dtype, device=real.device).view(len(tilt), columns)
        free.requires_grad_()
        full = torch.nn.functional.pad(free, (0, tilt.shape[1] - columns))
        level = torch.logsumexp(log_ratios + tilted(full, inputs, outcomes), 0)
        value = (level - tilted(full, inputs, real)).mean() + RIDGE * free.square().sum()
        (slope,) = torch.autograd.grad(value, free)
        return value.item(), slope.flatten().double().cpu().numpy()

    with torch.enable_grad():
        found = minimize(
            loss,
            np.zeros(len(tilt) * columns),
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(-MOST_TILT, MOST_TILT),
            options={"maxiter": ITERATIONS},
        )
    tilt[:, :columns] = torch.as_tensor(found.x, dtype=tilt.dtype).view(len(tilt), columns)
    least = (
        LEAST_CANDIDATES * moments(torch.zeros_like(tilt), inputs, real, outcomes, log_ratios)[1]
    )
    for _ in range(HALVINGS):
        if moments(tilt, inputs, real, outcomes, log_ratios)[1] >= least:
            return tilt
        tilt = tilt / 2
    return torch.zeros_like(tilt)


def moments(
    tilt: Tensor, inputs: Tensor, real: Tensor, outcomes: Tensor, log_ratios: Tensor
) -> tuple[float, float]:
    """Root mean square of E[Σ_j p_j e_j φᵀ] − E[e φᵀ], and the mean of 1 / Σ_j p_j².

    The arguments are `solve`'s.
    """
    chance = torch.softmax(log_ratios + tilted(tilt, inputs, outcomes), 0).to(real.dtype)
    error = (chance[..., None] * outcomes).sum(0) - real
    phi = torch.nn.functional.pad(inputs, (1, 0), value=1.0)
    gap = error.T @ phi / len(phi)
    return float(gap.square().mean().sqrt()), float((1.0 / chance.square().sum(0)).mean())

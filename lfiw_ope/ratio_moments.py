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
balancing (Hainmueller 2012).
"""

from collections.abc import Sequence

import torch
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
"""Transitions that there must be for each number in A; with fewer, φ is 1 alone."""

RIDGE = 1e-3
"""Of |A|², so that A stays finite where the candidates cannot have the moments."""

ITERATIONS = 60
"""Of L-BFGS, at most."""


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
    inputs, real, outcomes, log_ratios = [], [], [], []
    with torch.no_grad():
        member = members_of(ratio.dynamics, log, left_out, seed)
        for some, centre in centred(ratio.config, ratio.dynamics, log, rows, member):
            state, action = some.state[None], some.action[None]
            drawn = draws(ratio.dynamics, state, action, candidates, generator)
            standardised = ratio.inputs(torch.cat((some.state, some.action), -1))
            given, outcome = ratio.parts(ratio.features(Given(standardised, centre), some))
            inputs.append(given)
            real.append(outcome)
            features = ratio.features(ratio.given(state, action, drawn.mean), drawn)
            outcomes.append(ratio.parts(features)[1][:, 0])
            log_ratios.append(ratio.classifiers.log_ratio(features)[:, 0])
    columns = 1 + inputs[0].shape[-1]
    if len(rows) < EACH * size * columns:
        columns = 1
    tilt = solve(
        torch.cat(inputs),
        torch.cat(real),
        torch.cat(outcomes, 1),
        torch.cat(log_ratios, 1),
        columns,
    )
    return ratio.with_tilt(tilt)


def solve(
    inputs: Tensor, real: Tensor, outcomes: Tensor, log_ratios: Tensor, columns: int
) -> Tensor:
    """A `[D, columns]` that minimises Φ(A) + RIDGE |A|² at B pairs (s, a).

    Args:
        inputs: `[B, S + A]`, standardised (s, a).
        real: `[B, D]`, logged outcomes.
        outcomes: `[k, B, D]`, of the candidates.
        log_ratios: `[k, B]`, theirs.
        columns: of φ, 1 + S + A, or 1.
    """
    tilt = real.new_zeros((real.shape[-1], columns)).requires_grad_()
    optimiser = torch.optim.LBFGS([tilt], max_iter=ITERATIONS, line_search_fn="strong_wolfe")
    log_ratios = log_ratios.to(real.dtype)

    def step() -> Tensor:
        optimiser.zero_grad()
        level = torch.logsumexp(log_ratios + tilted(tilt, inputs, outcomes), 0)
        loss = (level - tilted(tilt, inputs, real)).mean() + RIDGE * tilt.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimiser.step(step)  # type: ignore[no-untyped-call]
    return tilt.detach()

"""Simulation of policies in a dynamics model: one batched loop over time."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.protocols import Dynamics, LogRatio, Policy, Progress, Transition, silent
from lfiw_ope.core.seeding import torch_generator
from lfiw_ope.core.validation import whole
from lfiw_ope.dynamics import sampling as drawing
from lfiw_ope.dynamics.sampling import Draws
from lfiw_ope.stats.weighting import choose
from lfiw_ope.stats.weights import conditional_normalise

ROWS_AT_ONCE = 100_000
"""Rollouts times draws that are simulated in one call: about 1 GB at the default widths. More
policies are simulated in several calls, with the same numbers."""


@dataclass(frozen=True)
class Rollout:
    """n simulated rollouts of each of P policies.

    Attributes:
        rewards: `[P, n, T]`, undiscounted; 0 after the end. The terminal reward is in.
        alive: `[P, n, T]` bool, the rollout had not ended before step t.
        log_ratio: `[P, n, T]`, 0 after the end; None where no ratio was asked for. `[C, P, n, T]`
            where the ratio gives each classifier's own. With SIR the log of the candidates' mean
            ratio: zeros in its place drop it.
        conditional_log_ratio: the same, conditionally normalised with K draws; None for K = 1.
        bounded_share: `[P]`, of the alive steps, those whose drawn state was put back on the
            model's bounds.
        starts: `[n]` int64, which of the initial states each rollout began at.
    """

    rewards: Tensor
    alive: Tensor
    log_ratio: Tensor | None
    conditional_log_ratio: Tensor | None
    bounded_share: Tensor
    starts: Tensor

    def discounted(self, discount: float) -> Tensor:
        """`[P, n, T]`, γ^t r_t"""
        step = torch.arange(self.rewards.shape[-1], device=self.rewards.device)
        return self.rewards * torch.pow(
            torch.tensor(discount, dtype=torch.float64, device=step.device), step
        )


STREAMS = (
    *("starts", "actions", "transitions", "first transitions"),
    *("draws", "candidates"),
)
"""Of random numbers, each with one use."""

Watch = Callable[[int, Tensor, Tensor, Tensor], None]
"""Told of every step: its number, states `[P, n, S]`, actions `[P, n, A]` and alive `[P, n]`."""


@torch.inference_mode()
def simulate(
    policy: Policy,
    dynamics: Dynamics,
    initial_states: Tensor,
    *,
    horizon: int,
    rollouts: int | None,
    seed: int,
    policies: int = 1,
    first_action: Tensor | None = None,
    ratio: LogRatio | None = None,
    draws: int = 1,
    candidates: int = 1,
    watch: Watch | None = None,
    progress: Progress = silent,
) -> Rollout:
    """Roll `policy` out in `dynamics`, from initial states resampled with replacement.

    Starts, actions, transitions, further draws and the choice of candidates each have a random
    stream of their own, keyed by the seed and shared along the policy axis (common random numbers):
    a policy gives the same rollouts alone or among others, and, without candidates, with or without
    a ratio; differences between policies are less noisy than the
    values. What follows a given first action draws the numbers of rollouts that were given none.
    The loop copies nothing between host and device.

    Args:
        policy: acts on `[P, n, S]`.
        dynamics: what is simulated.
        initial_states: `[N, S]`, on the device that the simulation runs on.
        horizon: T.
        rollouts: n, of each policy; None for one from each initial state, in their order.
        seed: of every draw.
        policies: P, how many policies `policy` stacks.
        first_action: `[n, A]`, taken at step 0 in place of the policy's.
        ratio: where given, evaluated at every step.
        draws: K; with 2 or more, ratios are also conditionally normalised, by the rollout's own
            draw and K − 1 further ones at the same (s, a).
        candidates: k of sampling-importance-resampling (SIR; Rubin 1988; Grover et al. 2019,
            section 5): each step goes on from one of k draws, chosen in proportion to its ratio. A
            model that has `draw` draws them by one evaluation. The step's log-ratio is then that of
            the candidates' mean.
        watch: told of every step before it is simulated.
        progress: told how far the simulation is.

    Raises:
        ConfigError: if n, T, K or k is below 1, or several candidates meet no ratio, several draws,
            or separate classifiers' ratios.
    """
    resampled = rollouts is not None
    rollouts = len(initial_states) if rollouts is None else rollouts
    for name, count in (("rollouts", rollouts), ("horizon", horizon), ("draws", draws)):
        whole(name, count, least=1)
    _check_candidates(candidates, draws=draws, weighted=ratio is not None)
    device = initial_states.device
    starts, acting, moving, beginning, further, choosing = (
        torch_generator(seed, "rollout", name, device=device) for name in STREAMS
    )
    chosen = torch.arange(len(initial_states), device=device)
    if resampled:
        chosen = torch.randint(len(chosen), (rollouts,), generator=starts, device=device)
    state = initial_states[chosen].expand(policies, -1, -1)
    alive = torch.ones((policies, rollouts), dtype=torch.bool, device=device)
    # Time leads in memory, so that each step writes one contiguous block.
    shape = (horizon, policies, rollouts)
    record = _Record(shape, device)
    for t in range(horizon):
        if first_action is not None and t == 0:
            action, drawing_by = first_action.expand(policies, -1, -1), beginning
        else:
            action, drawing_by = policy.act(state, acting), moving
        if watch is not None:
            watch(t, state, action, alive)
        step: Transition
        if candidates > 1:  # one of its own would be one more call of the networks
            drawn = drawing.draws(dynamics, state, action, candidates, further)
        else:
            step = dynamics.sample(state, action, drawing_by)
            if ratio is not None:
                drawn = drawing.draws(dynamics, state, action, draws, further, own=step)
        if ratio is not None:
            ratios = ratio.log_ratio(state, action, drawn)
            if candidates > 1:
                _require_one_ratio(ratios)
                step, ratios = _one_of(drawn, ratios, choosing)
            record.add_ratios(t, alive, ratios)
        record.add_step(t, alive, step)
        alive = alive & ~step.terminated
        state = step.next_state
        progress("rollout", t + 1, horizon)
    return record.rollout(chosen)


def _check_candidates(candidates: int, *, draws: int, weighted: bool) -> None:
    """That candidates go with the ratio and the further draws.

    Raises:
        ConfigError: if they do not.
    """
    whole("candidates", candidates, least=1)
    if candidates > 1 and not weighted:
        raise ConfigError("Candidates are chosen by a density ratio, and none was given.")
    if candidates > 1 and draws > 1:
        raise ConfigError(
            f"candidates is {candidates} and draws is {draws}: both are draws of one step, to "
            "choose from or to normalise by; set one of them to 1."
        )


def _one_of(
    drawn: Draws, log_ratio: Tensor, generator: torch.Generator
) -> tuple[Transition, Tensor]:
    """SIR's choice among candidates `[K, P, n]`, and their mean log-ratio as one draw's."""
    # Drawn for the n axis; policies share it.
    uniform = torch.rand(
        log_ratio.shape[-1], dtype=torch.float64, generator=generator, device=log_ratio.device
    )
    index, mean = choose(log_ratio, uniform)
    taken = {
        name: values.take_along_dim(index.view(1, *index.shape, *(1,) * (values.ndim - 3)), 0)[0]
        for name, values in ((name, getattr(drawn, name)) for name in drawing.PER_DRAW)
    }
    return Draws(**taken), mean[None]


def _require_one_ratio(log_ratio: Tensor) -> None:
    """That ratios are `[K, P, n]`, with no C axis."""
    if log_ratio.ndim > 3:
        raise ConfigError(
            f"The ratio gives {log_ratio.shape[1]} estimates of each log-ratio, and candidates "
            "are chosen by one; average the classifiers' logits or ratios."
        )


class _Record:
    """What a simulation writes down, time first."""

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        """Of shape (T, P, n)."""
        self.rewards = torch.zeros(shape, dtype=torch.float32, device=device)
        self.alive = torch.zeros(shape, dtype=torch.bool, device=device)
        self.bounded = torch.zeros(shape[1], dtype=torch.int64, device=device)
        self.log_ratio: Tensor | None = None
        self.conditional: Tensor | None = None

    def add_step(self, t: int, alive: Tensor, step: Transition) -> None:
        self.alive[t] = alive
        self.rewards[t] = torch.where(alive, step.reward, 0.0)
        self.bounded += (step.bounded & alive).sum(-1)

    def add_ratios(self, t: int, alive: Tensor, ratios: Tensor) -> None:
        """Of K draws, `[K, P, n]` or `[K, C, P, n]`, the own one first."""
        if self.log_ratio is None:  # whether there is a C axis, the first ratios tell
            shape = (len(self.rewards), *ratios.shape[1:])
            self.log_ratio = self.rewards.new_zeros(shape)
            self.conditional = self.rewards.new_zeros(shape) if len(ratios) > 1 else None
        self.log_ratio[t] = torch.where(alive, ratios[0], 0.0)
        if self.conditional is not None:
            self.conditional[t] = torch.where(alive, conditional_normalise(ratios), 0.0)

    def rollout(self, starts: Tensor) -> Rollout:
        alive = self.alive.movedim(0, -1)
        return Rollout(
            self.rewards.movedim(0, -1),
            alive,
            _time_last(self.log_ratio),
            _time_last(self.conditional),
            self.bounded / alive.sum((1, 2)),
            starts,
        )


def _time_last(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.movedim(0, -1)

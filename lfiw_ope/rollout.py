"""Simulation of policies in a dynamics model: one batched loop over time."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lfiw_ope import drawing
from lfiw_ope.checks import whole
from lfiw_ope.seeding import torch_generator
from lfiw_ope.types import Dynamics, LogRatio, Policy, Progress, silent
from lfiw_ope.weights import conditional_normalise


@dataclass(frozen=True)
class Rollout:
    """n simulated rollouts of each of P policies.

    Attributes:
        rewards: `[P, n, T]`, undiscounted; 0 after the end. The terminal reward is in.
        alive: `[P, n, T]` bool, the rollout had not ended before step t.
        log_ratio: `[P, n, T]`, 0 after the end; None where no ratio was asked for.
        conditional_log_ratio: the same, conditionally normalised with K draws; None for K = 1.
        bounded_share: `[P]`, of the alive steps, those whose drawn state was put back on the
            model's bounds.
    """

    rewards: Tensor
    alive: Tensor
    log_ratio: Tensor | None
    conditional_log_ratio: Tensor | None
    bounded_share: Tensor

    def discounted(self, discount: float) -> Tensor:
        """`[P, n, T]`, γ^t r_t"""
        step = torch.arange(self.rewards.shape[-1], device=self.rewards.device)
        return self.rewards * torch.pow(
            torch.tensor(discount, dtype=torch.float64, device=step.device), step
        )


@torch.inference_mode()
def simulate(
    policy: Policy,
    dynamics: Dynamics,
    initial_states: Tensor,
    *,
    horizon: int,
    rollouts: int,
    seed: int,
    policies: int = 1,
    ratio: LogRatio | None = None,
    draws: int = 1,
    progress: Progress = silent,
) -> Rollout:
    """Roll `policy` out in `dynamics`, from initial states resampled with replacement.

    Starts, actions, transitions and normalising draws each have a random stream of their own,
    keyed by the seed and shared along the policy axis (common random numbers): a policy gives the
    same rollouts alone or among others, with or without a ratio, and differences between policies
    are less noisy than the values. The loop copies nothing between host and device.

    Args:
        policy: acts on `[P, n, S]`.
        dynamics: what is simulated.
        initial_states: `[N, S]`, on the device that the simulation runs on.
        horizon: T.
        rollouts: n, of each policy.
        seed: of every draw.
        policies: P, how many policies `policy` stacks.
        ratio: where given, evaluated at every step.
        draws: K; with 2 or more, ratios are also conditionally normalised, by the rollout's own
            draw and K − 1 further ones at the same (s, a).
        progress: told how far the simulation is.

    Raises:
        ConfigError: if n, T or K is below 1.
    """
    for name, count in (("rollouts", rollouts), ("horizon", horizon), ("draws", draws)):
        whole(name, count, least=1)
    device = initial_states.device
    starts, acting, moving, normalising = (
        torch_generator(seed, "rollout", name, device=device)
        for name in ("starts", "actions", "transitions", "draws")
    )
    chosen = torch.randint(len(initial_states), (rollouts,), generator=starts, device=device)
    state = initial_states[chosen].expand(policies, -1, -1)
    alive_now = torch.ones((policies, rollouts), dtype=torch.bool, device=device)
    # Time leads in memory, so that each step writes one contiguous block.
    shape = (horizon, policies, rollouts)
    zeros = partial(torch.zeros, shape, device=device, dtype=torch.float32)
    rewards = zeros()
    alive = torch.zeros(shape, dtype=torch.bool, device=device)
    log_ratio = None if ratio is None else zeros()
    normalised = None if ratio is None or draws == 1 else zeros()
    bounded = torch.zeros(policies, dtype=torch.int64, device=device)
    for t in range(horizon):
        action = policy.act(state, acting)
        step = dynamics.sample(state, action, moving)
        alive[t] = alive_now
        rewards[t] = torch.where(alive_now, step.reward, 0.0)
        bounded += (step.bounded & alive_now).sum(-1)
        if ratio is not None and log_ratio is not None:
            drawn = drawing.draws(dynamics, state, action, draws, normalising, own=step)
            ratios = ratio.log_ratio(state, action, drawn)
            log_ratio[t] = torch.where(alive_now, ratios[0], 0.0)
            if normalised is not None:
                normalised[t] = torch.where(alive_now, conditional_normalise(ratios), 0.0)
        alive_now = alive_now & ~step.terminated
        state = step.next_state
        progress("rollout", t + 1, horizon)
    return Rollout(
        rewards.permute(1, 2, 0),
        alive.permute(1, 2, 0),
        None if log_ratio is None else log_ratio.permute(1, 2, 0),
        None if normalised is None else normalised.permute(1, 2, 0),
        bounded / alive.sum((0, 2)),
    )

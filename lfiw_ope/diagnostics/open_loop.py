"""How a model's error grows where nothing corrects it: logged actions replayed in it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.core.seeding import numpy_generator, torch_generator
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnostics.rollouts import mean_step
from lfiw_ope.dynamics.ensemble import EnsembleDynamics

LEAST_EPISODES = 5
"""Replayed episodes that must still go on at a step for its error to be told."""

TOLERANCE = 1.1
"""What the model's error may be of the constant's before it is called no better: where the noise
has washed out where an episode began, a perfect model is the constant."""

SLACK = 0.05
"""Standard deviations of error that are none to speak of: where all rewards are the same, say, a
constant makes no error at all."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OpenLoop:
    """Errors of a model by the number of steps since it last saw a logged state.

    Held-out episodes are replayed from their initial states, with their logged actions. Errors are
    root mean squares over episodes; of states in standard deviations of each entry over the log,
    of rewards, cumulated and undiscounted, in standard deviations of the logged return. The
    constant predicts the mean of the other episodes at each step.

    Attributes:
        episodes: that were replayed.
        compared: the steps 1 to this one were, at least five episodes going on.
        lasting: the last step before the model's cumulative reward is no better than the
            constant's; `compared` where it is better throughout.
        lasting_states: the same of its states.
        state_error: `[compared]`, of the members' mean, each following its own.
        sampled_state_error: `[compared]`, of one draw a member, with noise: never below the former.
        constant_state_error: `[compared]`, of the constant.
        unchanged_state_error: `[compared]`, of the initial state for ever.
        reward_error: `[compared]`, of the members' mean.
        constant_reward_error: `[compared]`
        return_bias: mean error of the cumulative reward at the last compared step, predicted minus
            logged, in standard deviations of the logged return.
        return_bias_error: its standard error over episodes.
    """

    episodes: int
    compared: int
    lasting: int
    lasting_states: int
    state_error: tuple[float, ...]
    sampled_state_error: tuple[float, ...]
    constant_state_error: tuple[float, ...]
    unchanged_state_error: tuple[float, ...]
    reward_error: tuple[float, ...]
    constant_reward_error: tuple[float, ...]
    return_bias: float
    return_bias_error: float | None

    @property
    def lasting_share(self) -> float:
        """Of the steps that were compared, those where the model's reward is of use."""
        return self.lasting / self.compared


class _Padded:
    """Some episodes side by side, over T steps."""

    def __init__(self, data: Trajectories, horizon: int) -> None:
        self.steps = min(horizon, int(data.lengths.max()))
        step = np.arange(self.steps)
        self.taken = step < data.lengths[:, None]
        row = np.where(self.taken, data.offsets[:-1, None] + step, 0)
        after = np.minimum(step + 1, data.lengths[:, None])
        self.initial = data.initial_states
        self.states: NDArray[np.float32] = data.states[data.state_offsets[:-1, None] + after]
        self.actions: NDArray[np.float32] = data.actions[row]
        rewards = np.where(self.taken, data.rewards[row].astype(np.float64), 0.0)
        self.cumulative: Array = rewards.cumsum(1)

    def mean(self, values: NDArray[np.floating]) -> Array:
        """Over the episodes that take a step, `[T, ...]` of `[N, T, ...]`; NaN where none does."""
        shown = self.taken.reshape(*self.taken.shape, *(1,) * (values.ndim - 2))
        count = shown.sum(0)
        total = np.where(shown, values, 0.0).sum(0, dtype=np.float64)
        return np.asarray(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))


def open_loop(
    data: Trajectories,
    dynamics: EnsembleDynamics,
    held_out: NDArray[np.int64],
    *,
    horizon: int,
    most: int,
    seed: int,
) -> OpenLoop | None:
    """Replay episodes that the model was not trained on.

    Args:
        data: the log.
        dynamics: the model.
        held_out: these episodes' numbers.
        horizon: steps at most.
        most: episodes at most.
        seed: of which ones, and of the draws.

    Returns:
        None where fewer than `LEAST_EPISODES` are held out, or all are.
    """
    others = np.setdiff1d(np.arange(data.num_episodes), held_out)
    if len(held_out) < LEAST_EPISODES or not len(others):
        return None
    rng = numpy_generator(seed, "diagnosis", "open loop")
    replayed = rng.permutation(held_out)[:most]
    constant = _Padded(data.select(rng.permutation(others)[: 10 * most]), horizon)
    logged = _Padded(data.select(replayed), horizon)
    steps = min(constant.steps, logged.steps)
    steps = int(np.flatnonzero(logged.taken[:, :steps].sum(0) >= LEAST_EPISODES)[-1]) + 1
    scale = data.states.std(0, dtype=np.float64)
    scale = np.where(scale > 1e-6, scale, np.inf)  # an entry that never varies has no error
    unit = float(data.returns(horizon).std())
    unit = unit if unit > 0 else 1.0
    means, rewards = _replay(dynamics, logged, steps, None)
    draws, _ = _replay(
        dynamics, logged, steps, torch_generator(seed, "open loop", device=dynamics.low.device)
    )
    typical, earned = constant.mean(constant.states)[:steps], constant.mean(constant.cumulative)
    truth, cumulative = logged.states[:, :steps], logged.cumulative[:, :steps]
    taken = logged.taken[:, :steps]

    def of_states(predicted: NDArray[np.floating]) -> Array:
        error = ((predicted - truth) / scale).astype(np.float64) ** 2
        return _root_mean(error.sum(-1) / np.isfinite(scale).sum().clip(1), taken)

    def of_rewards(predicted: Array) -> Array:
        return _root_mean(((predicted - cumulative) / unit) ** 2, taken)

    each = np.stack([of_states(one) for one in draws])
    found, plain = of_states(means.mean(0)), of_states(typical[None])
    of_model, of_constant = of_rewards(rewards.mean(0)), of_rewards(earned[None, :steps])
    bias = ((rewards.mean(0) - cumulative) / unit)[taken[:, -1], -1]
    return OpenLoop(
        episodes=len(replayed),
        compared=steps,
        lasting=_lasting(of_model, of_constant),
        lasting_states=_lasting(found, plain),
        state_error=_listed(found),
        sampled_state_error=_listed(np.sqrt((each**2).mean(0))),
        constant_state_error=_listed(plain),
        unchanged_state_error=_listed(of_states(logged.initial[:, None])),
        reward_error=_listed(of_model),
        constant_reward_error=_listed(of_constant),
        return_bias=float(bias.mean()),
        return_bias_error=float(bias.std(ddof=1) / np.sqrt(len(bias))) if len(bias) > 1 else None,
    )


@torch.no_grad()
def _replay(
    dynamics: EnsembleDynamics, logged: _Padded, steps: int, generator: torch.Generator | None
) -> tuple[NDArray[np.float32], Array]:
    """States `[M, N, T, S]` and cumulative rewards `[M, N, T]`: of means, or of draws."""
    device, members = dynamics.low.device, dynamics.config.members
    initial = torch.from_numpy(logged.initial.copy()).to(device)
    actions = torch.from_numpy(logged.actions[:, :steps].copy()).to(device)
    state = initial.expand(members, -1, -1)
    states: list[Tensor] = []
    rewards: list[Tensor] = []
    for t in range(steps):
        action = actions[:, t].expand(members, -1, -1)
        if generator is None:
            state, reward = mean_step(dynamics, state, action)
        else:
            # Independent draws: the n axis, where random numbers are, holds members too.
            step = dynamics.sample(state.flatten(0, 1), action.flatten(0, 1), generator)
            state, reward = step.next_state.view_as(state), step.reward.view(state.shape[:-1])
        states.append(state)
        rewards.append(reward)
    cumulative = torch.stack(rewards, -1).double().cumsum(-1)
    return torch.stack(states, -2).cpu().numpy(), cumulative.cpu().numpy()


def _root_mean(squares: Array, taken: NDArray[np.bool_]) -> Array:
    """`[T]`, over the episodes that take each step."""
    total = np.where(taken, squares, 0.0).sum(0)
    return np.asarray(np.sqrt(total / taken.sum(0)))


def _lasting(error: Array, constant: Array) -> int:
    """The last step before an error is no better than the constant's."""
    worse = np.flatnonzero(error > TOLERANCE * constant + SLACK)
    return int(worse[0]) if len(worse) else len(error)


def _listed(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)

"""Reward functions. They compute in the states' dtype: float32 differences of positions, divided by
a short time, are the least exact; each such class says by how much."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_envs.rules.record import Rule


@dataclass(frozen=True)
class ConstantReward:
    """The same at every step, the last one too."""

    value: float

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.full_like(next_state[..., 0], self.value)


@dataclass(frozen=True)
class StepReward:
    """One reward at each step that goes on, and another at the step that ends the episode."""

    going: float
    ending: float
    termination: Rule

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        ended = self.termination(state, action, next_state).to(next_state.dtype)
        return self.going + (self.ending - self.going) * ended


@dataclass(frozen=True)
class ForwardReward:
    """w (x' − x) / Δt − c ‖a‖² + h · [healthy]; x is the first entry of the state, in metres.

    In float32 a step at x metres is off by about 6e-8 · |x| w / Δt: 1e-5 at 1 m on Hopper
    (Δt = 0.008 s), 1e-6 at 1 m on HalfCheetah and Swimmer.

    Attributes:
        time: Δt between observations, in seconds.
        forward_weight: w.
        control_weight: c.
        healthy_reward: h.
        termination: where it holds, h is not paid; None pays it always.
    """

    time: float
    forward_weight: float
    control_weight: float
    healthy_reward: float = 0.0
    termination: Rule | None = None

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        forward = (next_state[..., 0] - state[..., 0]) * (self.forward_weight / self.time)
        reward = forward - self.control_weight * action.square().sum(-1)
        if self.termination is None:
            return reward + self.healthy_reward
        ended = self.termination(state, action, next_state).to(reward.dtype)
        return reward + self.healthy_reward * (1.0 - ended)


@dataclass(frozen=True)
class StandupReward:
    """z' / 0.003 − c ‖a‖² − clip(k Σ f², range) + 1; f are the contact forces in the next state.

    0.003 s is the simulation's time step, which the reward divides by whatever the frame skip.

    Attributes:
        height: entry of z, in metres.
        forces: so many last entries of the state are f, or 0.
        control_weight: c.
        impact_weight: k.
        impact_range: what the impact cost is clipped to.
    """

    height: int
    forces: int
    control_weight: float
    impact_weight: float
    impact_range: tuple[float, float]

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        force = next_state[..., next_state.shape[-1] - self.forces :]
        impact = (self.impact_weight * force.square().sum(-1)).clamp(*self.impact_range)
        control = self.control_weight * action.square().sum(-1)
        return next_state[..., self.height] / 0.003 - control - impact + 1.0


@dataclass(frozen=True)
class ReachReward:
    """−w ‖tip − target‖ − c ‖a‖².

    Attributes:
        vector: entries of tip − target: the first and the one after the last, in metres.
        distance_weight: w.
        control_weight: c.
        before: the distance is that before the step, as it was up to v4.
    """

    vector: tuple[int, int]
    distance_weight: float
    control_weight: float
    before: bool

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        vector = (state if self.before else next_state)[..., slice(*self.vector)]
        distance: Tensor = torch.linalg.vector_norm(vector, dim=-1)
        return -self.distance_weight * distance - self.control_weight * action.square().sum(-1)


@dataclass(frozen=True)
class PushReward:
    """−w ‖object − goal‖ − k ‖object − tip‖ − c ‖a‖²; positions `[3]` from entries 20, 17 and 14.

    Attributes:
        goal_weight: w.
        near_weight: k.
        control_weight: c.
        before: the distances are those before the step, as they were up to v4.
    """

    goal_weight: float
    near_weight: float
    control_weight: float
    before: bool

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        places = state if self.before else next_state
        tip, pushed, goal = places[..., 14:17], places[..., 17:20], places[..., 20:23]
        far: Tensor = torch.linalg.vector_norm(pushed - goal, dim=-1)
        near: Tensor = torch.linalg.vector_norm(pushed - tip, dim=-1)
        distances = self.goal_weight * far + self.near_weight * near
        return -distances - self.control_weight * action.square().sum(-1)


@dataclass(frozen=True)
class PendulumReward:
    """−(θ² + 0.1 ω² + 0.001 u²) of the state before the step; θ from its cosine and sine."""

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        angle = torch.atan2(state[..., 1], state[..., 0])
        torque = action[..., 0].clamp(-2.0, 2.0)
        costs = angle.square() + 0.1 * state[..., 2].square() + 0.001 * torque.square()
        return -costs


@dataclass(frozen=True)
class ReachesGoalReward:
    """Continuous mountain car: 100 at the goal, −0.1 a² at every step."""

    termination: Rule

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        ended = self.termination(state, action, next_state).to(next_state.dtype)
        return 100.0 * ended - 0.1 * action[..., 0].square()


@dataclass(frozen=True)
class LedgeReward:
    """(1 + x') / 2 + (1 − y') / 2 − c ‖a‖².

    Attributes:
        control_weight: c.
    """

    control_weight: float

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        x, y = next_state[..., 0], next_state[..., 1]
        control = self.control_weight * action.clamp(-1.0, 1.0).square().sum(-1)
        return (1.0 + x) / 2 + (1.0 - y) / 2 - control

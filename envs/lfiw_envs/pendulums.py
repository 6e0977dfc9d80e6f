"""Pendulum-v1 with an actuator that fails at random. Importing this module imports Gymnasium."""

from dataclasses import dataclass
from math import pi

import gymnasium
import numpy as np

from lfiw_envs.array_env import Array, ArrayEnv, ArrayVectorEnv, Step

EPISODE = 200
"""Steps of an episode, as of Pendulum-v1."""

TORQUE = 2.0
"""Commands are clipped to ±TORQUE, in N m."""

SPEED = 8.0
"""Angular velocities are clipped to ±SPEED, in rad/s."""

DROPOUT_PROBABILITY = 0.25
"""Of a step whose torque is lost."""

DELAY_PROBABILITY = 0.5
"""Of a step that executes the previous command."""

ACTIONS = gymnasium.spaces.Box(-TORQUE, TORQUE, (1,))


def observations(*more: float) -> gymnasium.spaces.Box:
    """Space of cos θ, sin θ, the angular velocity and further entries within these bounds."""
    high = np.array([1.0, 1.0, SPEED, *more], np.float32)
    return gymnasium.spaces.Box(-high, high)


def start(rng: np.random.Generator, count: int) -> Array:
    """First angles and angular velocities `[n, 2]`, as of Pendulum-v1."""
    return rng.uniform([-pi, -1.0], [pi, 1.0], (count, 2))


def observe(state: Array) -> Array:
    """cos θ, sin θ and the other entries of states `[n, K]`, float32."""
    angle = state[:, :1]
    seen = np.concatenate([np.cos(angle), np.sin(angle), state[:, 1:]], axis=1)
    return seen.astype(np.float32)


def swing(state: Array, torque: Array) -> tuple[Array, Array]:
    """One step of Pendulum-v1.

        ω' = clip(ω + (15 sin θ + 3 u) 0.05),   θ' = θ + 0.05 ω'
        r = -(θ² + 0.1 ω² + 0.001 u²), θ within ±π

    Args:
        state: `[n, 2]`, θ and ω.
        torque: `[n]`, executed.

    Returns:
        Next states `[n, 2]` and rewards `[n]`.
    """
    angle, speed = state[:, 0], state[:, 1]
    from_top = (angle + pi) % (2 * pi) - pi
    cost = from_top**2 + 0.1 * speed**2 + 0.001 * torque**2
    speed = np.clip(speed + (15.0 * np.sin(angle) + 3.0 * torque) * 0.05, -SPEED, SPEED)
    return np.stack([angle + 0.05 * speed, speed], axis=1), -cost


def commanded(action: Array) -> Array:
    """Clipped commands `[n]` of actions `[n, 1]`."""
    return np.clip(action[:, 0].astype(np.float64), -TORQUE, TORQUE)


@dataclass(frozen=True)
class DropoutPhysics:
    """A pendulum whose torque is 0 in a random part of the steps; the reward charges what is left.

    Attributes:
        dropout_probability: of a step whose torque is lost.
    """

    dropout_probability: float = DROPOUT_PROBABILITY

    @property
    def observations(self) -> gymnasium.spaces.Box:
        return observations()

    @property
    def actions(self) -> gymnasium.spaces.Box:
        return ACTIONS

    def start(self, rng: np.random.Generator, count: int) -> Array:
        return start(rng, count)

    def observe(self, state: Array) -> Array:
        return observe(state)

    def execute(self, rng: np.random.Generator, action: Array) -> Array:
        """Executed torques `[n]`."""
        lost = rng.random(len(action)) < self.dropout_probability
        return np.where(lost, 0.0, commanded(action))

    def advance(self, rng: np.random.Generator, state: Array, action: Array) -> Step:
        reached, reward = swing(state, self.execute(rng, action))
        return Step(reached, reward, np.zeros(len(state), bool))


@dataclass(frozen=True)
class DelayPhysics:
    """A pendulum whose actuator executes the previous command in a random part of the steps.

    The observation is cos θ, sin θ, the angular velocity and the previous command, which is 0 at
    first: nothing that follows depends on anything else of the past. The reward charges the torque
    that was executed.

    Attributes:
        delay_probability: of a step that executes the previous command.
    """

    delay_probability: float = DELAY_PROBABILITY

    @property
    def observations(self) -> gymnasium.spaces.Box:
        return observations(TORQUE)

    @property
    def actions(self) -> gymnasium.spaces.Box:
        return ACTIONS

    def start(self, rng: np.random.Generator, count: int) -> Array:
        return np.concatenate([start(rng, count), np.zeros((count, 1))], axis=1)

    def observe(self, state: Array) -> Array:
        return observe(state)

    def execute(self, rng: np.random.Generator, state: Array, action: Array) -> Array:
        """Executed torques `[n]`."""
        late = rng.random(len(action)) < self.delay_probability
        return np.where(late, state[:, 2], commanded(action))

    def advance(self, rng: np.random.Generator, state: Array, action: Array) -> Step:
        reached, reward = swing(state[:, :2], self.execute(rng, state, action))
        reached = np.concatenate([reached, commanded(action)[:, None]], axis=1)
        return Step(reached, reward, np.zeros(len(state), bool))


class DropoutPendulum(ArrayEnv):
    """One pendulum that loses torques.

    Args:
        kwargs: of `DropoutPhysics`.
    """

    def __init__(self, render_mode: str | None = None, **kwargs: float) -> None:
        super().__init__(DropoutPhysics(**kwargs), render_mode)


class VectorDropoutPendulum(ArrayVectorEnv):
    """Many pendulums that lose torques.

    Args:
        kwargs: of `DropoutPhysics`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = EPISODE,
        render_mode: str | None = None,
        **kwargs: float,
    ) -> None:
        super().__init__(DropoutPhysics(**kwargs), num_envs, max_episode_steps, render_mode)


class DelayedPendulum(ArrayEnv):
    """One pendulum with delays.

    Args:
        kwargs: of `DelayPhysics`.
    """

    def __init__(self, render_mode: str | None = None, **kwargs: float) -> None:
        super().__init__(DelayPhysics(**kwargs), render_mode)


class VectorDelayedPendulum(ArrayVectorEnv):
    """Many pendulums with delays.

    Args:
        kwargs: of `DelayPhysics`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = EPISODE,
        render_mode: str | None = None,
        **kwargs: float,
    ) -> None:
        super().__init__(DelayPhysics(**kwargs), num_envs, max_episode_steps, render_mode)

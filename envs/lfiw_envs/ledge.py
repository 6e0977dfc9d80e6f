"""A point mass on a ledge, with gusts in one half of it: one environment and many at a time.

The physics are functions over arrays, so that both environments share them and values can be
measured by hundreds of thousands of episodes. Importing this module imports Gymnasium.
"""

from dataclasses import dataclass

import gymnasium
import numpy as np

from lfiw_envs.array_env import Array, ArrayEnv, ArrayVectorEnv, Step

EPISODE = 40
"""Steps of an episode."""

TIME = 0.1
"""Seconds of a step."""

THRUST = 2.0
"""Acceleration of a full action, in m/s²."""

DRAG = 0.95
"""Share of its velocity that the mass keeps in a step."""

LENGTH = 1.0
"""Half the ledge's length: x is from -LENGTH to LENGTH, in m."""

WIDTH = 1.0
"""The edge is at y = 0 and a wall at y = WIDTH, in m."""

SPEED = 5.0
"""Velocities are clipped to ±SPEED in either direction, in m/s."""

CONTROL = 0.05
"""Cost of a squared action."""

GUST_PROBABILITY = 0.15
"""Of a gust in a step that begins in the gusty half, x > 0."""

GUST_SIZE = 1.0
"""Standard deviation of a gust's change of velocity in either direction, in m/s."""

OBSERVATIONS = gymnasium.spaces.Box(
    np.array([-LENGTH, -TIME * SPEED, -SPEED, -SPEED], np.float32),
    np.array([LENGTH, WIDTH, SPEED, SPEED], np.float32),
)
ACTIONS = gymnasium.spaces.Box(-1.0, 1.0, (2,))


def start(rng: np.random.Generator, count: int) -> Array:
    """First states `[n, 4]`: at rest in the calm half, half way between edge and wall."""
    place = rng.uniform([-0.9, 0.4], [-0.5, 0.6], (count, 2))
    return np.concatenate([place, np.zeros((count, 2))], axis=1).astype(np.float32)


def gusts(
    rng: np.random.Generator,
    state: Array,
    probability: float = GUST_PROBABILITY,
    size: float = GUST_SIZE,
) -> Array:
    """Changes of velocity `[n, 2]`: zero for most, and for all masses in the calm half.

    Numbers are drawn for every mass, so that what one mass meets does not depend on where the
    others are.
    """
    blows = rng.random(len(state)) < probability
    kicks = size * rng.standard_normal((len(state), 2))
    return kicks * (blows & (state[:, 0] > 0.0))[:, None]


def advance(state: Array, action: Array, gust: Array) -> Step:
    """One step of n masses.

        v' = 0.95 v + 0.2 a + gust,   (x', y') = (x, y) + 0.1 v'

    The mass stops at the ends of the ledge and at the wall behind it, and falls where y' < 0. It is
    paid for its way along the ledge and for being near the edge:

        r = (1 + x') / 2 + (1 - y') / 2 - 0.05 |a|²

    Args:
        state: `[n, 4]`: x, y and the velocities, float32.
        action: `[n, 2]`, clipped to ±1.
        gust: `[n, 2]`, added to the velocities.
    """
    push = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
    place, velocity = np.asarray(state[:, :2], np.float64), np.asarray(state[:, 2:], np.float64)
    velocity = np.clip(DRAG * velocity + TIME * THRUST * push + gust, -SPEED, SPEED)
    place = place + TIME * velocity
    stopped = np.stack([np.abs(place[:, 0]) > LENGTH, place[:, 1] > WIDTH], axis=1)
    velocity = np.where(stopped, 0.0, velocity)
    place = np.clip(place, [-LENGTH, -np.inf], [LENGTH, WIDTH])
    # Rounded first: reward and fall are functions of what is observed.
    reached = np.concatenate([place, velocity], axis=1).astype(np.float32)
    x, y = reached[:, 0].astype(np.float64), reached[:, 1].astype(np.float64)
    reward = (1.0 + x) / 2 + (1.0 - y) / 2 - CONTROL * np.square(push).sum(1)
    return Step(reached, reward, y < 0.0)


@dataclass(frozen=True)
class LedgePhysics:
    """The ledge as an environment's physics.

    Attributes:
        gust_probability: of a gust in a step that begins in the gusty half.
        gust_size: standard deviation of its change of velocity, in m/s.
    """

    gust_probability: float = GUST_PROBABILITY
    gust_size: float = GUST_SIZE

    @property
    def observations(self) -> gymnasium.spaces.Box:
        return OBSERVATIONS

    @property
    def actions(self) -> gymnasium.spaces.Box:
        return ACTIONS

    def start(self, rng: np.random.Generator, count: int) -> Array:
        return start(rng, count)

    def observe(self, state: Array) -> Array:
        return state.copy()

    def advance(self, rng: np.random.Generator, state: Array, action: Array) -> Step:
        return advance(state, action, gusts(rng, state, self.gust_probability, self.gust_size))


class Ledge(ArrayEnv):
    """One mass.

    Args:
        kwargs: of `LedgePhysics`.
    """

    def __init__(self, render_mode: str | None = None, **kwargs: float) -> None:
        super().__init__(LedgePhysics(**kwargs), render_mode)


class VectorLedge(ArrayVectorEnv):
    """Many masses.

    Args:
        kwargs: of `LedgePhysics`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = EPISODE,
        render_mode: str | None = None,
        **kwargs: float,
    ) -> None:
        super().__init__(LedgePhysics(**kwargs), num_envs, max_episode_steps, render_mode)

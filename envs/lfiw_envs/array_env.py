"""Environments whose physics are a function over arrays: one copy, or many in one array.

Importing this module imports Gymnasium.
"""

from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

Array = NDArray[Any]


class Step(NamedTuple):
    """Outcome of one step of n copies: states `[n, K]`, rewards `[n]` and terminations `[n]`."""

    state: Array
    reward: Array
    terminated: Array


class Physics(Protocol):
    """A Markov decision process over arrays.

    What a copy meets depends on its own state and random numbers alone, and as many are drawn in
    every state.
    """

    @property
    def observations(self) -> gymnasium.spaces.Box:
        """Space of one observation."""
        ...

    @property
    def actions(self) -> gymnasium.spaces.Box:
        """Space of one action."""
        ...

    def start(self, rng: np.random.Generator, count: int) -> Array:
        """First states `[n, K]`."""
        ...

    def observe(self, state: Array) -> Array:
        """Observations `[n, S]` float32 of states `[n, K]`."""
        ...

    def advance(self, rng: np.random.Generator, state: Array, action: Array) -> Step:
        """One step under actions `[n, A]`."""
        ...


class ArrayEnv(gymnasium.Env[Array, Array]):
    """One copy; `gymnasium.make` adds the time limit.

    Args:
        physics: of the environment.
        render_mode: none is known.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, physics: Physics, render_mode: str | None = None) -> None:
        self.physics = physics
        self.render_mode = render_mode
        self.observation_space, self.action_space = physics.observations, physics.actions
        self.state: Array = np.zeros((0, 0))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.state = self.physics.start(self.np_random, 1)
        return self.physics.observe(self.state)[0], {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        step = self.physics.advance(self.np_random, self.state, np.asarray(action)[None])
        self.state = step.state
        reached = self.physics.observe(step.state)[0]
        return reached, float(step.reward[0]), bool(step.terminated[0]), False, {}


class ArrayVectorEnv(gymnasium.vector.VectorEnv[Array, Array, Array]):
    """Many copies; resets in the step after an episode's end, as `SyncVectorEnv` does.

    All draw from one generator. A single copy meets what `ArrayEnv` meets by the same seed, up to
    the end of its first episode.

    Args:
        physics: of the environment.
        num_envs: n.
        max_episode_steps: after which an episode is truncated.
        render_mode: none is known.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        physics: Physics,
        num_envs: int,
        max_episode_steps: int,
        render_mode: str | None = None,
    ) -> None:
        self.physics = physics
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.render_mode = render_mode
        self.single_observation_space = physics.observations
        self.single_action_space = physics.actions
        self.observation_space = batch_space(physics.observations, num_envs)
        self.action_space = batch_space(physics.actions, num_envs)
        self.state: Array = np.zeros((0, 0))
        self.steps = np.zeros(num_envs, np.int64)
        self.ended = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """First observations `[n, S]`; one seed for all copies, as there is one generator."""
        super().reset(seed=seed, options=options)  # type: ignore[arg-type]
        self.state = self.physics.start(self.np_random, self.num_envs)
        self.steps = np.zeros(self.num_envs, np.int64)
        self.ended = np.zeros(self.num_envs, bool)
        return self.physics.observe(self.state), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        over = self.ended
        step = self.physics.advance(self.np_random, self.state, np.asarray(actions))
        self.state = step.state
        if over.any():
            self.state[over] = self.physics.start(self.np_random, int(over.sum()))
        self.steps = np.where(over, 0, self.steps + 1)
        reward = np.where(over, 0.0, step.reward)
        terminated = step.terminated & ~over
        truncated = (self.steps >= self.max_episode_steps) & ~over
        self.ended = terminated | truncated
        return self.physics.observe(self.state), reward, terminated, truncated, {}

"""MuJoCo tasks whose root is pushed at random. Importing this module imports MuJoCo."""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from numpy.typing import NDArray

PUSH_PROBABILITY = 0.04
"""Of a push in a step."""

Sizes = tuple[float, float, float]

HOPPER_SIZES: Sizes = (0.5, 1.0, 0.5)
"""Standard deviations of a push (forward, up, pitch), in m/s, m/s and rad/s: a little less than
those of the root's own velocities under trained policies, (0.6, 1.4, 0.7)."""

CHEETAH_SIZES: Sizes = (1.0, 1.0, 2.0)
"""As of Hopper: about those of the root's own velocities under trained policies, (1.2, 0.8, 1.9).
"""


class Pushed:
    """Random changes of the root's velocities before a step, for a MuJoCo environment.

    The environment's first three velocities must be the root's: forward, up and pitch.

    Args:
        push_probability: of a push in a step.
        push_sizes: standard deviations of the changes, in m/s, m/s and rad/s.
        kwargs: of the environment.

    Attributes:
        pushed: whether the last step began with a push.
    """

    sizes: Sizes
    np_random: np.random.Generator
    data: Any

    def __init__(
        self,
        push_probability: float = PUSH_PROBABILITY,
        push_sizes: Sizes | None = None,
        **kwargs: Any,
    ) -> None:
        self.push_probability = push_probability
        self.push_sizes = self.sizes if push_sizes is None else push_sizes
        self.pushed = False
        super().__init__(**kwargs)

    def push(self) -> bool:
        """Whether the root is pushed; as many random numbers are drawn either way."""
        pushed = bool(self.np_random.random() < self.push_probability)
        kick = self.np_random.standard_normal(3) * self.push_sizes
        if pushed:
            self.data.qvel[:3] += kick
        return pushed

    def step(self, action: NDArray[Any]) -> Any:
        self.pushed = self.push()
        return super().step(action)  # type: ignore[misc]


class PushedHopper(Pushed, HopperEnv):
    """Hopper-v5 with random changes of the root's velocities; takes what Hopper-v5 takes too."""

    sizes = HOPPER_SIZES


class PushedHalfCheetah(Pushed, HalfCheetahEnv):
    """HalfCheetah-v5, as `PushedHopper`."""

    sizes = CHEETAH_SIZES

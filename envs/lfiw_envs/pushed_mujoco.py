"""MuJoCo tasks whose root is pushed at random. Importing this module imports MuJoCo."""

from typing import Any

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


def push(env: Any, probability: float, sizes: Sizes) -> bool:
    """Change the root's velocities (forward, up, pitch) with this probability, before a step.

    Args:
        env: a MuJoCo environment whose first three velocities are the root's.
        probability: of a push.
        sizes: standard deviations of the changes, in m/s, m/s and rad/s.

    Returns:
        Whether it was pushed.
    """
    pushed = bool(env.np_random.random() < probability)
    kick = env.np_random.standard_normal(3) * sizes
    if pushed:
        env.data.qvel[:3] += kick
    return pushed


class PushedHopper(HopperEnv):
    """Hopper-v5 with random changes of the root's velocities.

    Args:
        push_probability: of a push in a step.
        push_sizes: standard deviations of the changes.
        kwargs: as of Hopper-v5.
    """

    def __init__(
        self,
        push_probability: float = PUSH_PROBABILITY,
        push_sizes: Sizes = HOPPER_SIZES,
        **kwargs: Any,
    ) -> None:
        self.push_probability, self.push_sizes = push_probability, push_sizes
        self.pushed = False
        super().__init__(**kwargs)

    def step(self, action: NDArray[Any]) -> Any:
        self.pushed = push(self, self.push_probability, self.push_sizes)
        return super().step(action)  # type: ignore[no-untyped-call]


class PushedHalfCheetah(HalfCheetahEnv):
    """HalfCheetah-v5 with random changes of the root's velocities.

    Args:
        push_probability: of a push in a step.
        push_sizes: standard deviations of the changes.
        kwargs: as of HalfCheetah-v5.
    """

    def __init__(
        self,
        push_probability: float = PUSH_PROBABILITY,
        push_sizes: Sizes = CHEETAH_SIZES,
        **kwargs: Any,
    ) -> None:
        self.push_probability, self.push_sizes = push_probability, push_sizes
        self.pushed = False
        super().__init__(**kwargs)

    def step(self, action: NDArray[Any]) -> Any:
        self.pushed = push(self, self.push_probability, self.push_sizes)
        return super().step(action)  # type: ignore[no-untyped-call]

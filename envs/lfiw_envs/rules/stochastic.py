"""This package's environments with random transitions; randomness changes no rule.

Keyword arguments are those of the environment that each is derived from.
"""

import math
from functools import wraps
from typing import Any

from lfiw_envs.rules import locomotion
from lfiw_envs.rules.record import NEVER, EnvironmentRules
from lfiw_envs.rules.rewards import LedgeReward
from lfiw_envs.rules.terminations import LeavesRange, Range

EXECUTED = "it charges the torque that was executed, which is at random not the commanded one"


def ledge(env_id: str, version: int) -> EnvironmentRules:
    return EnvironmentRules(
        env_id=env_id,
        state_size=4,
        termination=LeavesRange((Range(1, 0.0, math.inf),), closed=True),
        reward=LedgeReward(0.05),
    )


def dropout_pendulum(env_id: str, version: int) -> EnvironmentRules:
    return EnvironmentRules(env_id=env_id, state_size=3, termination=NEVER, reward_note=EXECUTED)


def delayed_pendulum(env_id: str, version: int) -> EnvironmentRules:
    return EnvironmentRules(env_id=env_id, state_size=4, termination=NEVER, reward_note=EXECUTED)


@wraps(locomotion.hopper, assigned=())  # the same arguments
def pushed_hopper(env_id: str, version: int, **kwargs: Any) -> EnvironmentRules:
    """As of Hopper-v5: a push changes velocities before the step, and no position."""
    return locomotion.hopper(env_id, 5, **kwargs)


@wraps(locomotion.half_cheetah, assigned=())
def pushed_half_cheetah(env_id: str, version: int, **kwargs: Any) -> EnvironmentRules:
    """As of HalfCheetah-v5: a push changes velocities before the step, and no position."""
    return locomotion.half_cheetah(env_id, 5, **kwargs)

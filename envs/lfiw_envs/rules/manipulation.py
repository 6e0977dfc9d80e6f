"""MuJoCo's arms and pendulums, as Gymnasium's sources have them; keyword arguments are theirs."""

from lfiw_envs.rules.record import NEVER, EnvironmentRules
from lfiw_envs.rules.rewards import ConstantReward, PushReward, ReachReward, StepReward
from lfiw_envs.rules.terminations import LeavesRange, Range, TipFalls


def inverted_pendulum(env_id: str, version: int) -> EnvironmentRules:
    falls = LeavesRange((Range(1, -0.2, 0.2),), closed=True, finite=4)
    # Up to v4 the step that lets the pole fall was paid like any other.
    reward = ConstantReward(1.0) if version < 5 else StepReward(1.0, 0.0, falls)
    return EnvironmentRules(env_id=env_id, state_size=4, termination=falls, reward=reward)


def inverted_double_pendulum(env_id: str, version: int) -> EnvironmentRules:
    stale = (
        "the tip as MuJoCo's last integration stage left it, 1e-6 to 1e-2 m off the observed one"
    )
    return EnvironmentRules(
        env_id=env_id,
        state_size=9 if version == 5 else 11,
        termination=TipFalls(),
        termination_note=f"it reads {stale}: 2 of 2493 episodes ended a step earlier or later",
        reward_note=f"it charges {stale}, and velocities that the observation clips at ±10",
    )


def reacher(
    env_id: str,
    version: int,
    *,
    reward_dist_weight: float = 1.0,
    reward_control_weight: float = 1.0,
) -> EnvironmentRules:
    # v5 leaves out the height of tip − target, which is 0: both move in one plane.
    vector = (8, 10) if version == 5 else (8, 11)
    return EnvironmentRules(
        env_id=env_id,
        state_size=vector[1],
        termination=NEVER,
        reward=ReachReward(vector, reward_dist_weight, reward_control_weight, before=version < 5),
    )


def pusher(
    env_id: str,
    version: int,
    *,
    reward_near_weight: float = 0.5,
    reward_dist_weight: float = 1.0,
    reward_control_weight: float = 0.1,
) -> EnvironmentRules:
    reward = PushReward(
        reward_dist_weight, reward_near_weight, reward_control_weight, before=version < 5
    )
    return EnvironmentRules(env_id=env_id, state_size=23, termination=NEVER, reward=reward)

"""Classic control, as Gymnasium's sources have it; keyword arguments are the environment's."""

import math

from lfiw_envs.rules.record import NEVER, EnvironmentRules
from lfiw_envs.rules.rewards import ConstantReward, PendulumReward, ReachesGoalReward, StepReward
from lfiw_envs.rules.terminations import LeavesRange, Range, ReachesGoal, SwingsUp


def cart_pole(env_id: str, version: int, *, sutton_barto_reward: bool = False) -> EnvironmentRules:
    angle = 12 * 2 * math.pi / 360
    falls = LeavesRange((Range(0, -2.4, 2.4), Range(2, -angle, angle)), closed=True)
    reward = StepReward(0.0, -1.0, falls) if sutton_barto_reward else ConstantReward(1.0)
    return EnvironmentRules(env_id=env_id, state_size=4, termination=falls, reward=reward)


def acrobot(env_id: str, version: int) -> EnvironmentRules:
    up = SwingsUp()
    return EnvironmentRules(
        env_id=env_id, state_size=6, termination=up, reward=StepReward(-1.0, 0.0, up)
    )


def pendulum(env_id: str, version: int) -> EnvironmentRules:
    return EnvironmentRules(env_id=env_id, state_size=3, termination=NEVER, reward=PendulumReward())


def mountain_car(env_id: str, version: int, *, goal_velocity: float = 0.0) -> EnvironmentRules:
    goal = ReachesGoal(0.5, goal_velocity)
    return EnvironmentRules(
        env_id=env_id, state_size=2, termination=goal, reward=ConstantReward(-1.0)
    )


def mountain_car_continuous(
    env_id: str, version: int, *, goal_velocity: float = 0.0
) -> EnvironmentRules:
    goal = ReachesGoal(0.45, goal_velocity)
    return EnvironmentRules(
        env_id=env_id, state_size=2, termination=goal, reward=ReachesGoalReward(goal)
    )

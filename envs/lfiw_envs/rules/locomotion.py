"""MuJoCo's walkers, as Gymnasium's sources have them; keyword arguments are the environment's.

Positions come first in an observation, then velocities; x (and y, in three dimensions and for
Swimmer) are left out by default.
"""

import math

from lfiw_envs.rules.record import NEVER, EnvironmentRules, Rule
from lfiw_envs.rules.rewards import ForwardReward, StandupReward
from lfiw_envs.rules.terminations import LeavesRange, Range

SPEED_LIMIT = 10.0
"""What Hopper's and Walker2d's observed velocities are clipped to, in m/s and rad/s."""

NO_X = (
    "the observation leaves out the x position, and the velocity in it is that at the step's end, "
    "not the step's mean; from v3 on, exclude_current_positions_from_observation=False keeps it"
)
STALE_X = (
    "it pays the torso's position as MuJoCo's last integration stage left it, up to millimetres "
    "off the observed one"
)
STALE_MASS = "it pays the centre of mass of the whole body, which the observation leaves out"

Pair = tuple[float, float]


def _pays_if_healthy(version: int, terminates: bool, rule: Rule) -> Rule | None:
    """The rule that withholds the healthy reward: up to v4 a terminating step was still paid."""
    return None if version < 5 and terminates else rule


def _paid_by_the_way(
    env_id: str, size: int, x: int, termination: Rule, reward: Rule, termination_note: str = ""
) -> EnvironmentRules:
    """Paid for the way that it goes, which is known where x is among the state's entries."""
    return EnvironmentRules(
        env_id=env_id,
        state_size=size + x,
        termination=termination,
        reward=reward if x else None,
        termination_note=termination_note,
        reward_note="" if x else NO_X,
    )


def hopper(
    env_id: str,
    version: int,
    *,
    frame_skip: int = 4,
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 1e-3,
    healthy_reward: float = 1.0,
    terminate_when_unhealthy: bool = True,
    healthy_state_range: Pair = (-100.0, 100.0),
    healthy_z_range: Pair = (0.7, math.inf),
    healthy_angle_range: Pair = (-0.2, 0.2),
    exclude_current_positions_from_observation: bool = True,
) -> EnvironmentRules:
    x = int(not exclude_current_positions_from_observation)
    unhealthy = LeavesRange(
        (Range(x, *healthy_z_range), Range(x + 1, *healthy_angle_range)),
        rest=Range(x + 1, *healthy_state_range),
    )
    reward = ForwardReward(
        0.002 * frame_skip,
        forward_reward_weight,
        ctrl_cost_weight,
        healthy_reward,
        _pays_if_healthy(version, terminate_when_unhealthy, unhealthy),
    )
    low, high = healthy_state_range
    unseen = [str(bound) for bound in (low, high) if abs(bound) > SPEED_LIMIT]
    clipped = (
        f"a velocity beyond {' or '.join(unseen)} ends an episode unseen: the observation clips "
        f"velocities at ±{SPEED_LIMIT:g}"
    )
    ends = unhealthy if terminate_when_unhealthy else NEVER
    note = clipped if unseen and terminate_when_unhealthy else ""
    return _paid_by_the_way(env_id, 11, x, ends, reward, note)


def walker2d(
    env_id: str,
    version: int,
    *,
    frame_skip: int = 4,
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 1e-3,
    healthy_reward: float = 1.0,
    terminate_when_unhealthy: bool = True,
    healthy_z_range: Pair = (0.8, 2.0),
    healthy_angle_range: Pair = (-1.0, 1.0),
    exclude_current_positions_from_observation: bool = True,
) -> EnvironmentRules:
    x = int(not exclude_current_positions_from_observation)
    unhealthy = LeavesRange((Range(x, *healthy_z_range), Range(x + 1, *healthy_angle_range)))
    reward = ForwardReward(
        0.002 * frame_skip,
        forward_reward_weight,
        ctrl_cost_weight,
        healthy_reward,
        _pays_if_healthy(version, terminate_when_unhealthy, unhealthy),
    )
    ends = unhealthy if terminate_when_unhealthy else NEVER
    return _paid_by_the_way(env_id, 17, x, ends, reward)


def half_cheetah(
    env_id: str,
    version: int,
    *,
    frame_skip: int = 5,
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 0.1,
    exclude_current_positions_from_observation: bool = True,
) -> EnvironmentRules:
    x = int(not exclude_current_positions_from_observation)
    reward = ForwardReward(0.01 * frame_skip, forward_reward_weight, ctrl_cost_weight)
    return _paid_by_the_way(env_id, 17, x, NEVER, reward)


def swimmer(
    env_id: str,
    version: int,
    *,
    frame_skip: int = 4,
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 1e-4,
    exclude_current_positions_from_observation: bool = True,
) -> EnvironmentRules:
    x = 2 * int(not exclude_current_positions_from_observation)
    reward = ForwardReward(0.01 * frame_skip, forward_reward_weight, ctrl_cost_weight)
    return _paid_by_the_way(env_id, 8, x, NEVER, reward)


def ant(
    env_id: str,
    version: int,
    *,
    terminate_when_unhealthy: bool = True,
    healthy_z_range: Pair = (0.2, 1.0),
    exclude_current_positions_from_observation: bool = True,
    use_contact_forces: bool = False,
    include_cfrc_ext_in_observation: bool = True,
) -> EnvironmentRules:
    x = 2 * int(not exclude_current_positions_from_observation)
    forces = {4: 84 * use_contact_forces, 5: 78 * include_cfrc_ext_in_observation}.get(version, 84)
    unhealthy = LeavesRange((Range(x, *healthy_z_range),), closed=True, finite=27 + x)
    return EnvironmentRules(
        env_id=env_id,
        state_size=27 + x + forces,
        termination=unhealthy if terminate_when_unhealthy else NEVER,
        reward_note=STALE_X,
    )


def humanoid(
    env_id: str,
    version: int,
    *,
    terminate_when_unhealthy: bool = True,
    healthy_z_range: Pair = (1.0, 2.0),
    exclude_current_positions_from_observation: bool = True,
    include_cinert_in_observation: bool = True,
    include_cvel_in_observation: bool = True,
    include_qfrc_actuator_in_observation: bool = True,
    include_cfrc_ext_in_observation: bool = True,
) -> EnvironmentRules:
    x = 2 * int(not exclude_current_positions_from_observation)
    size = x + _humanoid_size(
        version,
        *(include_cinert_in_observation, include_cvel_in_observation),
        *(include_qfrc_actuator_in_observation, include_cfrc_ext_in_observation),
    )
    unhealthy = LeavesRange((Range(x, *healthy_z_range),))
    return EnvironmentRules(
        env_id=env_id,
        state_size=size,
        termination=unhealthy if terminate_when_unhealthy else NEVER,
        reward_note=STALE_MASS,
    )


def humanoid_standup(
    env_id: str,
    version: int,
    *,
    uph_cost_weight: float = 1.0,
    ctrl_cost_weight: float = 0.1,
    impact_cost_weight: float = 0.5e-6,
    impact_cost_range: Pair = (-math.inf, 10.0),
    exclude_current_positions_from_observation: bool = True,
    include_cinert_in_observation: bool = True,
    include_cvel_in_observation: bool = True,
    include_qfrc_actuator_in_observation: bool = True,
    include_cfrc_ext_in_observation: bool = True,
) -> EnvironmentRules:
    x = 2 * int(not exclude_current_positions_from_observation)
    size = x + _humanoid_size(
        version,
        *(include_cinert_in_observation, include_cvel_in_observation),
        *(include_qfrc_actuator_in_observation, include_cfrc_ext_in_observation),
    )
    forces = (78 if version == 5 else 84) * include_cfrc_ext_in_observation
    reward = StandupReward(x, forces, ctrl_cost_weight, impact_cost_weight, impact_cost_range)
    note = ""
    if impact_cost_weight != 0.0 and not include_cfrc_ext_in_observation:
        note = "it charges the contact forces, which include_cfrc_ext_in_observation=False hides"
    elif uph_cost_weight != 1.0:
        note = "Gymnasium takes uph_cost_weight and, up to 1.4 at least, does not use it"
    return EnvironmentRules(
        env_id=env_id,
        state_size=size,
        termination=NEVER,
        reward=None if note else reward,
        reward_note=note,
    )


def _humanoid_size(version: int, inertia: bool, velocity: bool, force: bool, contact: bool) -> int:
    """S without x and y: from v5 on, each part can be switched off."""
    if version < 5:
        return 376
    return 45 + 130 * inertia + 78 * velocity + 17 * force + 78 * contact

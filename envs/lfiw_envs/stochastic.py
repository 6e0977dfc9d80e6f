"""Registers the environments whose transitions are random with Gymnasium, when it is imported.

Their ids name this module, such as "lfiw_envs.stochastic:Ledge-v0", so that `gymnasium.make`
imports it. All randomness is from the environment's own generator, which `reset(seed=…)` seeds.
"""

import gymnasium

for _name, _module, _steps in (
    ("Ledge", "ledge", 40),
    ("DropoutPendulum", "pendulums", 200),
    ("DelayedPendulum", "pendulums", 200),
):
    gymnasium.register(
        f"{_name}-v0",
        entry_point=f"lfiw_envs.{_module}:{_name}",
        vector_entry_point=f"lfiw_envs.{_module}:Vector{_name}",
        max_episode_steps=_steps,
    )

for _name in ("PushedHopper", "PushedHalfCheetah"):
    gymnasium.register(
        f"{_name}-v0", entry_point=f"lfiw_envs.pushed_mujoco:{_name}", max_episode_steps=1000
    )

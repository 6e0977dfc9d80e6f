"""Rules by environment id and keyword arguments."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

from lfiw_envs.rules import classic, locomotion, manipulation, stochastic
from lfiw_envs.rules.record import EnvironmentRules

DRAWING = frozenset(
    (
        *("render_mode", "width", "height", "camera_id", "camera_name"),
        *("default_camera_config", "max_geom", "visual_options"),
    )
)
BESIDE_THE_RULES = DRAWING | {"reset_noise_scale", "max_episode_steps", "disable_env_checker"}
"""Arguments that change neither termination nor reward, in any environment."""

FORWARD = frozenset({"forward_reward_weight", "ctrl_cost_weight", "healthy_reward", "frame_skip"})
CONTACT = frozenset({"contact_cost_weight", "contact_force_range", "contact_cost_range"})
PUSHES = frozenset({"push_probability", "push_sizes"})


@dataclass(frozen=True)
class Family:
    """An environment in its versions.

    Attributes:
        build: (id, version, the environment's keyword arguments) -> rules.
        versions: known.
        beside: arguments that touch nothing but a reward that is not known, beside those that
            touch nothing in any environment.
    """

    build: Callable[..., EnvironmentRules]
    versions: tuple[int, ...]
    beside: frozenset[str] = frozenset()


FAMILIES = {
    "Acrobot": Family(classic.acrobot, (1,)),
    "Ant": Family(locomotion.ant, (2, 3, 4, 5), FORWARD | CONTACT | {"main_body"}),
    "CartPole": Family(classic.cart_pole, (0, 1)),
    "HalfCheetah": Family(locomotion.half_cheetah, (2, 3, 4, 5)),
    "Hopper": Family(locomotion.hopper, (2, 3, 4, 5)),
    "Humanoid": Family(locomotion.humanoid, (2, 3, 4, 5), FORWARD | CONTACT),
    "HumanoidStandup": Family(locomotion.humanoid_standup, (2, 4, 5), frozenset({"frame_skip"})),
    "InvertedDoublePendulum": Family(
        manipulation.inverted_double_pendulum,
        (2, 4, 5),
        frozenset({"healthy_reward", "frame_skip"}),
    ),
    "InvertedPendulum": Family(
        manipulation.inverted_pendulum, (2, 4, 5), frozenset({"frame_skip"})
    ),
    "MountainCar": Family(classic.mountain_car, (0,)),
    "MountainCarContinuous": Family(classic.mountain_car_continuous, (0,)),
    "Pendulum": Family(classic.pendulum, (1,), frozenset({"g"})),
    "Pusher": Family(manipulation.pusher, (2, 4, 5), frozenset({"frame_skip"})),
    "Reacher": Family(manipulation.reacher, (2, 4, 5), frozenset({"frame_skip"})),
    "Swimmer": Family(locomotion.swimmer, (2, 3, 4, 5)),
    "Walker2d": Family(locomotion.walker2d, (2, 3, 4, 5)),
}

STOCHASTIC = "lfiw_envs.stochastic:"
"""Module that registers this package's own environments, as their ids begin."""

FAMILIES |= {
    f"{STOCHASTIC}{name}": Family(build, (0,), beside)
    for name, build, beside in (
        ("DelayedPendulum", stochastic.delayed_pendulum, frozenset({"delay_probability"})),
        ("DropoutPendulum", stochastic.dropout_pendulum, frozenset({"dropout_probability"})),
        ("Ledge", stochastic.ledge, frozenset({"gust_probability", "gust_size"})),
        ("PushedHalfCheetah", stochastic.pushed_half_cheetah, PUSHES),
        ("PushedHopper", stochastic.pushed_hopper, PUSHES),
    )
}

KNOWN = {f"{name}-v{v}": (family, v) for name, family in FAMILIES.items() for v in family.versions}

NOT_PLAYED = "read from Gymnasium 0.29's source and not played, for it needs mujoco-py"


class UnknownEnvironmentError(ValueError):
    """No rules are known for an environment id."""


def rules_for(
    env_id: str,
    env_kwargs: Mapping[str, Any] | None = None,
    *,
    state_size: int | None = None,
) -> EnvironmentRules:
    """The rules of a Gymnasium environment as `gymnasium.make(env_id, **env_kwargs)` makes it.

    They are those of the bare environment: a wrapper that changes observations, actions, rewards
    or terminations makes an environment of its own, which needs a record of its own.

    Args:
        env_id: such as "Hopper-v5".
        env_kwargs: what `gymnasium.make` was given beside the id.
        state_size: S of the data that the rules are for, where it is to be checked.

    Raises:
        UnknownEnvironmentError: if the id is not known; it names those that are.
        ValueError: if an argument is not known or not of its kind, or S is another.
    """
    if f"{STOCHASTIC}{env_id}" in KNOWN:  # a log has it without the module
        env_id = f"{STOCHASTIC}{env_id}"
    if env_id not in KNOWN:
        names = (f"{n}-v{'/'.join(map(str, f.versions))}" for n, f in FAMILIES.items())
        raise UnknownEnvironmentError(
            f"No rules are known for {env_id!r}; known are {', '.join(names)}. Let reward and "
            "termination be learned, or give them as an EnvironmentRules of your own."
        )
    family, version = KNOWN[env_id]
    rules: EnvironmentRules = family.build(env_id, version, **_honoured(env_id, env_kwargs or {}))
    if state_size not in (None, rules.state_size):
        raise ValueError(
            f"The states have {state_size} entries, and {env_id} made so observes "
            f"{rules.state_size}; say its keyword arguments, or, where a wrapper changes the "
            "observation, give an EnvironmentRules of your own."
        )
    if version in (2, 3):
        notes = [note for note in (rules.termination_note, NOT_PLAYED) if note]
        reward_note = rules.reward_note or NOT_PLAYED
        rules = replace(rules, termination_note="; ".join(notes), reward_note=reward_note)
    return rules


def known_rules() -> tuple[EnvironmentRules, ...]:
    """The rules of every known environment, made without keyword arguments."""
    return tuple(rules_for(env_id) for env_id in KNOWN)


def _honoured(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that rules depend on, each of its kind.

    Raises:
        ValueError: if one is neither such an argument nor known to be beside the rules.
    """
    family, _ = KNOWN[env_id]
    parameters = inspect.signature(family.build).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    given = {k: v for k, v in env_kwargs.items() if k not in family.beside | BESIDE_THE_RULES}
    unknown = [name for name in given if name not in defaults]
    if unknown:
        takes = f"the rules heed {', '.join(defaults)}" if defaults else "they heed none"
        raise ValueError(
            f"{env_id} was made with {', '.join(unknown)}, and what that changes is not known "
            f"({takes}); give an EnvironmentRules of your own."
        )
    return {name: _like(name, value, defaults[name]) for name, value in given.items()}


def _like(name: str, value: Any, default: Any) -> Any:
    """The value, if it is of the default's kind: a flag, a whole number, a number or a pair."""
    if isinstance(default, bool):
        kind, fits = "True or False", isinstance(value, bool)
    elif isinstance(default, int):
        kind = "a whole number, 1 or more"
        fits = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
    elif isinstance(default, float):
        kind, fits = "a number", _is_number(value)
    else:
        kind = "a low and a high number"
        fits = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
        fits = fits and value[0] <= value[1]
    if not fits:
        raise ValueError(f"{name} is {value!r}; it must be {kind}.")
    return tuple(map(float, value)) if isinstance(default, tuple) else type(default)(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | str):
        return False
    try:
        return not math.isnan(float(value))
    except (TypeError, ValueError):
        return False

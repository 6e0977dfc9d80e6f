"""What is known of the data's environment: termination and reward as functions."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import ConfigError
from lfiw_ope.types import Reward, Termination


@dataclass(frozen=True)
class Rules:
    """The functions, where they are known.

    Attributes:
        reward: None where it is learned.
        termination: None where it is learned.
        said: where they come from, in words.
    """

    reward: Reward | None = None
    termination: Termination | None = None
    said: str = "reward and termination: learned"

    def __str__(self) -> str:
        return self.said


def find_rules(env: str | None, data: Trajectories) -> Rules:
    """By the environment's id, the data's own where none is given, or by a record's import path.

    An id that nothing is known of leaves both to be learned, and says so.

    Raises:
        ConfigError: if the environment that was asked for does not fit the data, or a record
            cannot be imported.
    """
    from lfiw_envs import EnvironmentRules, UnknownEnvironmentError, rules_for

    if env is not None and ":" in env:
        record = _imported(env)
        if not isinstance(record, EnvironmentRules):
            raise ConfigError(
                f"{env} is a {type(record).__name__}; expected an lfiw_envs.EnvironmentRules."
            )
        if record.state_size not in (None, data.state_size):
            raise ConfigError(
                f"{env} reads {record.state_size} state entries; the data have {data.state_size}."
            )
        return Rules(record.reward, record.termination, str(record))
    env_id = env or data.env_id
    if env_id is None:
        return Rules(said="reward and termination: learned (the data do not name an environment)")
    kwargs = data.env_kwargs if env in (None, data.env_id) else {}
    try:
        record = rules_for(env_id, kwargs, state_size=data.state_size)
    except UnknownEnvironmentError:
        return Rules(said=f"reward and termination: learned (no rules are known for {env_id})")
    except ValueError as error:
        if env is not None:
            raise ConfigError(str(error)) from error
        return Rules(said=f"reward and termination: learned ({error})")
    return Rules(record.reward, record.termination, str(record))


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    here = str(Path.cwd())  # where the record of a task that is no package stands
    sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path} cannot be imported ({error}).") from error
    finally:
        sys.path.remove(here)

"""What is known of the data's environment: termination and reward as functions."""

from dataclasses import dataclass

from rich.console import Console

from lfiw_ope.agreement import compare_rules
from lfiw_ope.data.spaces import gymnasium
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import ConfigError
from lfiw_ope.imported import import_object
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


def has_rules(env: str | None) -> bool:
    """Whether rules are known for an environment id, be it one that Gymnasium can make or not."""
    from lfiw_envs import UnknownEnvironmentError, rules_for

    try:
        return env is not None and bool(rules_for(env))
    except UnknownEnvironmentError:
        return False


def find_rules(env: str | None, data: Trajectories) -> Rules:
    """By the environment's id, the data's own where none is given, or by a record's import path.

    Rules of an id are held against the log: data of a wrapped environment carry the id of the bare
    one. Of the data's own id those that disagree are learned, and said so; one that was asked for
    must agree. A record of the user's may differ from the log on purpose, which is only said.

    Raises:
        ConfigError: if the environment that was asked for does not fit the data, or a record
            cannot be imported.
    """
    from lfiw_envs import EnvironmentRules, UnknownEnvironmentError, rules_for

    if env is not None and ":" in env:
        record = import_object(env)
        if not isinstance(record, EnvironmentRules):
            raise ConfigError(
                f"{env} is a {type(record).__name__}; expected an lfiw_envs.EnvironmentRules."
            )
        if record.state_size not in (None, data.state_size):
            raise ConfigError(
                f"{env} reads {record.state_size} state entries; the data have {data.state_size}."
            )
        found = compare_rules(data, reward=record.reward, termination=record.termination)
        return Rules(record.reward, record.termination, f"{record}; {found}")
    env_id = env or data.env_id
    if env_id is None:
        return Rules(said="reward and termination: learned (the data do not name an environment)")
    kwargs = data.env_kwargs if env in (None, data.env_id) else {}
    try:
        record = rules_for(env_id, kwargs, state_size=data.state_size)
    except UnknownEnvironmentError as error:
        if env is not None and env not in gymnasium().registry:
            raise ConfigError(f"Gymnasium knows no environment {env!r}. {error}") from error
        return Rules(said=f"reward and termination: learned (no rules are known for {env_id})")
    except ValueError as error:
        if env is not None:
            raise ConfigError(str(error)) from error
        return Rules(said=f"reward and termination: learned ({error})")
    found = compare_rules(data, reward=record.reward, termination=record.termination)
    if found.termination_agrees and found.reward_agrees:
        return Rules(record.reward, record.termination, f"{record}; {found}")
    if env is not None:
        raise ConfigError(
            f"The data are not those of {env}: {found}. A wrapper or another version makes another "
            "environment; pass --learn-rules, or a record of your own."
        )
    return Rules(
        record.reward if found.reward_agrees else None,
        record.termination if found.termination_agrees else None,
        f"{record.env_id}'s rules are those of the bare environment, and the data's is not: "
        f"{found}; what differs is learned",
    )


def rules_to_simulate(
    env: str | None, data: Trajectories, *, learn: bool, drop_terminal: bool, terminal: Console
) -> Rules:
    """What estimators that simulate are told of the environment; it is said on the terminal.

    Args:
        env: see `find_rules`.
        data: the log.
        learn: learn reward and termination even where they are known.
        drop_terminal: whether the reader left terminal transitions out.
        terminal: where it is said.

    Raises:
        ConfigError: as `find_rules`, or if nothing says when an episode terminates.
    """
    rules = Rules() if learn else find_rules(env, data)
    terminal.print(str(rules), soft_wrap=True)
    if rules.termination is None and not data.terminated.any():
        # Nothing to learn from: the model never ends an episode.
        if drop_terminal:
            raise ConfigError(
                "With --drop-terminal the log holds no terminal transition to learn from, so the "
                "termination rule must be known; pass the --env of an environment that has one, "
                "or a record of your own."
            )
        terminal.print("No logged episode terminated: simulated ones never do.", soft_wrap=True)
    return rules

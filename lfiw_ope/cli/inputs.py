"""Inputs of commands: logs, policies, rules of the environment, true values."""

import csv
import glob
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lfiw_ope.cli.terminal import plain_warnings
from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import ConfigError, DataError, OPEError
from lfiw_ope.core.protocols import Policy, Reward, Termination
from lfiw_ope.core.runtime import import_object
from lfiw_ope.core.validation import whole
from lfiw_ope.data.rules import compare_rules
from lfiw_ope.data.spaces import gymnasium
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.policies.files import load_policy, options_of


def policy_files(patterns: Sequence[str]) -> dict[str, Path]:
    """The files that match, in order of their paths, by the shortest names that differ.

    A file is named by its stem; where files share one, by as many of their folders as it takes
    ("ppo_1/best_model"), and with its ending where only that tells them apart.

    Args:
        patterns: names of files, or patterns as a shell knows them; `**` for any folders.

    Raises:
        DataError: if a pattern matches no file.
    """
    found: set[Path] = set()
    for pattern in patterns:
        matches = [pattern] if Path(pattern).is_file() else glob.glob(pattern, recursive=True)
        files = {Path(match) for match in matches if Path(match).is_file()}
        if not files:
            raise DataError(f"There is no policy file {pattern}.")
        found |= files
    paths = sorted({path.resolve(): path for path in sorted(found)}.values())
    return dict(zip(_names(paths), paths, strict=True))


def _names(paths: Sequence[Path]) -> list[str]:
    places = Counter(path.resolve().with_suffix("") for path in paths)
    named = {place: place.name for place in places}
    for depth in range(2, max((len(place.parts) for place in places), default=0) + 1):
        shared = Counter(named.values())
        named = {
            place: "/".join(place.parts[-depth:]) if shared[name] > 1 else name
            for place, name in named.items()
        }
    found = []
    for path in paths:
        place = path.resolve().with_suffix("")
        found.append(named[place] + (path.suffix if places[place] > 1 else ""))
    # A name that holds a dot may look like another's with its ending.
    return found if len(set(found)) == len(found) else [str(path) for path in paths]


def load_policies(
    files: Mapping[str, Path],
    data: Trajectories,
    *,
    deterministic: bool,
    trust: bool,
    activation: str | None,
    vec_normalize: str | None,
) -> dict[str, Policy]:
    """Each file's policy; an option is given to the files that take it.

    Args:
        files: by name.
        data: the log, whose spaces the policies must share.
        deterministic, trust, activation: see `lfiw_ope.load_policy`.
        vec_normalize: the statistics' file; `{stem}` in it stands for a policy file's stem and
            `{folder}` for its folder.

    Raises:
        ConfigError: if an option is given that none of the files takes, or an ending is not known.
        DataError, PolicyError, UntrustedFileError: if a file holds no policy for these data; the
            message names it.
    """
    wanted = {"trust": trust or None, "activation": activation, "vec_normalize": vec_normalize}
    given = {name: value for name, value in wanted.items() if value is not None}
    taken = {name: options_of(path) for name, path in files.items()}
    for option in given:
        if not any(option in of for of in taken.values()):
            raise ConfigError(
                f"{option} does not apply to any of the {len(files)} policy files; leave it out."
            )
    found = {}
    for name, path in files.items():
        options: dict[str, Any] = {key: of for key, of in given.items() if key in taken[name]}
        if "vec_normalize" in options:
            options["vec_normalize"] = _statistics(options["vec_normalize"], path)
        try:
            found[name] = load_policy(
                path,
                deterministic=deterministic,
                state_size=data.state_size,
                action_spec=data.action_spec,
                **options,
            )
        except OPEError as error:
            # Among many, which one it is must be said.
            if str(path) in str(error):
                raise
            raise type(error)(f"{path}: {error}") from error
    return found


def _statistics(pattern: str, policy: Path) -> str:
    return pattern.replace("{stem}", policy.stem).replace("{folder}", str(policy.parent))


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


def read_truth(path: Path, policies: Iterable[str], terminal: Console) -> dict[str, float]:
    """The true values of these policies; what the file and the policies do not share is said.

    The file is JSON, `{"name": 12.3}` or `{"name": {"value": 12.3, …}}`, or CSV with columns
    `policy` and `value`; anything else in it, such as a standard error, is not read.

    Args:
        path: the file.
        policies: their names.
        terminal: where it is said.

    Raises:
        DataError: if there is no such file, or it is none of these.
        ConfigError: if it knows none of the policies.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path} of true values.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        known = _table(text, path) if path.suffix.lower() == ".csv" else _object(text, path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text file of true values ({error}).") from error
    names = list(policies)
    found = {name: known[name] for name in names if name in known}
    if not found:
        raise ConfigError(
            f"{path} has the true values of {_listed(known)}, and the policies are "
            f"{_listed(names)}; name them alike."
        )
    for said, missing in (
        (f"{path} has no true value of", [name for name in names if name not in known]),
        ("There is no policy for the true value of", [name for name in known if name not in found]),
    ):
        if missing:
            terminal.print(f"Warning: {said} {_listed(missing)}.", soft_wrap=True)
    return found


def _listed(names: Iterable[str], most: int = 5) -> str:
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return (", ".join(every[:most]) or "nothing") + more


def _object(text: str, path: Path) -> dict[str, float]:
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is neither JSON nor, by its name, CSV ({error}).") from error
    if not isinstance(plain, dict):
        raise DataError(
            f'{path} holds a {type(plain).__name__}; expected {{"policy": value, …}}, by name.'
        )
    return {
        name: _number(of.get("value") if isinstance(of, dict) else of, name, path)
        for name, of in plain.items()
    }


def _table(text: str, path: Path) -> dict[str, float]:
    rows = csv.DictReader(io.StringIO(text))
    if not {"policy", "value"} <= set(rows.fieldnames or ()):
        raise DataError(
            f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'of an empty file'}; "
            "expected policy and value among them."
        )
    found: dict[str, float] = {}
    for row in rows:
        if row["policy"] in found:
            raise DataError(f"{path} has two true values of {row['policy']}; leave one.")
        found[row["policy"]] = _number(row["value"], row["policy"], path)
    return found


def _number(value: Any, name: str, path: Path) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{path} says that {name} is worth {value!r}; expected a number.")
    return number


MaxEpisodeSteps = Annotated[
    int | None, typer.Option(help="time limit, for a file that marks no truncation")
]
DropTerminal = Annotated[
    bool, typer.Option(help="leave out terminal transitions that lack their next state")
]
Episodes = Annotated[int | None, typer.Option(help="the first ones alone")]
Actions = Annotated[
    int | None, typer.Option(help="how many discrete actions, for a file of whole numbers")
]
SOURCES = "Minari id or folder, D4RL .hdf5, or .npz"


def read_log(
    source: str,
    env: str | None,
    *,
    max_episode_steps: int | None,
    drop_terminal: bool,
    episodes: int | None,
    actions: int | None,
    terminal: Console,
) -> Trajectories:
    """The log. A file is told its environment; a Minari data set says its own.

    Args:
        source: the id, folder or file.
        env: a Gymnasium id, an import path (which says nothing of spaces), or None.
        max_episode_steps, drop_terminal, episodes: see `lfiw_ope.load_data`.
        actions: A, where actions are discrete and only the user knows how many there are.
        terminal: where warnings go.
    """
    from lfiw_ope.data.files import FILES, load_data

    spec = None if actions is None else ActionSpec.discrete(whole("actions", actions, least=1))

    def load(env_id: str | None) -> Trajectories:
        return load_data(
            source,
            env_id=env_id,
            max_episode_steps=max_episode_steps,
            drop_terminal=drop_terminal,
            episodes=episodes,
            action_space=spec,
        )

    is_file = Path(source).suffix.lower() in FILES
    of_spaces = env if is_file and env is not None and ":" not in env else None
    with plain_warnings(terminal):
        try:
            return load(of_spaces)
        except ConfigError as error:
            # Old versions, whose rules are known, cannot be made any more to look at their spaces.
            if of_spaces is None or not has_rules(of_spaces):
                raise
            terminal.print(f"Warning: {error} Actions are taken as unbounded.", soft_wrap=True)
            return load(None)

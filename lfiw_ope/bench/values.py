"""True values of a ladder's policies, by playing them in the real environment."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from lfiw_envs.ladder import Ladder, LadderValue, Play
from numpy.typing import NDArray

from lfiw_ope.bench.playing import COPIES, play_returns
from lfiw_ope.checks import choice, whole
from lfiw_ope.data.spaces import gymnasium
from lfiw_ope.errors import ConfigError, DataError, MissingDependencyError
from lfiw_ope.policies.actor_file import load_actor
from lfiw_ope.seeding import derive
from lfiw_ope.stored import provenance, write_text
from lfiw_ope.types import Progress, silent

PLAYS: tuple[Play, ...] = get_args(Play)

QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")
"""Of the returns, that are kept."""

Values = dict[str, LadderValue]
"""What one policy is worth, by question."""


def measure_values(
    ladder: Ladder,
    policy: str,
    *,
    play: Play = "stochastic",
    episodes: int,
    seed: int,
    num_envs: int = COPIES,
    progress: Progress = silent,
) -> Values:
    """What one of a ladder's policies is worth in its environment, question by question.

        v(π; T, γ) = E_π[ Σ_{t<T} γ^t r_t ]

    is estimated by the mean of N returns, all questions from the same episodes. A reward after the
    episode's end counts 0, and the ladder truncates its episodes. Nothing is written; see
    `measure_ladder`.

    Args:
        ladder: one that is shipped, or one of your own.
        policy: by its name in the ladder's folder.
        play: "stochastic", as the policy draws its actions, or "deterministic", by their mode.
        episodes: N.
        seed: of the episodes' resets and the policy's draws; no two policies share either.
        num_envs: copies of the environment that are played at a time. The same seed with another
            number of them gives other draws.
        progress: told how many episodes have ended.

    Raises:
        ValueError: if the ladder has no such policy.
        ConfigError: if a number is out of range.
        DataError: if the policy's file is missing or none, or the environment's rewards are not
            finite.
        PolicyError: if the policy is for other spaces.
    """
    choice("play", play, PLAYS)
    whole("episodes", episodes, least=2)  # one has no standard error
    actor = load_actor(ladder.policy_path(policy), deterministic=play == "deterministic")
    returns = play_returns(
        ladder,
        actor,
        episodes=episodes,
        seed=derive(seed, "values", ladder.name, policy, play),
        num_envs=num_envs,
        progress=progress,
    )
    return {name: summarise(of) for name, of in returns.items()}


def summarise(returns: NDArray[np.float64]) -> LadderValue:
    """The value that N returns `[N]` tell."""
    spread = float(returns.std(ddof=1))
    points = np.quantile(returns, [float(point) for point in QUANTILES]).tolist()
    return LadderValue(
        mean=float(returns.mean()),
        standard_error=spread / len(returns) ** 0.5,
        spread=spread,
        quantiles=dict(zip(QUANTILES, points, strict=True)),
        episodes=len(returns),
    )


def measure_ladder(
    ladder: Ladder,
    *,
    episodes: int,
    seed: int,
    policies: Sequence[str] | None = None,
    plays: Sequence[Play] = PLAYS,
    jobs: int = 1,
    num_envs: int = COPIES,
    command: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Measure a ladder's policies, and store what they are worth at `ladder.values_path`.

    A policy's values are stored as soon as they are known. What the file holds already, of the
    same policy file and by as many episodes, is not measured again.

    Args:
        ladder: whose folder holds the policies' files.
        episodes: of each policy in each kind of play.
        seed: see `measure_values`.
        policies: all targets where none are named.
        plays: "stochastic" for all policies first, then "deterministic"; or one of them.
        jobs: processes; each of them makes the environment by its id.
        num_envs: see `measure_values`.
        command: said in the file to have made it; else this call.
        progress: told how many pairs of policy and play are done.

    Returns:
        The file.

    Raises:
        ConfigError: if a number is out of range, or the file was measured otherwise.
        DataError: if a policy's file is missing or none.
        PolicyError: if a policy is for other spaces.
        MissingDependencyError: if `jobs` is above 1 and joblib is not installed.
    """
    whole("jobs", jobs, least=1)
    for play in plays:
        choice("a play", play, PLAYS)
    names = ladder.targets if policies is None else tuple(policies)
    files = {name: _digest(ladder.policy_path(name)) for name in names}
    call = f"lfiw_ope.bench.values.measure_ladder({ladder.name}, {episodes=}, {seed=})"
    head = {"command": command or call, **_made_by(ladder, seed, num_envs)}
    stored = _open(ladder, head)
    every = [(name, play) for play in plays for name in names]
    todo = [pair for pair in every if not _is_known(stored, *pair, files[pair[0]], episodes)]
    done = len(every) - len(todo)
    progress("values", done, len(every))
    settings = {"episodes": episodes, "seed": seed, "num_envs": num_envs}
    for (name, play), values in _measured(ladder, todo, settings, jobs):
        if stored["files"].get(name) != files[name]:
            stored["values"][name] = {}  # of another policy of this name
        stored["files"][name] = files[name]
        stored["values"].setdefault(name, {})[play] = {
            question: asdict(value) for question, value in values.items()
        }
        _write(ladder, stored)
        done += 1
        progress("values", done, len(every), f"{name}, {play}")
    return ladder.values_path


def _measured(
    ladder: Ladder, todo: Sequence[tuple[str, Play]], settings: Mapping[str, int], jobs: int
) -> Iterator[tuple[tuple[str, Play], Values]]:
    """Each pair's values, as they are known."""
    if jobs == 1 or len(todo) < 2:
        for pair in todo:
            yield _pair(ladder, pair, settings)
        return
    try:
        import joblib
    except ImportError as error:
        raise MissingDependencyError(
            "jobs above 1 need joblib, which is not installed: pip install 'lfiw-ope[compare]'."
        ) from error
    parallel = joblib.Parallel(
        jobs,
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        pre_dispatch=jobs,
        inner_max_num_threads=1,
    )
    yield from parallel(joblib.delayed(_pair)(ladder, pair, settings) for pair in todo)


def _pair(
    ladder: Ladder, pair: tuple[str, Play], settings: Mapping[str, int]
) -> tuple[tuple[str, Play], Values]:
    """On one thread; the process is left as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pair, measure_values(ladder, pair[0], play=pair[1], **settings)
    finally:
        torch.set_num_threads(threads)


def _digest(path: Path) -> str:
    """Of a policy's file: values are of what it holds, whatever its name is."""
    if not path.is_file():
        raise DataError(f"There is no policy file {path}.")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _made_by(ladder: Ladder, seed: int, num_envs: int) -> dict[str, Any]:
    """What was played, and with what."""
    machine = {**provenance()["machine"], "gymnasium": gymnasium().__version__}
    with suppress(PackageNotFoundError):
        machine["mujoco"] = version("mujoco")
    return {
        "env_id": ladder.env_id,
        "env_kwargs": dict(ladder.env_kwargs),
        "episode": ladder.episode,
        "questions": {name: list(of) for name, of in ladder.questions.items()},
        "seed": seed,
        "num_envs": num_envs,
        "machine": machine,
    }


def _open(ladder: Ladder, head: dict[str, Any]) -> dict[str, Any]:
    """What is stored already, if it was measured with these settings."""
    path = ladder.values_path
    if not path.exists():
        return {**head, "files": {}, "values": {}}
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = dict(stored["files"]), dict(stored["values"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no values of a ladder ({error}); remove it.") from error
    fixed = ("env_id", "env_kwargs", "episode", "questions", "seed", "num_envs")
    differing = [name for name in fixed if stored.get(name) != head[name]]
    if differing:
        raise ConfigError(
            f"{path} was measured with another {' and '.join(differing)}; remove it to measure "
            "anew."
        )
    return {**stored, **head}


def _is_known(
    stored: Mapping[str, Any], policy: str, play: Play, digest: str, episodes: int
) -> bool:
    values = stored["values"].get(policy, {}).get(play, {})
    enough = bool(values) and all(of["episodes"] >= episodes for of in values.values())
    return enough and stored["files"].get(policy) == digest


def _write(ladder: Ladder, stored: dict[str, Any]) -> None:
    """In the ladder's order, whichever process was quickest."""
    order = [name for name in ladder.targets if name in stored["values"]]
    order += [name for name in stored["values"] if name not in order]
    values = {
        name: {
            play: stored["values"][name][play] for play in PLAYS if play in stored["values"][name]
        }
        for name in order
    }
    files = {name: stored["files"][name] for name in order}
    text = json.dumps({**stored, "files": files, "values": values}, indent=1, allow_nan=False)
    write_text(ladder.values_path, text + "\n")

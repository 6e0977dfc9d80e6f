"""Data sets of ladders: played by their policies, by seed, and cached."""

import hashlib
import importlib.metadata
import inspect
import json
import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from lfiw_envs.ladder import Ladder
from lfiw_envs.making import is_vectorised
from numpy.typing import NDArray

from lfiw_ope.benchmark.provenance import digest, plain_kwargs
from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import ConfigError, DataError, warn
from lfiw_ope.core.protocols import Progress, silent
from lfiw_ope.core.runtime import one_thread
from lfiw_ope.core.seeding import derive, numpy_generator
from lfiw_ope.core.validation import whole
from lfiw_ope.data.collect import collect
from lfiw_ope.data.files import log_arrays, write_npz
from lfiw_ope.data.spaces import gymnasium
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.policies.files import load_actor

Made = tuple[Trajectories, NDArray[np.int64]]
"""A log, and who played each of its episodes `[N]`."""

_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What NumPy raises of an archive that was not written to its end, or was changed since; zip
archives carry a checksum of every array, and reading one from beginning to end verifies it."""


def cache_folder() -> Path:
    """`$LFIW_OPE_CACHE`, else `$XDG_CACHE_HOME/lfiw_ope`, else `~/.cache/lfiw_ope`."""
    if own := os.environ.get("LFIW_OPE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lfiw_ope"


def cached_path(folder: Path, name: str, identity: Mapping[str, Any]) -> Path:
    """The file of what these things make: a readable name, and the digest of them all.

    Args:
        folder: of the cache.
        name: for whoever looks into the folder.
        identity: everything that decides what is made, as JSON can hold it.
    """
    text = json.dumps(identity, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}-{key}.npz"


def keep(path: Path, made: Made, identity: Mapping[str, Any]) -> None:
    """Write it, whole or not at all; where that cannot be done, a `DataWarning` says so."""
    log, player = made
    spec = log.action_spec
    about = {
        "identity": dict(identity),
        "action_spec": {"kind": spec.kind, "size": spec.size, "low": spec.low, "high": spec.high},
        "env_id": log.env_id,
        "env_kwargs": log.env_kwargs,
    }
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")  # another process may write too
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(
            partial, {**log_arrays(log), "player": player, "about": np.array(json.dumps(about))}
        )
        partial.replace(path)
    except OSError as error:
        warn(f"What was made could not be kept in {path} ({error}); it will be made again.")
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def find(path: Path, identity: Mapping[str, Any]) -> Made | None:
    """What is kept there, or None where nothing is; or nothing whole, which is then said."""
    if not path.exists():
        return None
    try:
        return _read(path, identity)
    except _DAMAGE as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        warn(f"{path} is damaged ({reason}); it is made anew.")
        return None


def _read(path: Path, identity: Mapping[str, Any]) -> Made:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(str(arrays.pop("about")))
    if about["identity"] != json.loads(json.dumps(identity)):
        raise DataError("it says that it was made of other things")
    said = about["action_spec"]
    spec = ActionSpec(said["kind"], said["size"], tuple(said["low"]), tuple(said["high"]))
    player = arrays.pop("player")
    states = arrays.pop("observations")
    log = Trajectories(
        states=states,
        **arrays,
        action_spec=spec,
        env_id=about["env_id"],
        env_kwargs=about["env_kwargs"],
    )
    return log, player


def shuffled(
    parts: list[Trajectories], generator: np.random.Generator
) -> tuple[Trajectories, NDArray[np.int64]]:
    """The episodes of all parts in a random order, and the part `[N]` that each was in.

    Args:
        parts: logs of one environment; the list is emptied, and each goes as its episodes are put
            where they belong, so that memory holds the whole and one part, and not twice the whole.
        generator: of the order.
    """
    player = np.repeat(np.arange(len(parts)), [part.num_episodes for part in parts])
    ends: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("lengths", "terminated", "truncated")
    }
    order = generator.permutation(player.size)
    place = np.argsort(order)  # of each part's episodes, one part after the other
    player, ends = player[order], {name: of[order] for name, of in ends.items()}
    first = np.cumsum(ends["lengths"]) - ends["lengths"]
    rows = int(ends["lengths"].sum())
    arrays: dict[str, Any] = {
        name: np.empty((rows + place.size * (name == "observations"), *of.shape[1:]), of.dtype)
        for name, of in _shared(parts).items()
    }
    about = {name: getattr(parts[0], name) for name in ("action_spec", "env_id", "env_kwargs")}
    parts.reverse()
    while parts:
        part = parts.pop()
        to, place = place[: part.num_episodes], place[part.num_episodes :]
        steps = _positions(first[to], part.lengths)
        states = _positions(first[to] + to, part.lengths + 1)
        for name, of in log_arrays(part).items():
            if name in arrays:
                arrays[name][states if name == "observations" else steps] = of
    return Trajectories(states=arrays.pop("observations"), **arrays, **ends, **about), player


def _shared(parts: list[Trajectories]) -> dict[str, NDArray[Any]]:
    """The first part's arrays of rows that all the parts have."""
    per_episode = ("lengths", "terminated", "truncated")
    every = [log_arrays(part) for part in parts]
    shared = set.intersection(*(set(of) for of in every))
    if len(shared) < max(len(of) for of in every):
        warn("Log-probabilities are left out: some of the policies that play have no density.")
    return {k: of for k, of in every[0].items() if k in shared and k not in per_episode}


def _positions(first: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows `first[i]` to `first[i] + lengths[i] - 1`, one i after the other."""
    begins = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    found: NDArray[np.int64] = begins + np.arange(int(lengths.sum()))
    return found


FORMAT = 1
"""To be raised where the same ladder, data set, size and seed give other arrays than before."""

COPIES = 10
"""Most copies of the environment that a policy plays at a time: episodes of 1000 steps are then
whole from 10,000 transitions on."""

_OF_ARRAYS = ("gymnasium", "mujoco", "numpy", "torch")
"""Packages whose versions may change what is played."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set of a ladder.

    Attributes:
        log: the episodes; its log-probabilities are those of the policy that played the episode,
            not of the mixture of all.
        policies: that made it, in the recipe's order.
        player: `[N]` int64, which of them played each episode.
        path: of the file where it is kept, or None.
        found: whether it was there, and was not played now.
    """

    log: Trajectories
    policies: tuple[str, ...]
    player: NDArray[np.int64]
    path: Path | None
    found: bool


def dataset(
    ladder: Ladder,
    data: str,
    transitions: int,
    seed: int,
    *,
    cache: bool | str | Path | None = True,
    progress: Progress = silent,
) -> Trajectories:
    """The log of `find_or_play`, which says what the arguments are and what is raised."""
    return find_or_play(ladder, data, transitions, seed, cache=cache, progress=progress).log


def find_or_play(
    ladder: Ladder,
    data: str,
    transitions: int,
    seed: int,
    *,
    cache: bool | str | Path | None = True,
    progress: Progress = silent,
) -> DataSet:
    """A data set of a ladder, from the cache or played now; one seed gives the same arrays.

    Each policy of the recipe plays an equal share of the transitions, by a seed of its own, in as
    many copies of the environment as leave episodes of the ladder's length whole, where there are
    any. The episodes of several policies are shuffled by the seed, so that the first ones, and the
    parts of any split, are a sample of the mixture; those of one policy stand as they started.

    It is kept in a file whose name has the digest of all that makes the arrays: the environment,
    its source and its versions, what the policies' files hold, the recipe, the size and the seed.
    Processors of another kind may round otherwise, and a simulated body soon goes another way from
    there: of them alone one seed may give arrays that differ, though of one distribution.

    Args:
        ladder: the task.
        data: which of its recipes.
        transitions: R, exactly.
        seed: of resets, draws and the order of episodes.
        cache: whether it is kept, or the folder to keep it in in place of `cache_folder()`.
        progress: told how many transitions have been played.

    Raises:
        ConfigError: if there is no such data set or environment, a number is out of range, or the
            ladder's `env_kwargs` are nothing that a file can be named by.
        DataError: if a policy's file is missing or none.
        PolicyError: if a policy is for other spaces.
        InsufficientMemoryError: if it would not fit into memory.
    """
    whole("The seed", seed, least=0)
    shares = shares_of(ladder, data, transitions)
    policies = tuple(policy for policy, _ in shares)
    folder = cache_folder() if cache is True else Path(cache) if cache else None
    if folder is None:
        log, player = _play(ladder, data, shares, seed, progress)
        return DataSet(log, policies, player, None, found=False)
    identity = _identity(ladder, data, shares, seed)
    name = f"{ladder.name}-{data}-{transitions}-{seed}"
    path = cached_path(folder / "data", name, identity)
    found = find(path, identity)
    made = found or _play(ladder, data, shares, seed, progress)
    if found is None:
        keep(path, made, identity)
    kept = path if path.exists() else None
    return DataSet(made[0], policies, made[1], kept, found=found is not None)


def identity_of(ladder: Ladder, data: str, transitions: int, seed: int) -> dict[str, Any]:
    """What a data set follows from, as JSON can hold it: two of one identity are the same arrays.

    Raises:
        ConfigError, DataError: as `find_or_play`.
    """
    return _identity(ladder, data, shares_of(ladder, data, transitions), seed)


def shares_of(ladder: Ladder, data: str, transitions: int) -> tuple[tuple[str, int], ...]:
    """Each policy of a recipe and the transitions that it plays, one more of the first ones.

    Raises:
        ConfigError: if the ladder has no such data set, or there are fewer transitions than
            policies.
    """
    try:
        recipe = ladder.recipe(data)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    count = whole("transitions", transitions, least=len(recipe))
    return tuple(
        (policy, count // len(recipe) + (i < count % len(recipe)))
        for i, policy in enumerate(recipe)
    )


def copies_for(transitions: int, episode: int) -> int:
    """Copies of the environment that share these transitions.

    The most, up to `COPIES`, that divide the whole episodes among them; one where there is none.
    """
    episodes = transitions // episode
    return next((n for n in range(min(COPIES, episodes), 1, -1) if episodes % n == 0), 1)


def _play(
    ladder: Ladder, data: str, shares: tuple[tuple[str, int], ...], seed: int, progress: Progress
) -> Made:
    whole_set = sum(count for _, count in shares)
    parts: list[Trajectories] = []
    for i, (policy, count) in enumerate(shares):
        before = sum(part.num_transitions for part in parts)
        actor = load_actor(_policy_path(ladder, policy))
        env = ladder.make_vector(copies_for(count, ladder.episode))
        try:
            own = derive(seed, "dataset", data, str(i), policy)
            told = _after(before, whole_set, progress)
            with one_thread():  # whichever process plays: the same arrays
                parts.append(collect(env, actor, transitions=count, seed=own, progress=told))
        finally:
            env.close()
    if len(parts) == 1:
        return parts[0], np.zeros(parts[0].num_episodes, np.int64)
    return shuffled(parts, numpy_generator(seed, "dataset", data, "order"))


def _after(before: int, whole_set: int, progress: Progress) -> Progress:
    """Progress of a share as that of the whole set."""

    def told(stage: str, done: int, total: int, note: str = "") -> None:
        progress(stage, before + done, max(total, whole_set), note)

    return told


def _policy_path(ladder: Ladder, policy: str) -> Path:
    path = ladder.policy_path(policy)
    if not path.is_file():
        raise DataError(f"{ladder.name} has no policy file {path}; train or export it first.")
    return path


def _identity(
    ladder: Ladder, data: str, shares: tuple[tuple[str, int], ...], seed: int
) -> dict[str, Any]:
    """Everything that the arrays follow from."""
    advice = "so no file can be named by them; use cache=None"
    own_vector = {"vector": "own"} if is_vectorised(ladder.env_id) else {}
    return {
        **own_vector,
        "format": FORMAT,
        "env_id": ladder.env_id,
        "env_kwargs": plain_kwargs(ladder, advice),
        "episode": ladder.episode,
        "environment": _environment_digest(ladder),
        "versions": {name: _version(name) for name in _OF_ARRAYS},
        "data": data,
        "shares": [list(share) for share in shares],
        "policies": [digest(_policy_path(ladder, policy)) for policy, _ in shares],
        "seed": seed,
    }


def _environment_digest(ladder: Ladder) -> str | None:
    """Of the files that define the environment's class and those that it is derived from: one's
    own may change between versions. What these import is not seen."""
    try:
        env = ladder.make()
    except gymnasium().error.Error as error:
        raise ConfigError(f"{ladder.env_id} cannot be made ({error}).") from error
    env.close()
    found, sources = hashlib.sha256(), 0
    for kind in type(env.unwrapped).__mro__:
        try:
            found.update(Path(inspect.getfile(kind)).read_bytes())
        except (TypeError, OSError):  # built in, or typed into a session
            continue
        sources += 1
    return found.hexdigest() if sources else None


@cache  # each look parses the package's description, and a suite has thousands of trials
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

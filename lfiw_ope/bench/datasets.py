"""The data sets of a ladder: played on the spot by its policies, by seed, and kept."""

import hashlib
import importlib.metadata
import inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from lfiw_envs.ladder import Ladder
from lfiw_envs.making import is_vectorised
from numpy.typing import NDArray

from lfiw_ope.bench.cache import Made, cache_folder, cached_path, find, keep
from lfiw_ope.bench.measured import digest, plain_kwargs
from lfiw_ope.bench.mixing import shuffled
from lfiw_ope.checks import whole
from lfiw_ope.data.collect import collect
from lfiw_ope.data.spaces import gymnasium
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import ConfigError, DataError
from lfiw_ope.policies.actor_file import load_actor
from lfiw_ope.seeding import derive, numpy_generator
from lfiw_ope.threads import one_thread
from lfiw_ope.types import Progress, silent

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

"""The file that says how a ladder's data sets support its targets."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lfiw_envs.ladder import Ladder

from lfiw_ope.bench.datasets import dataset
from lfiw_ope.bench.measured import digest, gone_on_with, made_by
from lfiw_ope.bench.region import INSIDE, Pairs
from lfiw_ope.bench.support import PLAYED, SUPPORTED, DataSupport, play_pairs
from lfiw_ope.stored import write_text
from lfiw_ope.types import Progress, silent

SEED = 4_000_037
"""Of what is played and drawn: no suite's data have it, whose support is thus that of their
distribution and not of themselves."""

TRANSITIONS = 100_000
"""Of each data set."""


def write_support(
    ladder: Ladder,
    *,
    data: Sequence[str] | None = None,
    transitions: int = TRANSITIONS,
    played: int = PLAYED,
    seed: int = SEED,
    cache: bool | str | Path | None = None,
    command: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Measure how data sets support a ladder's targets, and store it at `ladder.support_path`.

    See `measure_support` for what is measured. What a data set supports is stored as soon as it is
    known; what the file holds already, of the same policies' files, is not measured again.

    Args:
        ladder: one that is shipped, or one of your own, whose folder holds the policies' files.
        data: names of data sets; all of the ladder's where none are named.
        transitions: of each data set.
        played: steps of each target.
        seed: of all that is played and drawn.
        cache: where the data sets are kept, as `dataset` takes it; they are not where it is None.
        command: said in the file to have made it; else this call.
        progress: told how many pairs of data set and target are done.

    Returns:
        The file.

    Raises:
        ValueError: if the ladder has no such data set.
        ConfigError: if a number is out of range, or the file was measured otherwise.
        DataError: if a policy's file is missing or none, or a data set is of too few episodes.
        PolicyError: if a policy is for other spaces.
    """
    names = tuple(ladder.recipes) if data is None else tuple(data)
    head = made_by(
        ladder,
        command or f"lfiw_ope.bench.support_file.write_support({ladder.name}, {seed=})",
        seed=seed,
        transitions=transitions,
        played=played,
        inside=INSIDE,
        supported=SUPPORTED,
    )
    path = ladder.support_path
    stored = _of_these_files(
        ladder, gone_on_with(path, head, ("files", "recipes", "support")), names
    )
    shares = stored["support"]
    todo = {
        name: [one for one in ladder.targets if one not in shares.get(name, {})] for name in names
    }
    total = len(names) * len(ladder.targets)
    done = total - sum(map(len, todo.values()))
    progress("support", done, total)
    needed = [one for one in ladder.targets if any(one in targets for targets in todo.values())]
    pairs: dict[str, Pairs] = {
        one: play_pairs(ladder, one, seed=seed, played=played) for one in needed
    }
    for name, targets in todo.items():
        if not targets:
            continue
        log = dataset(ladder, name, transitions, seed, cache=cache)
        support = DataSupport.of(log, ladder.questions, seed=seed)
        shares.setdefault(name, {}).update({one: support.share(pairs[one]) for one in targets})
        _write(ladder, stored)
        done += len(targets)
        progress("support", done, total, name)
    return path


def _of_these_files(ladder: Ladder, stored: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Without what is of other policies, or other recipes, than have their names now."""
    needed = [*ladder.targets, *(one for name in names for one in ladder.recipe(name))]
    files = {one: digest(ladder.policy_path(one)) for one in dict.fromkeys(needed)}
    changed = {one for one, was in stored["files"].items() if files.get(one, was) != was}
    support = {
        name: {one: share for one, share in shares.items() if one not in changed}
        for name, shares in stored["support"].items()
        if list(ladder.recipes.get(name, ())) == stored["recipes"].get(name)
        and changed.isdisjoint(ladder.recipe(name))
    }
    recipes = {name: list(of) for name, of in ladder.recipes.items()}
    files = {**stored["files"], **files}
    files = {one: was for one, was in files.items() if one in ladder.policies}
    return {**stored, "files": files, "recipes": recipes, "support": support}


def _write(ladder: Ladder, stored: dict[str, Any]) -> None:
    """In the ladder's order."""
    support = {
        name: {
            one: round(stored["support"][name][one], 4)
            for one in ladder.targets
            if one in stored["support"][name]
        }
        for name in ladder.recipes
        if name in stored["support"]
    }
    text = json.dumps({**stored, "support": support}, indent=1, allow_nan=False)
    write_text(ladder.support_path, text + "\n")

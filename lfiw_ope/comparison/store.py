"""A folder of finished cells: each is written at once and whole, so that a killed run goes on.

    run.json        what the run is: the log, the policies, the version, the estimators
    cells/*.json    one finished estimator at one seed each

A folder is one process's at a time, by a lock that the system takes back when the process dies.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfiw_ope.answering import Estimator
from lfiw_ope.comparison.identity import data_digest, describe, digest, policy_actions
from lfiw_ope.comparison.rows import Row
from lfiw_ope.comparison.tasks import Cell, Inputs
from lfiw_ope.errors import ConfigError, DataError
from lfiw_ope.extras import needed
from lfiw_ope.stored import write_text
from lfiw_ope.version import __version__

ACTIONS_AGREE = 1e-3
"""Relative to the largest action: within it, actions are those of the same policy."""


@dataclass(frozen=True)
class Store:
    """Finished cells of one run, in a folder that is one process's.

    Attributes:
        folder: where.
        run: digest of the run's inputs.
        settings: digest of each estimator.
    """

    folder: Path
    run: str
    settings: Mapping[str, str]

    def finished(
        self, estimators: Iterable[str], seeds: Iterable[int]
    ) -> dict[tuple[str, int], Cell]:
        """Cells that are finished, by estimator and seed."""
        every = {(name, seed): self.find(name, seed) for seed in seeds for name in estimators}
        return {place: cell for place, cell in every.items() if cell is not None}

    def find(self, estimator: str, seed: int) -> Cell | None:
        """A cell that is finished; one that cannot be read is done again."""
        path = self._path(estimator, seed)
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain["key"] != self._key(estimator, seed):
                return None
            rows = tuple(Row.from_dict(row) for row in plain["rows"])
            return Cell(estimator, seed, rows, behaviour=plain.get("behaviour"))
        except (OSError, ValueError, KeyError, TypeError, DataError):
            return None

    def add(self, cell: Cell) -> None:
        """Store a cell, whole or not at all."""
        plain = {
            "key": self._key(cell.estimator, cell.seed),
            "estimator": cell.estimator,
            "seed": cell.seed,
            "behaviour": cell.behaviour,
            "rows": [row.to_dict() for row in cell.rows],
        }
        text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
        write_text(self._path(cell.estimator, cell.seed), text)

    def _key(self, estimator: str, seed: int) -> str:
        return digest([self.run, estimator, self.settings[estimator], seed])

    def _path(self, estimator: str, seed: int) -> Path:
        readable = re.sub(r"[^\w.+-]+", "-", estimator)[:60]
        key = self._key(estimator, seed)[:12]
        return self.folder / "cells" / f"{readable}-{seed}-{key}.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A folder that no other process works in until the end; it is made where it is not there.

    Raises:
        ConfigError: if another process works in it.
        MissingDependencyError: if filelock is not installed.
    """
    with needed("A store needs filelock", extra="compare"):
        from filelock import FileLock, Timeout
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"The store {folder} is a file; name a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"Another process is at work in {folder}; wait for it, or name another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def open_store(
    folder: Path, run: dict[str, Any], estimators: Mapping[str, Estimator], *, resume: bool
) -> Store:
    """The cells of a folder, which is locked already.

    Args:
        folder: made where it is not there.
        run: what it is a run on, as `run_of` says it.
        estimators: by name.
        resume: go on with the cells that are there. Estimators and seeds may be new; the log, the
            policies, the version and the settings of estimators that it knows must be the same.

    Raises:
        ConfigError: if it holds a run and `resume` is False, or the run is another one.
    """
    place, known = folder / "run.json", None
    settings = {name: digest(describe(estimator)) for name, estimator in estimators.items()}
    if place.exists():
        if not resume:
            raise ConfigError(
                f"{folder} holds a run; go on with it by resume=True, or name another folder."
            )
        known = _read_run(place)
        _require_same(folder, known, run, settings)
        run = known["run"]  # the actions as they were first, of which cells bear the digest
        settings = {**known["estimators"], **settings}
    told = {"run": run, "estimators": settings}
    if told != known:
        write_text(place, json.dumps(told) + "\n")
    return Store(folder, digest(run), settings)


def run_of(inputs: Inputs) -> dict[str, Any]:
    """What tells one run from another: version, log, policies by what they do, refusals."""
    return {
        "version": __version__,
        "data": data_digest(inputs.data),
        "log": repr(inputs.data),
        "policies": {
            name: policy_actions(policy, inputs.data) for name, policy in inputs.policies.items()
        },
        "thresholds": describe(inputs.thresholds),
        "keep_refused": inputs.keep_refused,
    }


def _read_run(place: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        _ = dict(known["run"]["policies"]), dict(known["estimators"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{place} is no stored run ({error}); name another folder.") from error
    return known


def _require_same(
    folder: Path, known: dict[str, Any], run: dict[str, Any], settings: Mapping[str, str]
) -> None:
    there, differing = known["run"], []
    if there.get("version") != run["version"]:
        differing.append(f"the version of lfiw_ope ({there.get('version')}, now {run['version']})")
    if there.get("data") != run["data"]:
        differing.append(_other_data(there, run))
    if list(there["policies"]) != list(run["policies"]):
        differing.append(f"the policies' names (they were {', '.join(there['policies'])})")
    elif there.get("data") == run["data"]:  # at other states they would act otherwise
        pairs = [(name, there["policies"][name], of) for name, of in run["policies"].items()]
        others = [name for name, one, other in pairs if not _agree(one, other)]
        differing += [f"what the policy {name!r} does" for name in others]
    if there.get("thresholds") != run["thresholds"]:
        differing.append("when estimates are refused")
    if there.get("keep_refused", False) != run["keep_refused"]:
        differing.append("whether refused rows keep their numbers")
    for name, of in settings.items():
        if known["estimators"].get(name, of) != of:
            differing.append(f"the settings of {name!r}")
    if differing:
        raise ConfigError(
            f"{folder} holds another run: {'; '.join(differing)} differ. Give what it was started "
            "with, or name another folder."
        )


def _other_data(there: dict[str, Any], run: dict[str, Any]) -> str:
    """What is said of a log that is another one, though it may be called the same."""
    if there.get("log") != run["log"]:
        return f"the data (it was {there.get('log')})"
    before, now = there.get("made_with", {}), run.get("made_with", {})
    other = [
        f"{name} {of}, now {now.get(name)}" for name, of in before.items() if of != now.get(name)
    ]
    told = f"with {', '.join(other)}" if other else "by other policies, packages or numbers"
    return f"the data (called {run['log']} too, and made {told})"


def _agree(one: list[float] | str | None, other: list[float] | str | None) -> bool:
    """Of actions, or of digests where a policy is known by its file."""
    if not isinstance(one, list) or not isinstance(other, list):
        return one == other
    if len(one) != len(other):
        return False
    scale = max(1e-12, float(np.abs(one).max(initial=0.0)))
    return bool(np.allclose(one, other, rtol=0.0, atol=ACTIONS_AGREE * scale))

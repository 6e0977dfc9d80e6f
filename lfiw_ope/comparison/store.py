"""A folder of finished cells: each is written at once and whole, so that a killed run goes on.

    run.json        what the run is: the log, the policies, the version, the estimators
    cells/*.json    one finished estimator at one seed each

A folder is one process's at a time, by a lock that the system takes back when the process dies.
"""

import glob
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

from lfiw_ope.answering import Estimator
from lfiw_ope.comparison.identity import describe, digest
from lfiw_ope.comparison.rows import Row, require_kinds
from lfiw_ope.comparison.runs import require_same
from lfiw_ope.comparison.tasks import Cell
from lfiw_ope.errors import ConfigError, DataError, warn
from lfiw_ope.extras import needed
from lfiw_ope.stored import read_json, write_text

RUN = "run.json"


@dataclass(frozen=True)
class Store:
    """Finished cells of one run, in a folder that is one process's.

    Attributes:
        folder: where.
        run: digest of the run's inputs.
        settings: digest of each estimator.
        policies: names, in their order.
        told: what `run.json` is to say; None where it says it already.
    """

    folder: Path
    run: str
    settings: Mapping[str, str]
    policies: tuple[str, ...]
    told: Mapping[str, Any] | None

    def begin(self) -> "Store":
        """Write what the run is, before its first cell."""
        if self.told is None:
            return self
        write_text(self.folder / RUN, json.dumps(self.told) + "\n")
        return replace(self, told=None)

    def finished(
        self, estimators: Iterable[str], seeds: Iterable[int]
    ) -> dict[tuple[str, int], Cell]:
        """Cells that are finished, by estimator and seed."""
        every = {(name, seed): self.find(name, seed) for seed in seeds for name in estimators}
        return {place: cell for place, cell in every.items() if cell is not None}

    def find(self, estimator: str, seed: int) -> Cell | None:
        """A cell that is finished; one that is damaged is to be done again, which is said."""
        path = self._path(estimator, seed)
        try:
            return self._read(path, estimator, seed)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            warn(f"{path} is damaged ({reason}); what it held is done again.")
            return None

    def _read(self, path: Path, estimator: str, seed: int) -> Cell:
        plain = read_json(path.read_text(encoding="utf-8"))
        if plain["key"] != self._key(estimator, seed):
            raise DataError("it is of another run")
        cell = Cell(
            estimator,
            seed,
            tuple(Row.from_dict(row) for row in plain["rows"]),
            behaviour=plain.get("behaviour"),
        )
        require_kinds(cell, {("behaviour",): Real | None})
        of = [(row.estimator, row.policy, row.seed) for row in cell.rows]
        if of != [(estimator, policy, seed) for policy in self.policies]:
            raise DataError("its rows are not one of each policy")
        return cell

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
        key = self._key(estimator, seed)[:12]
        return self.folder / "cells" / f"{_readable(estimator)}-{seed}-{key}.json"


def _readable(estimator: str) -> str:
    """A name as files can bear it."""
    return re.sub(r"[^\w.+-]+", "-", estimator)[:60]


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
    """The cells of a folder, which is locked already; nothing is written before `begin`.

    Args:
        folder: made where it is not there, by the first thing that is written.
        run: what it is a run on, as `run_of` says it.
        estimators: by name.
        resume: go on with the cells that are there. Estimators and seeds may be new; the log, the
            policies, the version and the settings of estimators that have cells must be the same.

    Raises:
        ConfigError: if it holds a run and `resume` is False, or the run is another one.
    """
    place, known = folder / RUN, None
    settings = {name: digest(describe(estimator)) for name, estimator in estimators.items()}
    if place.exists():
        if not resume:
            raise ConfigError(
                f"{folder} holds a run; go on with it by resume=True, or name another folder."
            )
        known = _read_run(place)
        changed = [
            name
            for name, of in settings.items()
            if known["estimators"].get(name, of) != of and _has_cells(folder, name)
        ]
        require_same(folder, known["run"], run, changed)
        run = known["run"]  # the actions as they were first, of which cells bear the digest
        settings = {**known["estimators"], **settings}
    told = {"run": run, "estimators": settings}
    policies = tuple(run["policies"])
    return Store(folder, digest(run), settings, policies, None if told == known else told)


def _read_run(place: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = read_json(place.read_text(encoding="utf-8"))
        run = known["run"]
        held = (run, run["policies"], run.get("made_with", {}), known["estimators"])
        if not all(isinstance(one, dict) for one in held):
            raise TypeError("it does not say what of")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{place} is no stored run ({error}); remove it, and the cells beside it that are of "
            "this run are gone on with, or name another folder."
        ) from error
    return known


def _has_cells(folder: Path, estimator: str) -> bool:
    """Whether anything is there that an estimator of this name said."""
    for path in (folder / "cells").glob(f"{glob.escape(_readable(estimator))}-*.json"):
        try:
            if read_json(path.read_text(encoding="utf-8"))["estimator"] == estimator:
                return True
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged, and no use to anyone
    return False

"""Run a suite: each cell is stored at once, and a stopped run goes on."""

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from lfiw_ope.benchmark.suites import Entry, Suite, estimator_entries
from lfiw_ope.benchmark.trials import BenchRow, Known, Trial, estimators_of, trials_of
from lfiw_ope.core.errors import ConfigError, DataError
from lfiw_ope.core.protocols import Progress, silent
from lfiw_ope.core.serialization import Stored, provenance, write_text
from lfiw_ope.core.validation import choice, whole
from lfiw_ope.estimators.base import Estimator
from lfiw_ope.estimators.registry import CATALOGUE
from lfiw_ope.evaluation.engines import Engine, require_sent, run_tasks
from lfiw_ope.evaluation.runner import Cell, Task, waiting_works
from lfiw_ope.evaluation.store import Store, locked, open_store
from lfiw_ope.evaluation.summary import require_kinds


@dataclass
class Pace:
    """Seconds of finished cells, by estimator and by kind of trial."""

    _known: dict[Hashable, tuple[float, int]] = field(default_factory=dict)

    def add(self, estimator: str, kind: Hashable, seconds: float) -> None:
        """A cell that is finished."""
        for among in ((estimator, kind), estimator, None):
            total, count = self._known.get(among, (0.0, 0))
            self._known[among] = total + seconds, count + 1

    def expected(self, estimator: str, kind: Hashable) -> float | None:
        """Of a cell: the mean of its like; else of its estimator's, else of all; None of none."""
        for among in ((estimator, kind), estimator, None):
            if among in self._known:
                total, count = self._known[among]
                return total / count
        return None

    def left(self, waiting: Iterable[tuple[str, Hashable]], jobs: int) -> str:
        """Time that cells which are waiting take side by side, in words; empty where none waits."""
        seconds, unseen = 0.0, False
        for (estimator, kind), count in Counter(waiting).items():
            expected = self.expected(estimator, kind)
            if expected is None:
                return ""
            seconds += count * expected
            unseen = unseen or estimator not in self._known
        minutes = round(seconds / jobs / 60)
        if not seconds:
            return ""
        time = f"about {minutes // 60}:{minutes % 60:02d} h" if minutes else "less than a minute"
        return f"{time} left" + ", if others take as long" * unseen


WRITTEN = ("results.json", "results.csv", *(f"leaderboard.{end}" for end in ("json", "md", "png")))
"""Files that a run leaves beside its cells."""


@dataclass(frozen=True)
class BenchResults(Stored):
    """What a suite came to.

    Attributes:
        about: what made the rows: suite, command, settings, versions.
        rows: of the trials that are finished, in their order, then by estimator and policy.
        trials: that the suite has; `finished` of them are in the rows.
        finished: trials of which every cell is there.
        without_log: trials whose log could not be had, by name, with the reason.
    """

    about: Mapping[str, Any]
    rows: tuple[BenchRow, ...]
    trials: int
    finished: int
    without_log: Mapping[str, str]

    @property
    def head(self) -> dict[str, Any]:
        """All but the rows: what made them, and how much of the suite they are."""
        return {
            **self.about,
            "trials": self.trials,
            "finished": self.finished,
            "without_log": dict(self.without_log),
        }

    def to_dict(self) -> dict[str, Any]:
        """As plain Python numbers, lists and strings."""
        return {**self.head, "rows": [row.to_dict() for row in self.rows]}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            DataError: if it is no stored benchmark.
        """
        own = ("trials", "finished", "without_log")
        try:
            rows = tuple(BenchRow.from_dict(row) for row in plain["rows"])
            about = {name: of for name, of in plain.items() if name not in (*own, "rows")}
            found = cls(about, rows, *(plain[name] for name in own))
            require_kinds(found, {own[:2]: int, own[2:]: dict})
            return found
        except (KeyError, TypeError) as error:
            raise DataError(f"These are no stored results of a benchmark ({error}).") from error

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """What `save` wrote as `results.json`.

        Raises:
            DataError: if it is not such a file.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, DataError) as error:
            raise DataError(
                f"{path} holds no results of a benchmark ({error}); expected the results.json that "
                "lfiw-ope bench writes."
            ) from error

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write `results.json` and `results.csv`; each appears whole or not at all."""
        plain = self.to_dict()
        text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
        saved = write_text(folder / "results.json", text)
        return saved, write_text(folder / "results.csv", _csv(plain["rows"]))


def require_free(folder: Path, *, resume: bool) -> None:
    """That a run may write its results into a folder, where other results are not lost by it.

    Args:
        folder: need not be there.
        resume: whether the run is to go on with what is there.

    Raises:
        ConfigError: if it holds a benchmark and `resume` is False, or results without the cells
            that they are of.
    """
    if (folder / "units").exists():
        if not resume:
            raise ConfigError(
                f"{folder} holds a benchmark; go on with it by resume=True (--resume), or name "
                "another folder."
            )
        return
    there = [name for name in WRITTEN if (folder / name).exists()]
    if there:
        raise ConfigError(
            f"{folder} holds {', '.join(there)}, and not the cells (units/) that they would be of; "
            "name another folder, so that they are not replaced."
        )


def finished_in(path: Path) -> int:
    """Trials that a file of results has; 0 where there is none."""
    try:
        return BenchResults.read(path).finished
    except DataError:
        return 0


def _csv(rows: list[dict[str, Any]]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, BenchRow.columns(), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "warnings": " ".join(row["warnings"])} for row in rows)
    return table.getvalue()


SIMULATORS = ("gymnasium", "mujoco")
"""Whose versions the logs depend on."""

SHARE_OF_TIME = 0.05
"""That writing the results so far may take."""


def run_suite(
    suite: Suite,
    *,
    output: str | Path,
    jobs: int = 1,
    engine: Engine = "joblib",
    resume: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> BenchResults:
    """Let every estimator of a suite estimate every policy in every one of its logs.

    Logs are made when their turn comes, and cached. An estimator's failure is a row with its
    reason; a log that cannot be had leaves its trial out of the rows and is told. True values and
    support are read before the first estimator runs, and no estimator is told them.

    Args:
        suite: `dataclasses.replace` gives it other seeds, estimators or ladders.
        output: a folder. Each finished cell, an estimator in a trial, is written to `units/` at
            once; `results.json` and `results.csv` have the trials that are finished.
        jobs: processes; with Ray, CPUs of the cluster where one has to be started.
        engine: "joblib" works on this machine, "ray" on a cluster.
        resume: go on with the folder's cells. Entries of the suite may be added or left out;
            settings, logs and policies must be as they were.
        command: said in the results to have made them.
        progress: told each finished cell, and how long the others will take.

    Raises:
        ConfigError: if an entry is none, something of a ladder was not measured, or the folder
            holds another run.
        MissingDependencyError: if gymnasium, joblib, Ray or filelock is needed and not installed.
    """
    whole("jobs", jobs, least=1)
    choice("engine", engine, ("joblib", "ray"))
    entries = estimator_entries(suite.estimators)
    trials = trials_of(suite)
    known = _known(trials)
    # What can be refused is, before there is a folder.
    prepared = [(t, t.run(), estimators_of(t, entries, suite.options)) for t in trials]
    require_sent(
        [Task(t, work) for t, _, made in prepared for work in waiting_works(made, [t.seed], ())],
        jobs,
        engine,
    )
    folder = Path(output).absolute()  # an estimator may go elsewhere
    with locked(folder):
        require_free(folder, resume=resume)
        about, before = _about(suite, entries, command), finished_in(folder / "results.json")
        table = _Table(trials, entries, known, about, before)
        tasks = [task for one in prepared for task in table.opened(*one, folder)]
        table.begin()  # now that none of the trials is refused
        for source, cell in run_tasks(tasks, jobs, engine, progress):
            trial = table.add(source, cell)
            table.save_sometimes(folder)
            left = table.left(jobs)
            progress("bench", len(table.cells), table.size, f"{trial}, {cell.estimator}{left}")
        found = table.results()
        found.save(folder)
    return found


def _known(trials: Sequence[Trial]) -> dict[Trial, Known]:
    """Each read once, however many seeds and sizes there are."""
    read: dict[tuple[str, str, str], Known] = {}
    for trial in trials:
        key = (trial.ladder.name, trial.data, trial.question)
        if key not in read:
            read[key] = Known.of(trial)
    return {t: read[t.ladder.name, t.data, t.question] for t in trials}


def _about(suite: Suite, entries: Sequence[Entry], command: str) -> dict[str, Any]:
    """What made the rows; settings are those that are not the estimators' own defaults."""
    made = provenance()
    for name in SIMULATORS:
        try:
            made["machine"][name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "suite": suite.name,
        "about": suite.in_words,
        "command": command,
        "settings": {
            entry.name: suite.options[entry.name].changed()
            for entry in entries
            # One of the user's own may bear the name of one that has settings.
            if entry.name in suite.options and entry.build is CATALOGUE.get(entry.name)
        },
        "own_estimators": [said for said in suite.estimators if ":" in said],
        **made,
    }


@dataclass
class _Table:
    """Cells of a run, as they come.

    Attributes:
        trials: in their order.
        entries: estimators, in their order.
        known: truth and support, by trial.
        about: what makes the rows.
        finished_before: trials that the folder's results have already.
        stores: by trial.
        cells: that are finished, by trial and estimator.
    """

    trials: Sequence[Trial]
    entries: Sequence[Entry]
    known: Mapping[Trial, Known]
    about: Mapping[str, Any]
    finished_before: int
    stores: dict[Any, Store] = field(default_factory=dict)
    cells: dict[tuple[Trial, str], Cell] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    saved: float = 0.0
    took: float = 0.0

    @property
    def size(self) -> int:
        """Cells that there will be."""
        return len(self.trials) * len(self.entries)

    def begin(self) -> None:
        """Write what each trial is."""
        self.stores = {trial: store.begin() for trial, store in self.stores.items()}

    def opened(
        self, trial: Trial, run: dict[str, Any], estimators: dict[str, Estimator], folder: Path
    ) -> list[Task]:
        """What is left to do of a trial, whose finished cells are read."""
        place = folder / "units" / str(trial)
        self.stores[trial] = open_store(place, run, estimators, resume=True)
        finished = self.stores[trial].finished(estimators, [trial.seed])
        for cell in finished.values():
            self._keep(trial, cell)
        return [Task(trial, work) for work in waiting_works(estimators, [trial.seed], finished)]

    def add(self, trial: Any, cell: Cell) -> Trial:
        """A cell that is finished, stored where it lasts."""
        if cell.lasting:
            self.stores[trial].add(cell)
        self._keep(trial, cell)
        found: Trial = trial
        return found

    def _keep(self, trial: Trial, cell: Cell) -> None:
        self.cells[trial, cell.estimator] = cell
        seconds = sum(row.seconds + row.judging_seconds for row in cell.rows)
        self.pace.add(cell.estimator, trial.kind, seconds)

    def left(self, jobs: int) -> str:
        """How long it still takes, as a note."""
        waiting = [
            (entry.name, trial.kind)
            for trial in self.trials
            for entry in self.entries
            if (trial, entry.name) not in self.cells
        ]
        told = self.pace.left(waiting, jobs)
        return f"; {told}" if told else ""

    def results(self) -> BenchResults:
        """Of the trials that are finished."""
        rows, without_log, finished = [], {}, 0
        for trial in self.trials:
            cells = [self.cells.get((trial, entry.name)) for entry in self.entries]
            done = [cell for cell in cells if cell is not None]
            if len(done) < len(cells):
                continue
            means = [cell.behaviour for cell in done if cell.behaviour is not None]
            if not means:
                without_log[str(trial)] = done[0].rows[0].reason
                continue
            finished += 1
            rows += self.known[trial].rows(trial, done, means[0])
        return BenchResults(self.about, tuple(rows), len(self.trials), finished, without_log)

    def save_sometimes(self, folder: Path) -> None:
        """Write what there is, where that takes a small share of the time since it was written.

        Results of more trials, which one more estimator has to catch up with, are left until then.
        """
        started = time.perf_counter()
        if self.took > SHARE_OF_TIME * (started - self.saved):
            return
        found = self.results()
        if found.finished >= self.finished_before:
            found.save(folder)
        self.saved = time.perf_counter()
        self.took = self.saved - started

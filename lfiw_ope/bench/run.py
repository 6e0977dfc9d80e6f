"""A suite, run: each cell is stored at once, and a run that was stopped goes on."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lfiw_ope.answering import Estimator
from lfiw_ope.bench.entries import Entry, estimator_entries
from lfiw_ope.bench.known import Known
from lfiw_ope.bench.pace import Pace
from lfiw_ope.bench.results import BenchResults, finished_in, require_free
from lfiw_ope.bench.suites import Suite
from lfiw_ope.bench.trials import Trial, estimators_of, trials_of
from lfiw_ope.catalogue import CATALOGUE
from lfiw_ope.checks import choice, whole
from lfiw_ope.comparison.engines import Engine, require_sent, run_tasks
from lfiw_ope.comparison.store import Store, locked, open_store
from lfiw_ope.comparison.tasks import Cell, Task, waiting_works
from lfiw_ope.stored import provenance
from lfiw_ope.types import Progress, silent

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

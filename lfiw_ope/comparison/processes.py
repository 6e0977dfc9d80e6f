"""Units of work, side by side in processes of this machine."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from lfiw_ope.comparison.cells import finish_all, reason_of
from lfiw_ope.comparison.tasks import Cell, Inputs, Source, Task, Work
from lfiw_ope.errors import ConfigError, OPEError, PolicyError
from lfiw_ope.extras import joblib_modules
from lfiw_ope.threads import one_thread
from lfiw_ope.types import silent

DIED = (
    "The process that worked on it died, as it does when memory is short; give it more memory, or "
    "fewer jobs."
)


def finish_alone(source: Source, work: Work) -> list[Cell]:
    """A unit of work in a process of its own, on one thread; the process is left as it was."""
    with one_thread():
        return [cell for _, cell in finish_all([Task(source, work)], silent)]


def run_processes(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Source, Cell]]:
    """In `jobs` processes of this machine, by joblib; cells come as they are finished.

    Where a process dies, all do. What was being worked on is then done again, each unit in a
    process of its own, so that only the one that kills its process is a failure, and the rest goes
    on side by side.

    Raises:
        MissingDependencyError: if joblib is not installed.
    """
    joblib, _ = joblib_modules()

    def side_by_side(some: Sequence[Task], given: list[int]) -> Iterator[tuple[int, list[Cell]]]:
        # Arrays are mapped copy-on-write: torch takes no memory that may not be written to.
        parallel = joblib.Parallel(
            jobs,
            backend="loky",
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch=jobs,
            mmap_mode="c",
            inner_max_num_threads=1,
        )

        def calls() -> Iterator[Any]:
            for index, task in enumerate(some):
                given.append(index)
                yield joblib.delayed(_numbered)(task, index)

        yield from parallel(calls())

    waiting = list(tasks)
    while waiting:
        given, done = list[int](), set[int]()
        try:
            for index, cells in side_by_side(waiting, given):
                done.add(index)
                for cell in cells:
                    yield waiting[index].source, cell
            return
        except BrokenProcessPool:
            suspects = [waiting[index] for index in given if index not in done]
            waiting = waiting[len(given) :]
        for suspect in suspects:
            try:
                for _, cells in side_by_side([suspect], []):
                    for cell in cells:
                        yield suspect.source, cell
            except BrokenProcessPool as error:
                for cell in suspect.failed(f"{DIED} ({error})", lasting=False):
                    yield suspect.source, cell


def _numbered(task: Task, index: int) -> tuple[int, list[Cell]]:
    return index, finish_alone(task.source, task.work)


def require_sendable(tasks: Sequence[Task], dumps: Callable[[Any], bytes]) -> None:
    """That every policy, every estimator and all that makes inputs can be sent elsewhere.

    Raises:
        PolicyError: if a policy cannot.
        ConfigError: if an estimator or a source cannot.
    """
    found: dict[int, tuple[str, Any, type[OPEError]]] = {}
    for task in tasks:
        if not isinstance(task.source, Inputs):
            found[id(task.source)] = f"task {task.source}", task.source, ConfigError
        elif id(task.source) not in found:
            for name, policy in task.source.policies.items():
                found[id(policy)] = f"policy {name!r}", policy, PolicyError
        for name, estimator in task.work.estimators.items():
            found[id(estimator)] = f"estimator {name!r}", estimator, ConfigError
    for what, one, refusal in found.values():
        try:
            dumps(one)
        except Exception as error:
            raise refusal(
                f"The {what} cannot be sent to another process ({reason_of(error)}); "
                "use jobs=1 and engine='joblib'."
            ) from error

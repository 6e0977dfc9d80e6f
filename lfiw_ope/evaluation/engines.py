"""Run jobs one after the other, in processes, or on a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Literal

from lfiw_ope.core.errors import ConfigError, OPEError, PolicyError
from lfiw_ope.core.protocols import Progress, silent
from lfiw_ope.core.runtime import joblib_modules, needed, one_thread
from lfiw_ope.evaluation.runner import Cell, Inputs, Source, Task, Work, finish_all, reason_of

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


RETRIES = 3
"""Times that a task is started again after its process or its machine was lost."""


def run_cluster(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Source, Cell]]:
    """On a cluster, one CPU a unit; cells come as they are finished, each unit's once.

    A source, which is log and policies where those are there, is sent once to a machine. A task has
    no other effect than its answer, so that one which is started again, where its machine was lost,
    gives the same cells.

    Args:
        tasks: the units.
        jobs: CPUs of a cluster that is started for this run.

    Raises:
        MissingDependencyError: if ray is not installed.
    """
    ray = ray_module()
    with _cluster(ray, jobs):
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(finish_alone)
        shared = {id(source): ray.put(source) for source in _each_once(tasks)}
        waiting = {remote.remote(shared[id(task.source)], task.work): task for task in tasks}
        while waiting:
            finished, _ = ray.wait(list(waiting), num_returns=1)
            for reference in finished:
                task = waiting.pop(reference)
                try:
                    cells = ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = f"Its task was lost: {reason_of(error)}"
                    cells = task.failed(reason, lasting=False)
                for cell in cells:
                    yield task.source, cell


def ray_module() -> Any:
    """Ray.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    with needed("engine='ray' needs ray", extra="ray"):
        import ray
    return ray


def _each_once(tasks: Sequence[Task]) -> list[Source]:
    return list({id(task.source): task.source for task in tasks}.values())


@contextmanager
def _cluster(ray: Any, jobs: int) -> Iterator[None]:
    """The cluster that the caller is connected to, or one that runs, or one for this run alone."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError:
        ray.init(address="local", num_cpus=jobs, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


Engine = Literal["joblib", "ray"]


def require_sent(tasks: Sequence[Task], jobs: int, engine: Engine) -> None:
    """That the engine can work on the tasks, before anything is made for them.

    Raises:
        PolicyError, ConfigError: if something cannot be sent to other processes.
        MissingDependencyError: if joblib or Ray is needed and not installed.
    """
    if engine == "ray":
        require_sendable(tasks, ray_module().cloudpickle.dumps)
    elif jobs > 1:
        _, cloudpickle = joblib_modules()
        require_sendable(tasks, cloudpickle.dumps)


def run_tasks(
    tasks: Sequence[Task], jobs: int, engine: Engine, progress: Progress
) -> Iterator[tuple[Source, Cell]]:
    """Cells as they are finished, each with the source that it was made from.

    Units of many sources run side by side: none waits for the end of another's. That they can be
    sent to other processes, `require_sent` has seen.

    Args:
        tasks: the units; those of one source stand in a row, so that it is loaded once here.
        jobs: processes; with Ray, CPUs of the cluster where one has to be started.
        engine: "joblib" works on this machine, "ray" on a cluster.
        progress: told how far a unit is, where it is this process that works.

    Raises:
        MissingDependencyError: if joblib or Ray is needed and not installed.
    """
    if not tasks:
        return iter(())
    if engine == "ray":
        return run_cluster(tasks, jobs)
    return finish_all(tasks, progress) if jobs == 1 else run_processes(tasks, jobs)

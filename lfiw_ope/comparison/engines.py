"""Units of work: one after the other here, side by side in processes, or on a cluster."""

from collections.abc import Iterator, Sequence
from typing import Literal

from lfiw_ope.comparison.cells import finish_all
from lfiw_ope.comparison.processes import require_sendable, run_processes
from lfiw_ope.comparison.ray_engine import ray_module, run_cluster
from lfiw_ope.comparison.tasks import Cell, Source, Task
from lfiw_ope.extras import joblib_modules
from lfiw_ope.types import Progress

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

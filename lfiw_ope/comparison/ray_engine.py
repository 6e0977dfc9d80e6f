"""Units of work as plain tasks of a Ray cluster, each retried where its machine is lost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lfiw_ope.comparison.cells import reason_of
from lfiw_ope.comparison.processes import finish_alone
from lfiw_ope.comparison.tasks import Cell, Source, Task
from lfiw_ope.extras import needed

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

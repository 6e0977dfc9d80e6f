"""Units of work as plain tasks of a Ray cluster, each retried where its machine is lost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lfiw_ope.comparison.cells import Cell, Inputs, Work, reason_of
from lfiw_ope.comparison.engines import finish_alone, require_sendable
from lfiw_ope.errors import MissingDependencyError

RETRIES = 3
"""Times that a task is started again after its process or its machine was lost."""


def run_cluster(inputs: Inputs, works: Sequence[Work], jobs: int) -> Iterator[Cell]:
    """On a cluster, one CPU a unit; cells come as they are finished, each unit's once.

    Log and policies are sent once to a machine. A task has no other effect than its answer, so
    that one which is started again, where its machine was lost, gives the same cells.

    Args:
        inputs: of every unit.
        works: the units.
        jobs: CPUs of a cluster that is started for this run.

    Raises:
        MissingDependencyError: if ray is not installed.
        PolicyError, ConfigError: if a policy or an estimator cannot be sent to another process.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            "engine='ray' needs ray, which is not installed: pip install 'lfiw-ope[ray]'."
        ) from error
    require_sendable(inputs, works, ray.cloudpickle.dumps)
    with _cluster(ray, jobs):
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(finish_alone)
        shared = ray.put(inputs)
        waiting = {task.remote(shared, work): work for work in works}
        while waiting:
            finished, _ = ray.wait(list(waiting), num_returns=1)
            for reference in finished:
                work = waiting.pop(reference)
                try:
                    cells = ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = f"Its task was lost: {reason_of(error)}"
                    cells = work.failed(inputs, reason, lasting=False)
                yield from cells


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

"""Units of work, one after the other here or side by side in processes of this machine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from lfiw_ope.comparison.cells import Cell, Inputs, Work, finish, reason_of
from lfiw_ope.comparison.judging import Look
from lfiw_ope.errors import ConfigError, MissingDependencyError, OPEError, PolicyError
from lfiw_ope.types import Progress, silent

DIED = (
    "The process that worked on it died, as it does when memory is short; give it more memory, or "
    "fewer jobs."
)


def run_here(inputs: Inputs, works: Sequence[Work], progress: Progress) -> Iterator[Cell]:
    """One after the other, in this process."""
    look = Look(inputs.data, inputs.policies)
    for work in works:
        yield from finish(inputs, work, progress, look)


def finish_alone(inputs: Inputs, work: Work) -> list[Cell]:
    """A unit of work in a process of its own, on one thread; the process is left as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return list(finish(inputs, work, silent))
    finally:
        torch.set_num_threads(threads)


def run_processes(inputs: Inputs, works: Sequence[Work], jobs: int) -> Iterator[Cell]:
    """In `jobs` processes of this machine, by joblib; cells come as they are finished.

    Where a process dies, all do. What was being worked on is then done again, each unit in a
    process of its own, so that only the one that kills its process is a failure, and the rest goes
    on side by side.

    Raises:
        MissingDependencyError: if joblib is not installed.
        PolicyError, ConfigError: if a policy or an estimator cannot be sent to another process.
    """
    try:
        import cloudpickle
        import joblib
    except ImportError as error:
        raise MissingDependencyError(
            "jobs above 1 need joblib, which is not installed: pip install 'lfiw-ope[compare]'."
        ) from error
    require_sendable(inputs, works, cloudpickle.dumps)

    def side_by_side(some: Sequence[Work], given: list[int]) -> Iterator[tuple[int, list[Cell]]]:
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

        def tasks() -> Iterator[Any]:
            for index, work in enumerate(some):
                given.append(index)
                yield joblib.delayed(_numbered)(inputs, work, index)

        yield from parallel(tasks())

    waiting = list(works)
    while waiting:
        given, done = list[int](), set[int]()
        try:
            for index, cells in side_by_side(waiting, given):
                done.add(index)
                yield from cells
            return
        except BrokenProcessPool:
            suspects = [waiting[index] for index in given if index not in done]
            waiting = waiting[len(given) :]
        for suspect in suspects:
            try:
                for _, cells in side_by_side([suspect], []):
                    yield from cells
            except BrokenProcessPool as error:
                yield from suspect.failed(inputs, f"{DIED} ({error})", lasting=False)


def _numbered(inputs: Inputs, work: Work, index: int) -> tuple[int, list[Cell]]:
    return index, finish_alone(inputs, work)


def require_sendable(inputs: Inputs, works: Sequence[Work], dumps: Callable[[Any], bytes]) -> None:
    """That every policy and every estimator can be sent to another process.

    Raises:
        PolicyError: if a policy cannot.
        ConfigError: if an estimator cannot.
    """
    estimators = {name: of for work in works for name, of in work.estimators.items()}
    kinds: tuple[tuple[str, Mapping[str, Any], type[OPEError]], ...] = (
        ("policy", inputs.policies, PolicyError),
        ("estimator", estimators, ConfigError),
    )
    for kind, every, refusal in kinds:
        for name, one in every.items():
            try:
                dumps(one)
            except Exception as error:
                raise refusal(
                    f"The {kind} {name!r} cannot be sent to another process ({reason_of(error)}); "
                    "use jobs=1 and engine='joblib'."
                ) from error

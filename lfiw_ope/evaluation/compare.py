"""Many estimators on many policies by many seeds, in one call."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.validation import choice, whole
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnostics.thresholds import Thresholds, thresholds_of
from lfiw_ope.estimators.base import Estimator
from lfiw_ope.estimators.behaviour import BehaviourReturn
from lfiw_ope.evaluation.engines import Engine, require_sent, run_tasks
from lfiw_ope.evaluation.runner import Inputs, Task, waiting_works
from lfiw_ope.evaluation.store import locked, open_store, run_of
from lfiw_ope.evaluation.table import Comparison

T = TypeVar("T")


def compare(
    estimators: Mapping[str, Estimator] | Sequence[Estimator],
    data: Trajectories,
    policies: Mapping[str, Policy] | Sequence[Policy],
    truth: Mapping[str, float] | Sequence[float] | None = None,
    seeds: Iterable[int] = (0,),
    *,
    store: str | Path | None = None,
    resume: bool = False,
    jobs: int = 1,
    engine: Engine = "joblib",
    refuse: bool | Thresholds = False,
    keep_refused: bool = False,
    progress: Progress = silent,
) -> Comparison:
    """Let every estimator estimate every policy, once a seed.

    Estimators that can answer from one fit share it, with the numbers that each would give by
    itself. Whatever an estimator raises is a row with its reason and stops nothing else.

    Args:
        estimators: by name; those of a sequence are named by their labels. All estimate one thing.
        data: the log.
        policies: by name; those of a sequence are called "policy 0" and so on.
        truth: true values, where they are known: by policy, a pandas series too, or in the
            policies' order. No estimate depends on them.
        seeds: one fit each; an estimator in which nothing is random says the same by all.
        store: a folder where each finished cell, an estimator at a seed, is written at once; None
            keeps all in memory. With several jobs, estimators that share a fit finish together.
        resume: go on with a store's cells. Estimators and seeds may be added; everything else must
            be as it was. A failure that the package tells of stays one; any other, as of memory, a
            lost machine or an estimator of your own, is tried again.
        jobs: processes; with Ray, CPUs of the cluster where one has to be started.
        engine: "joblib" works on this machine; "ray" on the cluster that the caller is connected
            to, or that runs here, or else on one that is started here and stopped at the end.
        refuse: look whether the data can tell each value, by the default thresholds or by these;
            where they cannot, the row is "refused" and has no numbers.
        keep_refused: leave a refused row its numbers, to see what refusing does. No metric counts
            them.
        progress: told each finished cell.

    Raises:
        ConfigError: if an argument is out of its range, names are not known or not unique,
            estimands differ, or the store holds another run.
        PolicyError, ConfigError: if a policy or an estimator cannot be sent to other processes, and
            there are several.
        MissingDependencyError: if joblib, Ray or filelock is needed and not installed.
    """
    whole("jobs", jobs, least=1)
    choice("engine", engine, ("joblib", "ray"))
    if resume and store is None:
        raise ConfigError("resume is True and there is no store to go on from; name its folder.")
    if not isinstance(data, Trajectories):
        raise ConfigError(
            f"data is a {type(data).__name__}; expected Trajectories, such as load_minari gives."
        )
    named = _named("estimator", estimators, lambda _, one: _label(one))
    of = _named("policy", policies, lambda index, _: f"policy {index}")
    estimand = _one_estimand(named)
    chosen, known = _checked_seeds(seeds), _checked_truth(truth, list(of))
    inputs = Inputs(data, of, thresholds_of(refuse), keep_refused)
    require_sent([Task(inputs, work) for work in waiting_works(named, chosen, ())], jobs, engine)
    folder = None if store is None else Path(store).absolute()  # an estimator may go elsewhere
    with nullcontext() if folder is None else locked(folder):
        place = (
            None
            if folder is None
            else open_store(folder, run_of(inputs), named, resume=resume).begin()
        )
        cells = {} if place is None else place.finished(named, chosen)
        total = len(named) * len(chosen)
        tasks = [Task(inputs, work) for work in waiting_works(named, chosen, cells)]
        for _, cell in run_tasks(tasks, jobs, engine, progress):
            if place is not None and cell.lasting:
                place.add(cell)
            cells[cell.estimator, cell.seed] = cell
            progress("compare", len(cells), total, f"{cell.estimator}, seed {cell.seed}")
    rows = tuple(row for name in named for seed in chosen for row in cells[name, seed].rows)
    behaviour = BehaviourReturn.of(data, estimand)
    return Comparison(rows, estimand, None, behaviour).with_truth(known)


def _label(estimator: Estimator) -> str:
    return str(getattr(estimator, "label", type(estimator).__name__))


def _named(
    what: str, given: Mapping[str, T] | Sequence[T], name_of: Callable[[int, T], str]
) -> dict[str, T]:
    """By the names that were given, or by these, made unique by numbers."""
    if isinstance(given, Mapping):
        found = dict(given)
        for name in found:
            if not isinstance(name, str) or not name:
                raise ConfigError(f"{name!r} is the name of a {what}; it must be a text.")
    elif isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(
            f"A {type(given).__name__} was given for what to compare as {what}; expected a list, "
            "or a dict by name. Put a single one into brackets."
        )
    else:
        found = {}
        for index, one in enumerate(given):
            name = name_of(index, one)
            unique, count = name, 2
            while unique in found:
                unique, count = f"{name} {count}", count + 1
            found[unique] = one
    if not found:
        raise ConfigError(f"There is no {what} to compare; give one or more.")
    return found


def _one_estimand(estimators: Mapping[str, Any]) -> Estimand:
    for name, estimator in estimators.items():
        if isinstance(estimator, type) or not isinstance(estimator, Estimator):
            raise ConfigError(
                f"{name!r} is no estimator: it needs an estimand and fit(data, seed), such as "
                "FQE(Estimand(horizon=100))."
            )
    first, *others = estimators
    for name in others:
        if estimators[name].estimand != estimators[first].estimand:
            raise ConfigError(
                f"{first!r} estimates {estimators[first].estimand} and {name!r} "
                f"{estimators[name].estimand}; estimates of two things cannot be compared."
            )
    estimand: Estimand = estimators[first].estimand
    return estimand


def _checked_seeds(seeds: Iterable[int]) -> list[int]:
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise ConfigError(f"seeds is {seeds!r}; it must list them, such as range(5).")
    found = [whole("A seed", seed, least=0) for seed in seeds]
    if not found or len(set(found)) < len(found):
        raise ConfigError(f"seeds is {found}; it must be one whole number or more, each once.")
    return found


def _checked_truth(
    truth: Mapping[str, float] | Sequence[float] | None, policies: list[str]
) -> dict[str, float] | None:
    if truth is None:
        return None
    given: Any = truth
    if hasattr(given, "keys"):  # a pandas series too, whose order need not be the policies'
        named = {name: given[name] for name in given.keys()}  # noqa: SIM118
    else:
        if isinstance(truth, str) or not hasattr(truth, "__len__"):
            raise ConfigError(
                f"truth is {truth!r}; expected true values by policy, or one each in their order."
            )
        if len(truth) != len(policies):
            raise ConfigError(
                f"truth has {len(truth)} values and there are {len(policies)} policies; give one "
                "each, or name them."
            )
        named = dict(zip(policies, given, strict=True))
    unknown = [name for name in named if name not in policies]
    if unknown:
        raise ConfigError(
            f"truth names {', '.join(map(repr, unknown))}, which is no policy of this comparison; "
            f"they are {', '.join(policies)}."
        )
    known = {name: _known(name, named[name]) for name in policies if name in named}
    return known or None


def _known(policy: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"The truth of {policy!r} is {value!r}; leave out what is not known.")
    return number

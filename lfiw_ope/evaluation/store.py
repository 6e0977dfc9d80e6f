"""Finished cells in a folder, and the digests that tell runs apart.

run.json        what the run is: the log, the policies, the version, the estimators
    cells/*.json    one finished estimator at one seed each

A folder is one process's at a time, by a lock that the system takes back when the process dies.
"""

import glob
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from numbers import Real
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.core.errors import ConfigError, DataError, warn
from lfiw_ope.core.protocols import DensityPolicy, Policy, has_density
from lfiw_ope.core.runtime import needed
from lfiw_ope.core.seeding import torch_generator
from lfiw_ope.core.serialization import __version__, read_json, write_text
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimators.base import Estimator
from lfiw_ope.evaluation.runner import Cell, Inputs
from lfiw_ope.evaluation.summary import Row, require_kinds

OURS = ("lfiw_ope", "lfiw_envs")
"""Packages whose classes are what they are by the version, which is told beside them."""

PLAIN = (bool, int, float, complex, str, bytes, PurePath, tuple, frozenset)
"""What a class holds for all of its objects as a setting. What can be filled may be a cache."""

PROBED = 128
"""Logged states at which a policy is known by its actions."""


def digest(plain: Any) -> str:
    """Of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def data_digest(data: Trajectories) -> str:
    """Of every number of a log."""
    found = hashlib.sha256()
    for name in ("states", "actions", "rewards", "lengths", "terminated", "truncated"):
        found.update(_bytes(getattr(data, name)))
    for name in ("log_prob", "proposed_actions"):
        values = getattr(data, name)
        found.update(b"none" if values is None else _bytes(values))
    found.update(digest(describe(data.action_spec)).encode())
    return found.hexdigest()


@torch.no_grad()
def policy_actions(policy: Policy, data: Trajectories) -> list[float] | None:
    """What a policy does at some of the logged states, always by the same noise.

    Of discrete actions their probabilities too, where it has them: policies that differ in those
    may well draw the same actions. Numbers and no digest of them: a matrix product may differ in
    its last bits with the number of threads, and the policy is the same all the same. None of one
    that cannot act there.
    """
    states = data.states
    chosen = np.linspace(0, len(states) - 1, min(PROBED, len(states))).astype(np.int64)
    try:
        state = torch.from_numpy(np.array(states[chosen]))
        action = policy.act(state, torch_generator(0, "comparison", "probe"))
        told = [action.double().flatten()]
        discrete = data.action_spec.kind == "discrete"
        if discrete and isinstance(policy, DensityPolicy) and has_density(policy):
            told.append(policy.log_prob(state, action).exp().double().flatten())
        if not all(numbers.isfinite().all() for numbers in told):
            return None
        return [float(f"{number:.6g}") for numbers in told for number in numbers.tolist()]
    except Exception:  # why it cannot is for its rows to say
        return None


def describe(value: Any, within: tuple[int, ...] = ()) -> Any:
    """An estimator, or a part of it, as JSON can hold it: its class and all its settings.

    Arrays stand there by their digests, functions by their code, with what they close over, their
    defaults and the numbers and functions of their module that they name, and objects by the code
    of their classes and by all that pickling would keep of them.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | complex | bytes | PurePath):
        return str(value)
    if isinstance(value, Tensor):
        return {"array": _array_digest(value.detach().cpu().double().numpy())}
    if isinstance(value, np.ndarray | np.generic):
        return {"array": _array_digest(np.asarray(value))}
    if isinstance(value, type):
        return _name(value)
    if id(value) in within:
        return "itself"
    return _describe_parts(value, (*within, id(value)))


def _describe_parts(value: Any, within: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): describe(of, within) for key, of in value.items()}
    if isinstance(value, AbstractSet):
        return sorted(json.dumps(describe(one, within)) for one in value)
    if isinstance(value, Sequence):
        return [describe(one, within) for one in value]
    if isinstance(value, MethodType):
        return [describe(value.__self__, within), describe(value.__func__, within)]
    if isinstance(value, FunctionType):
        return _describe_function(value, within)
    described = {name: describe(part, within) for name, part in _parts(value).items()}
    if held := _class_values(type(value), within):
        described["class holds"] = held
    return {"class": _name(type(value)), "code": _class_digest(type(value)), **described}  # type: ignore[arg-type]


def _describe_function(value: FunctionType, within: tuple[int, ...]) -> Any:
    named = {name: value.__globals__.get(name) for name in sorted(_names(value.__code__))}
    return {
        "function": _name(value),
        "code": _code_digest(value.__code__),
        "with": [describe(cell.cell_contents, within) for cell in value.__closure__ or ()],
        "defaults": describe([value.__defaults__, value.__kwdefaults__], within),
        "named": {
            name: describe(of, within)
            for name, of in named.items()
            if isinstance(of, bool | int | float | str)
            or (isinstance(of, FunctionType) and of.__module__ == value.__module__)
        },
    }


def _names(code: CodeType) -> set[str]:
    """Globals that code names, with what is defined within it."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _parts(value: Any) -> Mapping[str, Any]:
    """An object's attributes; of one that keeps them elsewhere, what it would be made anew from."""
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if known := getattr(value, "__dict__", None):
        return dict(known)
    try:
        made = value.__reduce_ex__(2)
    except Exception:  # a lock, an open file: no two are told apart
        return {}
    return {"made": made if isinstance(made, str) else made[:3]}


def _name(of: Any) -> str:
    return f"{of.__module__}.{of.__qualname__}"


@cache
def _class_digest(of: type) -> str:
    """Of the methods of a class, and of those bases that are of the same package."""
    found = hashlib.sha256()
    for base in _bases(of):
        for name, method in sorted(vars(base).items()):
            inner = _function(method)
            if inner is not None:
                found.update(f"{name} {_code_digest(inner.__code__)}".encode())
    return found.hexdigest()[:16]


def _class_values(of: type, within: tuple[int, ...]) -> dict[str, Any]:
    """Settings of one of the user's classes that stand in none of its objects, nor in its code.

    They are plain values that it holds for all of them, and its methods' defaults.
    """
    if _package(of) in OURS:
        return {}
    found = {}
    for base in reversed(_bases(of)):
        for name, value in vars(base).items():
            inner = _function(value)
            if inner is not None and (inner.__defaults__ or inner.__kwdefaults__):
                defaults = [inner.__defaults__, inner.__kwdefaults__]
                found[f"{name}()"] = describe(defaults, within)
            elif isinstance(value, PLAIN) and not name.startswith("__"):
                found[name] = describe(value, within)
    return found


def _bases(of: type) -> list[type]:
    return [base for base in of.__mro__ if _package(base) == _package(of)]


def _package(of: type) -> str:
    return of.__module__.partition(".")[0]


def _function(member: Any) -> FunctionType | None:
    """The code of a class's member, where it has any: of methods of all kinds, and properties."""
    inner = getattr(member, "fget", None) or getattr(member, "__func__", member)
    return inner if isinstance(inner, FunctionType) else None


def _code_digest(code: CodeType) -> str:
    found = hashlib.sha256(code.co_code)
    for constant in code.co_consts:
        found.update(_constant(constant).encode())
    found.update(repr(code.co_names).encode())
    return found.hexdigest()[:16]


def _constant(value: Any) -> str:
    """A constant of code as text. A set's own order is another in each process."""
    if isinstance(value, CodeType):
        return _code_digest(value)
    if isinstance(value, frozenset):
        return repr(sorted(map(_constant, value)))
    return repr(tuple(map(_constant, value)) if isinstance(value, tuple) else value)


def _array_digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(_bytes(array)).hexdigest()[:16]


def _bytes(array: NDArray[Any]) -> bytes:
    array = np.ascontiguousarray(array)
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()


ACTIONS_AGREE = 1e-3
"""Relative to the largest action: within it, actions are those of the same policy."""


def run_of(inputs: Inputs) -> dict[str, Any]:
    """What tells one run from another: version, log, policies by what they do, refusals."""
    return {
        "version": __version__,
        "data": data_digest(inputs.data),
        "log": repr(inputs.data),
        "policies": {
            name: policy_actions(policy, inputs.data) for name, policy in inputs.policies.items()
        },
        "thresholds": describe(inputs.thresholds),
        "keep_refused": inputs.keep_refused,
    }


def require_same(
    folder: Path, there: dict[str, Any], run: dict[str, Any], changed: Iterable[str]
) -> None:
    """That a run can go on with the cells of another.

    Args:
        folder: of the cells, for the message.
        there: what they are of.
        run: what is to go on.
        changed: estimators that have cells and are no longer what they were.

    Raises:
        ConfigError: if something differs; it names all that does.
    """
    differing = []
    if there.get("version") != run["version"]:
        differing.append(f"the version of lfiw_ope ({there.get('version')}, now {run['version']})")
    if there.get("data") != run["data"]:
        differing.append(_other_data(there, run))
    if list(there["policies"]) != list(run["policies"]):
        differing.append(f"the policies' names (they were {', '.join(there['policies'])})")
    elif there.get("data") == run["data"]:  # at other states they would act otherwise
        pairs = [(name, there["policies"][name], of) for name, of in run["policies"].items()]
        others = [name for name, one, other in pairs if not _agree(one, other)]
        differing += [f"what the policy {name!r} does" for name in others]
    if there.get("thresholds") != run["thresholds"]:
        differing.append("when estimates are refused")
    if there.get("keep_refused", False) != run["keep_refused"]:
        differing.append("whether refused rows keep their numbers")
    differing += [f"the settings of {name!r}" for name in changed]
    if differing:
        raise ConfigError(
            f"{folder} holds another run: {'; '.join(differing)} differ. Give what it was started "
            "with, or name another folder."
        )


def _other_data(there: dict[str, Any], run: dict[str, Any]) -> str:
    """What is said of a log that is another one, though it may be called the same."""
    if there.get("log") != run["log"]:
        return f"the data (it was {there.get('log')})"
    before, now = there.get("made_with", {}), run.get("made_with", {})
    other = [
        f"{name} {of}, now {now.get(name)}" for name, of in before.items() if of != now.get(name)
    ]
    told = f"with {', '.join(other)}" if other else "by other policies, packages or numbers"
    return f"the data (called {run['log']} too, and made {told})"


def _agree(one: list[float] | str | None, other: list[float] | str | None) -> bool:
    """Of actions, or of digests where a policy is known by its file."""
    if not isinstance(one, list) or not isinstance(other, list):
        return one == other
    if len(one) != len(other):
        return False
    scale = max(1e-12, float(np.abs(one).max(initial=0.0)))
    return bool(np.allclose(one, other, rtol=0.0, atol=ACTIONS_AGREE * scale))


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

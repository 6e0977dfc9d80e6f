"""What a comparison is made of, as text and digests that tell one from another."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.seeding import torch_generator
from lfiw_ope.types import DensityPolicy, Policy, has_density

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

"""What a comparison is made of, as text and digests that tell one from another."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.seeding import torch_generator
from lfiw_ope.types import Policy

PROBED = 32
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
    return found.hexdigest()


@torch.no_grad()
def policy_actions(policy: Policy, data: Trajectories) -> list[float] | None:
    """What a policy does at some of the logged states, always by the same noise.

    Numbers and no digest of them: a matrix product may differ in its last bits with the number of
    threads, and the policy is the same all the same. None of one that cannot act there.
    """
    states = data.states
    chosen = np.linspace(0, len(states) - 1, min(PROBED, len(states))).astype(np.int64)
    try:
        state = torch.from_numpy(np.array(states[chosen]))
        action = policy.act(state, torch_generator(0, "comparison", "probe"))
        if not action.isfinite().all():
            return None
        return [float(f"{number:.6g}") for number in action.double().flatten().tolist()]
    except Exception:  # why it cannot is for its rows to say
        return None


def describe(value: Any, within: tuple[int, ...] = ()) -> Any:
    """An estimator, or a part of it, as JSON can hold it: its class and all its settings.

    Arrays stand there by their digests, and functions by their names and their code.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | PurePath):
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
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [describe(one, within) for one in value]
    if isinstance(value, MethodType):
        return [describe(value.__self__, within), describe(value.__func__, within)]
    if isinstance(value, FunctionType):
        closure = [describe(cell.cell_contents, within) for cell in value.__closure__ or ()]
        return {"function": _name(value), "code": _code_digest(value.__code__), "with": closure}
    parts = (
        {field.name: getattr(value, field.name) for field in fields(value)}
        if is_dataclass(value)
        else getattr(value, "__dict__", {})
    )
    described = {name: describe(part, within) for name, part in parts.items()}
    return {"class": _name(type(value)), **described}


def _name(of: Any) -> str:
    return f"{of.__module__}.{of.__qualname__}"


def _code_digest(code: CodeType) -> str:
    found = hashlib.sha256(code.co_code)
    for constant in code.co_consts:
        inner = isinstance(constant, CodeType)
        found.update((_code_digest(constant) if inner else repr(constant)).encode())
    found.update(repr(code.co_names).encode())
    return found.hexdigest()[:16]


def _array_digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(_bytes(array)).hexdigest()[:16]


def _bytes(array: NDArray[Any]) -> bytes:
    array = np.ascontiguousarray(array)
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()

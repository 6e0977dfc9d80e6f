"""Optional packages, imports by path, and the process-wide state of torch."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lfiw_ope.core.errors import ConfigError, MissingDependencyError


@contextmanager
def needed(need: str, extra: str) -> Iterator[None]:
    """Imports of a package, where it turns out that it is needed.

    Args:
        need: what needs which package: "ONNX files need onnxruntime".
        extra: that brings it.

    Raises:
        MissingDependencyError: if an import fails; it says why, and what to install.
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"{need} ({error}): pip install 'lfiw-ope[{extra}]'."
        ) from error


def joblib_modules() -> tuple[Any, Any]:
    """joblib, and cloudpickle, by which it sends things to other processes.

    Raises:
        MissingDependencyError: if they are not installed.
    """
    with needed("jobs above 1 need joblib", extra="compare"):
        import cloudpickle
        import joblib
    return joblib, cloudpickle


def import_object(path: str) -> Any:
    """What stands at `package.module:NAME`; modules of the folder that one is in are found too.

    Importing a module runs it, which the user wished by naming it.

    Raises:
        ConfigError: if it cannot be imported, or there is no such object in it.
    """
    module, _, name = path.partition(":")
    here = str(Path.cwd())  # where a module that is no package stands
    sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # a module may raise anything while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{path} cannot be imported ({reason}).") from error
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            # Last, where it hides nothing: processes that are started later import it too.
            sys.path.append(here)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread until the end; then as many as before.

    Small networks are fastest so, and processes side by side do not crowd each other. And how many
    threads share a sum decides its last bits: what has to be the same arrays again runs on one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def torch_state_kept() -> Iterator[None]:
    """After it torch has the grad mode, default type, determinism and threads that it had before.

    One of the user's estimators may set them for itself, and forget the others.
    """
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

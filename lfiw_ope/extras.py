"""Packages that only some uses need, and that an extra of this one brings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lfiw_ope.errors import MissingDependencyError


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

"""Settings, checked where they are given: what was found, what was expected."""

import math
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import torch

from lfiw_ope.core.errors import ConfigError


def whole(name: str, value: SupportsIndex, *, least: int) -> int:
    """A whole number, `least` or more, as an int.

    Raises:
        ConfigError: if it is not one.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number, {least} or more.")
    return number


def real(name: str, value: float, *, least: float, most: float = math.inf) -> float:
    """A number in [least, most], as a float.

    Raises:
        ConfigError: if it is not one.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, str) or not least <= number <= most:
        bounds = f"in [{least:g}, {most:g}]" if math.isfinite(most) else f"{least:g} or more"
        raise ConfigError(f"{name} is {value!r}; it must be a number, {bounds}.")
    return number


def choice(name: str, value: object, known: Sequence[str]) -> None:
    """One of the known words.

    Raises:
        ConfigError: if it is not one; it names them.
    """
    if value not in known:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")


def settings(name: str, value: object, kind: type, example: str) -> None:
    """Settings of a class of their own.

    Raises:
        ConfigError: if they are of another; it gives the example.
    """
    if not isinstance(value, kind):
        raise ConfigError(
            f"{name} is {value!r}; it must be of the class {kind.__name__}, such as {example}."
        )


def widths(name: str, value: Sequence[int]) -> None:
    """Widths of hidden layers.

    Raises:
        ConfigError: if one is not a positive whole number.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{name} is {value!r}; it must be a tuple of widths, such as (64, 64).")
    for width in value:
        whole(f"a width of {name}", width, least=1)


def device_there(device: str) -> None:
    """The name of a device that tensors can be put on.

    Raises:
        ConfigError: if it is not one; it says why.
    """
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"The device {device!r} cannot be used; expected cpu, cuda or cuda:1.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The device {device!r} cannot be used: {reason}") from error

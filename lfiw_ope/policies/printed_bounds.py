"""Action bounds as NumPy printed them: exact, rounded or cut.

An array is printed with as many digits as `np.set_printoptions` said when the file was written,
8 after the point by default, and nothing in the text says how many that were.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lfiw_ope.data.actions import ActionSpec

NUMBER = r"-?inf|-?\d+\.?\d*(?:e[+-]?\d+)?"
EXACT_DIGITS = 8
"""Significant digits that leave a rounding error below one step of float32."""


class PrintedBounds(NamedTuple):
    """The numbers of a Box's lower and upper bounds, as text.

    Attributes:
        low: A numbers; empty where NumPy cut the array, or there is none.
        high: A numbers, likewise.
        decimals: the most that a number of the two arrays has, so all were allowed that many.
    """

    low: tuple[str, ...] = ()
    high: tuple[str, ...] = ()
    decimals: int = 0

    @classmethod
    def of(cls, space: Mapping[str, Any]) -> "PrintedBounds":
        """From a Box's printed parts."""
        arrays = _numbers(f"{space.get('low', '')} {space.get('high', '')}")
        decimals = max(map(_decimals, arrays), default=0)
        return cls(_texts(space, "low"), _texts(space, "high"), decimals)

    @property
    def complete(self) -> bool:
        return bool(self.low) and bool(self.high)

    @property
    def rounded(self) -> ActionSpec:
        """The bounds to the digits that are printed."""
        return ActionSpec.continuous(list(map(float, self.low)), list(map(float, self.high)))

    @property
    def exact(self) -> ActionSpec | None:
        """The bounds, if no digit can be missing; None otherwise.

        A number with fewer decimals than were allowed ends in zeros. A whole number counts as
        itself; but not -0, nor a lower and an upper bound that are printed alike, which only
        rounding gives.
        """
        pairs = list(zip(self.low, self.high, strict=True)) if self.complete else []
        plain = all(_is_exact(text, self.decimals) for pair in pairs for text in pair)
        if not pairs or not plain or any(float(low) == float(high) for low, high in pairs):
            return None
        return self.rounded

    def allow(self, spec: ActionSpec) -> bool:
        """Whether bounds of this many entries would be printed so, with some number of digits."""
        texts, values = (*self.low, *self.high), (*spec.low, *spec.high)
        alike = [float(low) == float(high) for low, high in zip(self.low, self.high, strict=True)]
        return len(texts) == len(values) and all(
            float(text) == value
            or abs(float(text) - value) <= _tolerance(text, rounded, self.decimals)
            for text, value, rounded in zip(texts, values, alike + alike, strict=True)
        )


def box_shape(space: Mapping[str, Any]) -> list[int]:
    shape = space.get("_shape", space.get("shape"))
    return [int(size) for size in shape] if isinstance(shape, list) else []


def _numbers(printed: str) -> list[str]:
    return re.findall(NUMBER, printed)


def _texts(space: Mapping[str, Any], name: str) -> tuple[str, ...]:
    size = math.prod(box_shape(space))
    # One number for bounds that are all alike, which NumPy prints in full whatever the settings.
    short = str(space.get(f"{name}_repr", ""))
    if re.fullmatch(NUMBER, short):
        # With an exponent, since its decimals say nothing of how many the arrays were given.
        return (short if _is_whole(short) else f"{float(short):.16e}",) * size
    printed = str(space.get(name, ""))
    found = _numbers(printed)
    return tuple(found) if "..." not in printed and len(found) == size else ()


def _is_exact(text: str, decimals: int = 0) -> bool:
    """Whether a number is printed in full where so many decimals were allowed, or more."""
    if "inf" in text or _is_whole(text):
        return True
    mantissa, exponent, _ = text.partition("e")
    zeros = 0 if exponent else max(0, decimals - _decimals(text))
    return len(re.sub(r"\D", "", mantissa).lstrip("0")) + zeros >= EXACT_DIGITS


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.0?)?", text) is not None and not text.startswith("-0")


def _decimals(text: str) -> int:
    """Digits after the point, of a number without an exponent."""
    return 0 if "e" in text else len(text.partition(".")[2])


def _tolerance(text: str, rounded: bool, decimals: int) -> float:
    """Half a unit of the last digit allowed; of an exact number, what float32 does to it."""
    if "inf" in text:
        return 0.0
    if _is_exact(text, decimals) and not rounded:
        return 1e-6 * abs(float(text)) + 1e-8
    mantissa, _, exponent = text.partition("e")
    last = _decimals(mantissa) - int(exponent) if exponent else max(decimals, _decimals(mantissa))
    return 0.5 * 10.0**-last * (1.0 + 1e-6)

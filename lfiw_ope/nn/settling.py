"""Whether a value has settled by the end of a training: in numbers, and in words."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

FEWEST_LOOKS = 8


@dataclass(frozen=True)
class Settling:
    """How one value went through a training.

    Attributes:
        values: `[looks]`
        drift: how far the value moved from the third quarter of the training to the last.
        wobble: standard deviation of the values in these quarters about their two means.
        updates: how many were run.
        every: updates between two looks.
    """

    values: NDArray[np.float64]
    drift: float
    wobble: float
    updates: int
    every: int

    @classmethod
    def of(cls, looks: Tensor, *, updates: int, every: int) -> list[Self]:
        """Of P values, from what was seen of them `[looks, P]`."""
        values = looks.numpy()
        quarter = max(1, len(values) // 4)
        last, before = values[-quarter:], values[-2 * quarter : -quarter]
        before = before if len(before) else last
        drift = last.mean(0) - before.mean(0)
        about = np.concatenate((last - last.mean(0), before - before.mean(0)))
        wobble = np.sqrt((about**2).sum(0) / max(1, len(about) - 2))
        return [
            cls(values[:, place], float(drift[place]), float(wobble[place]), updates, every)
            for place in range(values.shape[1])
        ]

    @property
    def diagnostics(self) -> dict[str, float]:
        """The numbers, by name."""
        return {"drift": self.drift, "wobble": self.wobble, "updates": float(self.updates)}

    def warnings(self, much: float) -> list[str]:
        """What to say of a value that moved by more than `much`, and by more than its noise."""
        if len(self.values) < FEWEST_LOOKS:
            return [
                f"{len(self.values)} looks in {self.updates} updates do not tell whether the "
                f"value has settled; lower evaluate_every (now {self.every})."
            ]
        if abs(self.drift) <= max(self._noise, much):
            return []
        return [
            f"The value has not settled: it moved by {self.drift:+.3g} over the last quarter "
            f"of {self.updates} updates, beyond its wobble of {self.wobble:.2g}; raise updates."
        ]

    @property
    def _noise(self) -> float:
        """What the wobble alone may move the mean of a quarter against another by."""
        quarter = max(1, len(self.values) // 4)
        return float(3.0 * self.wobble * np.sqrt(2.0 / quarter))

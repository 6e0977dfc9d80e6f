"""Whether training has come to an end: in numbers, and in words."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.fitted_q.config import FQEConfig

FEWEST_LOOKS = 8
MUCH_MOVED = 0.02
MUCH_BOUNDED = 0.1


@dataclass(frozen=True)
class QReport:
    """How the training for one policy went.

    Attributes:
        member_values: `[M]`, each member's value at the logged initial states.
        td_error: root mean squared TD error, in units of value, since the last look.
        bounded_share: of the bootstrapped values since the last look, those that rewards do not
            allow, by far, and that were put on the bounds of what they do.
        drift: how far the value moved from the third quarter of the training to the last.
        wobble: standard deviation of the values in these quarters about their two means.
        updates: how many were run.
        values: `[looks]`, mean over members at some initial states.
        scale: of values: the larger of this value and of the logged returns' standard deviation.
        seconds: of the training, which policies share.
    """

    member_values: tuple[float, ...]
    td_error: float
    bounded_share: float
    drift: float
    wobble: float
    updates: int
    values: NDArray[np.float64]
    scale: float
    seconds: float

    @property
    def member_spread(self) -> float:
        """Standard deviation over members; 0 of a single one, which does not know it."""
        values = self.member_values
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    @property
    def diagnostics(self) -> dict[str, float]:
        """The numbers, by name."""
        return {
            "member_spread": self.member_spread,
            "td_error": self.td_error,
            "bounded_share": self.bounded_share,
            "drift": self.drift,
            "wobble": self.wobble,
            "updates": float(self.updates),
        }

    def warnings(self, config: FQEConfig) -> tuple[str, ...]:
        """What is wrong, and what to do."""
        said = []
        if len(self.values) < FEWEST_LOOKS:
            said.append(
                f"{len(self.values)} looks in {self.updates} updates do not tell whether the "
                f"value has settled; lower evaluate_every (now {config.fit.evaluate_every})."
            )
        elif abs(self.drift) > max(self._noise, MUCH_MOVED * self.scale):
            said.append(
                f"The value has not settled: it moved by {self.drift:+.3g} over the last quarter "
                f"of {self.updates} updates, beyond its wobble of {self.wobble:.2g}; raise updates."
            )
        if self.bounded_share > MUCH_BOUNDED:
            said.append(
                f"{self.bounded_share:.0%} of the bootstrapped values lay far beyond what the "
                "logged rewards allow and were put on the bound: the training diverges, and its "
                "value means nothing. Use a log that covers the policy better, or an estimator "
                "that does not bootstrap (IS, LFIW, ModelBased)."
            )
        return tuple(said)

    @property
    def _noise(self) -> float:
        """What the wobble alone may move the mean of a quarter against another by."""
        quarter = max(1, len(self.values) // 4)
        return float(3.0 * self.wobble * np.sqrt(2.0 / quarter))


def reports(
    record: Tensor, values: Tensor, *, spread: float, updates: int, seconds: float
) -> list[QReport]:
    """Of P policies.

    Args:
        record: `[looks, 3, P, M]`, see `lfiw_ope.fitted_q.objective.Course`.
        values: `[M, P]` at the end, over all initial states.
        spread: standard deviation of the logged returns.
        updates: how many were run.
        seconds: they took.
    """
    looks = record[:, 0].mean(-1).numpy()
    quarter = max(1, len(looks) // 4)
    last, before = looks[-quarter:], looks[-2 * quarter : -quarter]
    before = before if len(before) else last
    drift = last.mean(0) - before.mean(0)
    about = np.concatenate((last - last.mean(0), before - before.mean(0)))
    wobble = np.sqrt((about**2).sum(0) / max(1, len(about) - 2))
    error, beyond = record[-1, 1].mean(-1).sqrt(), record[-1, 2].mean(-1)
    return [
        QReport(
            member_values=tuple(values[:, place].tolist()),
            td_error=float(error[place]),
            bounded_share=float(beyond[place]),
            drift=float(drift[place]),
            wobble=float(wobble[place]),
            updates=updates,
            values=looks[:, place],
            scale=max(spread, abs(float(values[:, place].mean()))),
            seconds=seconds,
        )
        for place in range(values.shape[1])
    ]

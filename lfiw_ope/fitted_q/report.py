"""How the training of a fitted Q went: in numbers, and in words."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lfiw_ope.nn.settling import Settling

MUCH_MOVED = 0.02
MUCH_BOUNDED = 0.1


@dataclass(frozen=True)
class QReport:
    """How the training for one policy went.

    Attributes:
        member_values: `[M]`, each member's value at the logged initial states.
        bootstrap_values: `[M]`, each at those of the episodes that it drew.
        td_error: root mean squared TD error, in units of value, since the last look.
        bounded_share: of the bootstrapped values since the last look, those that rewards do not
            allow, by far, and that were put on the bounds of what they do.
        settling: of the mean over members at some initial states.
        scale: of values: the larger of this value and of the logged returns' standard deviation.
        seconds: of the training, which policies share.
    """

    member_values: tuple[float, ...]
    bootstrap_values: tuple[float, ...]
    td_error: float
    bounded_share: float
    settling: Settling
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
            **self.settling.diagnostics,
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, and what to do."""
        said = self.settling.warnings(MUCH_MOVED * self.scale)
        if self.bounded_share > MUCH_BOUNDED:
            said.append(
                f"{self.bounded_share:.0%} of the bootstrapped values lay far beyond what the "
                "logged rewards allow and were put on the bound: the training diverges, and its "
                "value means nothing. Use a log that covers the policy better, or an estimator "
                "that does not bootstrap (IS, LFIW, ModelBased)."
            )
        return tuple(said)


def reports(
    record: Tensor,
    values: Tensor,
    drawn_values: Tensor,
    *,
    spread: float,
    updates: int,
    every: int,
    seconds: float,
) -> list[QReport]:
    """Of P policies.

    Args:
        record: `[looks, 3, P, M]`, see `lfiw_ope.fitted_q.objective.Course`.
        values: `[M, P]` at the end, over all initial states.
        drawn_values: `[M, P]`, over those of the episodes that the member drew.
        spread: standard deviation of the logged returns.
        updates: how many were run.
        every: updates between two looks.
        seconds: they took.
    """
    settled = Settling.of(record[:, 0].mean(-1), updates=updates, every=every)
    error, beyond = record[-1, 1].mean(-1).sqrt(), record[-1, 2].mean(-1)
    return [
        QReport(
            member_values=tuple(values[:, place].tolist()),
            bootstrap_values=tuple(drawn_values[:, place].tolist()),
            td_error=float(error[place]),
            bounded_share=float(beyond[place]),
            settling=settled[place],
            scale=max(spread, abs(float(values[:, place].mean()))),
            seconds=seconds,
        )
        for place in range(values.shape[1])
    ]

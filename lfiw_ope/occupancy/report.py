"""Whether the ratio solves its equation, and has settled: in numbers, and in words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RatioReport:
    """How the training for one policy went.

    Attributes:
        ess: effective sample size of ω over the logged transitions.
        updates: how many were run.
        seconds: of the training, which policies share.
    """

    ess: float
    updates: int
    seconds: float

    @property
    def diagnostics(self) -> dict[str, float]:
        """The numbers, by name."""
        return {"ess": self.ess, "updates": float(self.updates)}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, and what to do."""
        return ()

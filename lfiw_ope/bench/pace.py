"""How long a benchmark still takes, by what its cells took so far."""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field


@dataclass
class Pace:
    """Seconds of finished cells, by estimator and by kind of trial."""

    _known: dict[Hashable, tuple[float, int]] = field(default_factory=dict)

    def add(self, estimator: str, kind: Hashable, seconds: float) -> None:
        """A cell that is finished."""
        for among in ((estimator, kind), estimator, None):
            total, count = self._known.get(among, (0.0, 0))
            self._known[among] = total + seconds, count + 1

    def expected(self, estimator: str, kind: Hashable) -> float | None:
        """Of a cell: the mean of its like; else of its estimator's, else of all; None of none."""
        for among in ((estimator, kind), estimator, None):
            if among in self._known:
                total, count = self._known[among]
                return total / count
        return None

    def left(self, waiting: Iterable[tuple[str, Hashable]], jobs: int) -> str:
        """Time that cells which are waiting take side by side, in words; empty where none waits."""
        seconds, unseen = 0.0, False
        for (estimator, kind), count in Counter(waiting).items():
            expected = self.expected(estimator, kind)
            if expected is None:
                return ""
            seconds += count * expected
            unseen = unseen or estimator not in self._known
        minutes = round(seconds / jobs / 60)
        if not seconds:
            return ""
        time = f"about {minutes // 60}:{minutes % 60:02d} h" if minutes else "less than a minute"
        return f"{time} left" + ", if others take as long" * unseen

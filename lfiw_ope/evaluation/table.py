"""The table of a comparison, and the same as plain text."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from lfiw_ope.core.errors import DataError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.runtime import needed
from lfiw_ope.core.serialization import Stored, counted, provenance
from lfiw_ope.estimators.behaviour import BehaviourReturn
from lfiw_ope.evaluation.plots import plot_against_truth, plot_values
from lfiw_ope.evaluation.summary import Row, Score, Table, agreement, summarise

TRUE = ("absolute error", "RMSE", "Spearman", "regret@k", "coverage")
UNTRUE = ("mean value", "seed spread", "interval width")


def as_text(rows: Sequence[Row], scores: Sequence[Score]) -> str:
    """A line an estimator, then each reason for which there was no value, with its count."""
    found = {(score.estimator, score.metric): score.value for score in scores}
    told = {metric for _, metric in found}
    shown = [metric for metric in (TRUE if "Spearman" in told else UNTRUE) if metric in told]
    table = [["", "answered", *(name.replace("@k", "@1") for name in shown), "seconds"]]
    for name in dict.fromkeys(row.estimator for row in rows):
        mine = [row for row in rows if row.estimator == name]
        answered = sum(row.status == "ok" for row in mine)
        values = [_number(found[name, metric]) for metric in shown]
        seconds = f"{sum(row.seconds for row in mine):.1f}"
        table.append([name, f"{answered}/{len(mine)}", *values, seconds])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in table
    ]
    without = Counter((row.estimator, row.status, row.reason) for row in rows if row.status != "ok")
    lines += [
        f"{name}, {status} {counted(count, 'time')}: {reason}"
        for (name, status, reason), count in without.items()
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


@dataclass(frozen=True)
class Comparison(Stored):
    """Estimates of many estimators, policies and seeds, with what is known of the truth.

    Attributes:
        rows: by estimator, then seed, then policy, each in the order that it was given in.
        estimand: what all of them estimate.
        truth: true values by policy; None where none is known.
        behaviour: the log's own mean return.
    """

    rows: tuple[Row, ...]
    estimand: Estimand
    truth: Mapping[str, float] | None
    behaviour: BehaviourReturn

    @property
    def estimators(self) -> tuple[str, ...]:
        """Names, in their order."""
        return tuple(dict.fromkeys(row.estimator for row in self.rows))

    @property
    def policies(self) -> tuple[str, ...]:
        """Names, in their order."""
        return tuple(dict.fromkeys(row.policy for row in self.rows))

    @property
    def seeds(self) -> tuple[int, ...]:
        """In their order."""
        return tuple(dict.fromkeys(row.seed for row in self.rows))

    @property
    def frame(self) -> Any:
        """The rows as a pandas data frame, one a row.

        Raises:
            MissingDependencyError: if pandas is not installed.
        """
        with needed("A frame needs pandas", extra="compare"):
            import pandas
        return pandas.DataFrame([asdict(row) for row in self.rows])

    def with_truth(self, truth: Mapping[str, float] | None) -> "Comparison":
        """The same estimates beside other true values."""
        rows = tuple(
            row.told(None if truth is None else truth.get(row.policy)) for row in self.rows
        )
        return replace(self, rows=rows, truth=None if truth is None else dict(truth))

    def summary(
        self,
        metrics: Sequence[str] | None = None,
        *,
        k: int = 1,
        threshold: float | None = None,
        resamples: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> tuple[Score, ...]:
        """Metrics of each estimator, with intervals bootstrapped over policies and seeds.

        Args:
            metrics: names, of `lfiw_ope.evaluation.METRICS`; all that can be had by
                default: without true values those that need none.
            k: how many of the best policies regret, precision and Sharpe ratio look at.
            threshold: the value that a policy has to reach, for type I and II errors; the
                behaviour's mean return by default.
            resamples: of the bootstrap.
            level: of the intervals.
            seed: of the bootstrap. Every estimator is resampled alike.

        Raises:
            ConfigError: if a metric is not known, or needs a truth that was not given.
        """
        table = Table(
            rows=self.rows,
            behaviour=self.behaviour.mean,
            k=k,
            threshold=self.behaviour.mean if threshold is None else threshold,
        )
        return summarise(table, metrics, resamples=resamples, level=level, seed=seed)

    def rank_correlation(self, **settings: Any) -> dict[str, Score]:
        """Spearman's ρ of estimates and true values, by estimator; settings are `summary`'s."""
        return self._one("Spearman", **settings)

    def regret(self, k: int = 1, **settings: Any) -> dict[str, Score]:
        """The best true value less the best of the k that look best; settings are `summary`'s."""
        return self._one("regret@k", k=k, **settings)

    def precision(self, k: int = 1, **settings: Any) -> dict[str, Score]:
        """Of the k truly best, the share that is among the k that look best; see `summary`."""
        return self._one("precision@k", k=k, **settings)

    def agreement(self) -> dict[str, dict[str, float | None]]:
        """Spearman's ρ of each two estimators' values: what can be said without a truth.

        Of means over seeds, over the policies that both answered. None where it is not defined.
        """
        return agreement(self.rows)

    def _one(self, metric: str, **settings: Any) -> dict[str, Score]:
        return {score.estimator: score for score in self.summary([metric], **settings)}

    def plot(self, ax: Any) -> Any:
        """Estimates against true values; without those, estimates by policy."""
        return (
            plot_values(ax, self.rows) if self.truth is None else plot_against_truth(ax, self.rows)
        )

    def text(self) -> str:
        """A table that a terminal shows: a line an estimator, and what failed."""
        return as_text(self.rows, self.summary(resamples=0))

    def __str__(self) -> str:
        return self.text()

    def to_dict(self) -> dict[str, Any]:
        """As plain Python numbers, lists and strings."""
        return {
            "estimand": asdict(self.estimand),
            "behaviour": asdict(self.behaviour),
            "truth": None if self.truth is None else dict(self.truth),
            "rows": [row.to_dict() for row in self.rows],
            **provenance(),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            DataError: if it is no stored comparison.
        """
        try:
            rows: Iterable[Any] = plain["rows"]
            return cls(
                tuple(Row.from_dict(row) for row in rows),
                Estimand(**plain["estimand"]),
                plain["truth"],
                BehaviourReturn(**plain["behaviour"]),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"This is no stored comparison ({error}).") from error

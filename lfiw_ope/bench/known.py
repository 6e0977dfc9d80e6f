"""What is known of a trial's policies before any estimator runs: true values and support."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lfiw_envs.ladder import LadderValue

from lfiw_ope.bench.measured import require_measured_of
from lfiw_ope.bench.rows import BenchRow
from lfiw_ope.bench.support import SUPPORTED
from lfiw_ope.bench.trials import Trial
from lfiw_ope.comparison.tasks import Cell
from lfiw_ope.errors import ConfigError


@dataclass(frozen=True)
class Known:
    """Of one data set and one question.

    Attributes:
        values: of the policies that are evaluated.
        scale: range of the true values of all the ladder's targets, the unit of errors.
        support: share of what each policy does that the data set supports.
    """

    values: Mapping[str, LadderValue]
    scale: float
    support: Mapping[str, float]

    @classmethod
    def of(cls, trial: Trial) -> "Known":
        """As it was measured in the real environment.

        Raises:
            ConfigError: if something was not measured, or of other policies or otherwise than the
                ladder has them now, or all targets are worth the same.
            DataError: if the file of a policy is missing.
        """
        ladder = trial.ladder
        try:
            values = {name: ladder.value(name, trial.question) for name in ladder.targets}
            support = {name: ladder.support(name, trial.data) for name in trial.names}
        except ValueError as error:
            raise ConfigError(str(error)) from error
        makers = ladder.recipe(trial.data)
        require_measured_of(ladder, ladder.values_path, ladder.targets)
        require_measured_of(ladder, ladder.support_path, (*trial.names, *makers), data=trial.data)
        means = [value.mean for value in values.values()]
        scale = max(means) - min(means)
        if not scale > 0:
            raise ConfigError(
                f"The targets of {ladder.name} are all worth {means[0]:g} for {trial.question!r}, "
                "and errors are told in the range of their values; give it others."
            )
        return cls({name: values[name] for name in trial.names}, scale, support)

    def rows(self, trial: Trial, cells: Sequence[Cell], behaviour: float) -> list[BenchRow]:
        """Cells of a trial beside what is known.

        Args:
            trial: that the cells are of.
            cells: finished ones.
            behaviour: mean return of the log.
        """
        return [
            BenchRow(
                task=trial.ladder.name,
                purpose=trial.ladder.purpose,
                data=trial.data,
                transitions=trial.transitions,
                question=trial.question,
                row=row.told(self.values[row.policy].mean),
                truth_error=self.values[row.policy].standard_error,
                scale=self.scale,
                support=self.support[row.policy],
                supported=self.support[row.policy] >= SUPPORTED,
                behaviour=behaviour,
            )
            for cell in cells
            for row in cell.rows
        ]

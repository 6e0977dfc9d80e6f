"""Trials of a suite, their rows, and what is known of their policies."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from typing import Any, get_args

from lfiw_envs.ladder import Ladder, LadderValue, Purpose

from lfiw_ope.benchmark.datasets import dataset, identity_of
from lfiw_ope.benchmark.provenance import digest as digest_of
from lfiw_ope.benchmark.provenance import require_measured_of
from lfiw_ope.benchmark.suites import Entry, Suite
from lfiw_ope.benchmark.support import SUPPORTED
from lfiw_ope.core.errors import ConfigError, DataError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.protocols import Reward, Termination
from lfiw_ope.core.serialization import __version__
from lfiw_ope.diagnostics.thresholds import Thresholds
from lfiw_ope.estimators.base import Estimator
from lfiw_ope.estimators.registry import Options
from lfiw_ope.evaluation.runner import Cell, Inputs
from lfiw_ope.evaluation.store import describe, digest
from lfiw_ope.evaluation.summary import Kinds, Row, require_kinds, require_one_of
from lfiw_ope.policies.files import load_actor


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One log and one question; a source of inputs that makes its log in its turn.

    Attributes:
        ladder: the task.
        data: the data set's name.
        transitions: in it.
        question: the estimand's name.
        seed: of the log, and of everything that is fitted to it.
        names: of the policies that are evaluated.
        refuse: beyond which an answer is refused; its numbers are kept, for errors of all answers.
    """

    ladder: Ladder
    data: str
    transitions: int
    question: str
    seed: int
    names: tuple[str, ...]
    refuse: Thresholds | None

    @property
    def kind(self) -> tuple[str, str, int]:
        """What trials have in common that take about as long."""
        return self.ladder.name, self.question, self.transitions

    @property
    def estimand(self) -> Estimand:
        """What is asked."""
        return Estimand(*self.ladder.question(self.question))

    def __str__(self) -> str:
        parts = (self.ladder.name, self.data, self.transitions, self.question, self.seed)
        return "-".join(map(str, parts))

    def load(self) -> Inputs:
        """The log, made or found in the cache, and the policies."""
        data = dataset(self.ladder, self.data, self.transitions, self.seed)
        policies = {name: load_actor(self.ladder.policy_path(name)) for name in self.names}
        return Inputs(data, policies, self.refuse, keep_refused=True)

    def run(self) -> dict[str, Any]:
        """What tells its cells from those of another log or of other policies.

        Raises:
            DataError: if the file of a policy is missing.
            ConfigError: if the environment cannot be made.
        """
        log = identity_of(self.ladder, self.data, self.transitions, self.seed)
        asked = [self.estimand.horizon, self.estimand.discount]
        return {
            "version": __version__,
            "made_with": log["versions"],
            "data": digest([log, asked]),
            "log": str(self),
            "policies": {name: digest_of(self.ladder.policy_path(name)) for name in self.names},
            "thresholds": describe(self.refuse),
            "keep_refused": True,
        }


def trials_of(suite: Suite) -> list[Trial]:
    """Of a suite, seed by seed and small logs first: stopped early, it has all tasks.

    Raises:
        ConfigError: if two of them would have one folder, their names being made of others'.
    """
    found = [
        Trial(
            ladder=ladder,
            data=data,
            transitions=transitions,
            question=question,
            seed=seed,
            names=suite.targets(ladder),
            refuse=suite.refuse,
        )
        for seed in suite.seeds
        for transitions in suite.transitions
        for ladder in suite.ladders
        for data in suite.data
        for question in suite.asked(ladder)
    ]
    named: dict[str, Trial] = {}
    for trial in found:
        other = named.setdefault(str(trial), trial)
        if other is not trial:
            raise ConfigError(
                f"The data set {trial.data!r} of the ladder {trial.ladder.name!r} and "
                f"{other.data!r} of {other.ladder.name!r} make trials of one name, {trial}; call "
                "one of them otherwise."
            )
    return found


def estimators_of(
    trial: Trial, entries: Sequence[Entry], options: Mapping[str, Options]
) -> dict[str, Estimator]:
    """Estimators by name, told what is known of the environment.

    A ladder's environment is the bare one, so that its rules are those of its logs.
    """
    reward: Reward | None = None
    termination: Termination | None = None
    try:
        rules = trial.ladder.rules()
        reward, termination = rules.reward, rules.termination
    except ValueError:
        pass  # one's own, or made otherwise than its rules know: what is not known is learned
    found = {}
    for entry in entries:
        of = options.get(entry.name, Options())
        # Pinned: "auto" would let a result depend on the processor.
        pinned = of.precision or "float32"
        told = replace(of, reward=reward, termination=termination, precision=pinned)
        found[entry.name] = entry.build(trial.estimand, told)
    return found


Key = tuple[str, str, int, str, int]
"""Of a unit: task, data, transitions, question and seed."""


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """What one estimator said of one policy in one cell of a suite.

    Attributes:
        task: the ladder.
        purpose: of the ladder, "development" or "report".
        data: the data set's name.
        transitions: in it.
        question: the estimand's name.
        row: the answer, with its seed, its truth and its seconds.
        truth_error: standard error of the truth.
        scale: range of the true values of all targets of the ladder, the unit of errors.
        support: share of what the policy does that the data set supports, 0 to 1.
        supported: whether that is enough, by the rule fixed before any estimator ran.
        behaviour: mean return of the data set.
    """

    task: str
    purpose: Purpose
    data: str
    transitions: int
    question: str
    row: Row
    truth_error: float
    scale: float
    support: float
    supported: bool
    behaviour: float

    @property
    def unit(self) -> Key:
        """The log and the seed that it is of."""
        return (self.task, self.data, self.transitions, self.question, self.row.seed)

    @classmethod
    def columns(cls) -> list[str]:
        """Of a table with a line a row, in the order of `to_dict`."""
        own = [one.name for one in fields(cls) if one.name != "row"]
        return [*own, *(one.name for one in fields(Row))]

    def to_dict(self) -> dict[str, Any]:
        """As plain Python numbers, lists and strings, without nesting."""
        plain = asdict(self)
        del plain["row"]
        return {**plain, **self.row.to_dict()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "BenchRow":
        """The inverse of `to_dict`.

        Raises:
            DataError: if fields are missing or unknown, or hold what no row holds.
        """
        if not isinstance(plain, dict):
            raise DataError(f"This is no stored row of a benchmark ({plain!r:.40}).")
        own = {name: of for name, of in plain.items() if name in cls.__dataclass_fields__}
        rest = {name: of for name, of in plain.items() if name not in own}
        try:
            found = cls(row=Row.from_dict(rest), **own)
            require_kinds(found, _KINDS)
            require_one_of("purpose", found.purpose, get_args(Purpose))
        except TypeError as error:
            raise DataError(f"This is no stored row of a benchmark ({error}).") from error
        return found


_KINDS: Kinds = {
    ("task", "purpose", "data", "question"): str,
    ("transitions",): int,
    ("truth_error", "scale", "support", "behaviour"): Real,
    ("supported",): bool,
}


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

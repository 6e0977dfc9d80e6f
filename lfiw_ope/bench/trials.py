"""Trials of a suite: one log of a ladder each, and what is asked of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lfiw_envs.ladder import Ladder

from lfiw_ope.answering import Estimator
from lfiw_ope.bench.datasets import dataset, identity_of
from lfiw_ope.bench.entries import Entry
from lfiw_ope.bench.measured import digest as digest_of
from lfiw_ope.bench.suites import Suite
from lfiw_ope.catalogue import Options
from lfiw_ope.comparison.identity import describe, digest
from lfiw_ope.comparison.tasks import Inputs
from lfiw_ope.errors import ConfigError
from lfiw_ope.estimand import Estimand
from lfiw_ope.policies.actor_file import load_actor
from lfiw_ope.refusal import Thresholds
from lfiw_ope.types import Reward, Termination
from lfiw_ope.version import __version__


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

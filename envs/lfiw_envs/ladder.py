"""Policy ladders: environments with policies from untrained to trained, and what is known of them.

A ladder is the record of a benchmark task: which policies are evaluated, which make the data, what
they are truly worth and how far each data set supports each of them. All of it is files in one
folder, so that a ladder of one's own is a record and a folder.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lfiw_envs import making
from lfiw_envs.ladder_checks import (
    is_number,
    is_value,
    require_episode,
    require_names,
    require_question,
)
from lfiw_envs.rules.lookup import rules_for
from lfiw_envs.rules.record import EnvironmentRules

Play = Literal["stochastic", "deterministic"]
Purpose = Literal["development", "report"]

EPISODE = 1000
"""Steps after which an episode of a ladder is truncated."""


class Question(NamedTuple):
    """What is asked of a policy: the expected discounted return of `horizon` steps."""

    horizon: int
    discount: float


QUESTIONS = {
    "T100": Question(100, 1.0),
    "g0.99": Question(EPISODE, 0.99),
    "g0.995": Question(EPISODE, 0.995),
}
"""Estimands of every ladder, by name."""


@dataclass(frozen=True)
class LadderValue:
    """What a policy is worth, measured by playing it in the real environment.

    Attributes:
        mean: of the returns.
        standard_error: of the mean.
        spread: standard deviation of one episode's return.
        quantiles: of the returns, by "0.05", "0.25", "0.5", "0.75" and "0.95".
        episodes: played.
    """

    mean: float
    standard_error: float
    spread: float
    quantiles: Mapping[str, float]
    episodes: int


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """A benchmark task.

    Attributes:
        name: short, as suites and results call it.
        env_id: the Gymnasium id.
        targets: policies that are evaluated, from untrained to trained, run by run.
        recipes: by data set, the policies that make it, in equal shares of its transitions.
        folder: of the policies' safetensors, and of the files of values and of support.
        purpose: "development" where settings may be chosen by what comes out; "report" where
            nothing may.
        episode: steps after which an episode is truncated.
        questions: what is asked of the policies, by name; none of more steps than an episode has,
            for the true value would be that of an episode, and estimators take a truncated one
            for one that goes on.
        env_kwargs: passed on to the environment; plain, where files of what was measured or
            played are to say by which.

    Raises:
        ValueError: if an entry is not of its kind, a question is of more steps than an episode,
            the purpose is neither, a data set has no policies, a target stands there twice, or a
            name cannot name files.
    """

    name: str
    env_id: str
    targets: tuple[str, ...]
    recipes: Mapping[str, tuple[str, ...]]
    folder: Path
    purpose: Purpose = "report"
    episode: int = EPISODE
    questions: Mapping[str, Question] = field(default_factory=lambda: dict(QUESTIONS))
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        require_names(self.name, self.targets, self.recipes, self.questions)
        require_episode(self.name, self.episode)
        for name, of in self.questions.items():
            require_question(self.name, name, of)
        questions = {name: Question(*of) for name, of in self.questions.items()}
        object.__setattr__(self, "questions", questions)
        if self.purpose not in get_args(Purpose):
            raise ValueError(
                f"The purpose of {self.name} is {self.purpose!r}; it must be one of "
                f"{', '.join(get_args(Purpose))}."
            )
        longer = [name for name, of in self.questions.items() if of.horizon > self.episode]
        if longer:
            raise ValueError(
                f"{self.name} has episodes of {self.episode} steps, and its questions "
                f"{', '.join(longer)} are of more; give it longer episodes, or questions of its "
                "own."
            )

    @property
    def values_path(self) -> Path:
        """The file of the targets' true values."""
        return self.folder / f"{self.name}_values.json"

    @property
    def support_path(self) -> Path:
        """The file that says how data sets support the targets."""
        return self.folder / f"{self.name}_support.json"

    @property
    def behaviours(self) -> tuple[str, ...]:
        """Policies that make data, each once."""
        return tuple(dict.fromkeys(name for names in self.recipes.values() for name in names))

    @property
    def policies(self) -> tuple[str, ...]:
        """Targets and behaviours, each once."""
        return tuple(dict.fromkeys((*self.targets, *self.behaviours)))

    def policy_path(self, policy: str) -> Path:
        """A policy's safetensors file.

        Raises:
            ValueError: if the ladder has no such policy.
        """
        if policy not in self.policies:
            raise ValueError(
                f"{self.name} has no policy {policy!r}; its targets are {', '.join(self.targets)} "
                f"and its data are made by {', '.join(self.behaviours)}."
            )
        return self.folder / f"{policy}.safetensors"

    def recipe(self, data: str) -> tuple[str, ...]:
        """The policies that make a data set.

        Raises:
            ValueError: if the ladder has no such data set.
        """
        if data not in self.recipes:
            raise ValueError(
                f"{self.name} has no data set {data!r}; choose one of {', '.join(self.recipes)}."
            )
        return self.recipes[data]

    def question(self, name: str) -> Question:
        """An estimand by its name.

        Raises:
            ValueError: if the ladder does not ask it.
        """
        if name not in self.questions:
            raise ValueError(
                f"{self.name} does not ask {name!r}; choose one of {', '.join(self.questions)}."
            )
        return self.questions[name]

    def value(self, policy: str, question: str, play: Play = "stochastic") -> LadderValue:
        """A target's measured value.

        Raises:
            ValueError: if it was not measured.
        """
        found = _entry(self.values_path, "values", policy, play, question)
        if found is None:
            raise ValueError(
                f"{self.values_path} has no value of {policy!r} for {question!r} in {play} "
                "play; measure it first."
            )
        if not is_value(found):
            raise ValueError(
                f"{self.values_path} says of {policy!r} for {question!r} what is no value "
                f"({found!r:.60}); remove it and measure it anew."
            )
        return LadderValue(**found)

    def support(self, policy: str, data: str) -> float:
        """Share of what a target does that a data set supports, 0 to 1.

        Raises:
            ValueError: if it was not measured.
        """
        share = _entry(self.support_path, "support", data, policy)
        if share is None:
            raise ValueError(
                f"{self.support_path} does not say how {data!r} supports {policy!r}; measure "
                "it first."
            )
        if not is_number(share) or not 0.0 <= share <= 1.0:
            raise ValueError(
                f"{self.support_path} says that {data!r} supports {policy!r} by {share!r}, which "
                "is no share; remove it and measure it anew."
            )
        return float(share)

    def make(self) -> Any:
        """One environment, truncated at the ladder's episode."""
        return making.make(self.env_id, self.episode, self.env_kwargs)

    def make_vector(self, num_envs: int) -> Any:
        """A synchronous vector environment of `num_envs` copies."""
        return making.make_vector(self.env_id, self.episode, self.env_kwargs, num_envs)

    def rules(self) -> EnvironmentRules:
        """Termination and reward as functions, where they are known."""
        return rules_for(self.env_id, dict(self.env_kwargs))


def _entry(path: Path, *names: str) -> Any:
    """What a file holds under these names, one within the other; None where it has not all."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"There is no {path}; measure it first.") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); remove it and measure it anew.") from error
    for name in names:
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def _no_number(said: str) -> None:
    raise ValueError(f"it holds {said}")

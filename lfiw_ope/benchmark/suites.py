"""Suites: data sets of ladders, estimators and their settings; entries by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lfiw_envs.ladder import Ladder
from lfiw_envs.ladders import LADDERS, PAPER, get_ladder

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.runtime import import_object
from lfiw_ope.core.validation import choice, whole
from lfiw_ope.diagnostics.thresholds import Thresholds
from lfiw_ope.estimators.base import Estimator
from lfiw_ope.estimators.registry import CATALOGUE, Options


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A benchmark: every estimator on every policy, in every log that these entries make.

    Attributes:
        name: short, as the command line calls it.
        about: what it is for.
        about_options: what its settings are, in words, where they are not the defaults.
        ladders: whose policies are evaluated.
        data: data sets of each ladder.
        transitions: in each data set.
        questions: asked of each ladder, by its name; all that it has where it is not named. Of
            ladders that the suite has not, as after `replace(suite, ladders=…)`, of no account.
        policies: targets of each ladder, evenly along it, its first and its last among them; None
            takes all.
        seeds: of the log, and of everything that is fitted to it.
        estimators: names of the catalogue, or import paths.
        options: settings of estimators, by name; the defaults for those that are not named.
        refuse: beyond which an answer is refused, its numbers being kept; None refuses none, and
            saves the look at log and policies.

    Raises:
        ConfigError: if an entry is empty or there twice, or a ladder does not have it.
    """

    name: str
    about: str
    ladders: tuple[Ladder, ...]
    data: tuple[str, ...]
    transitions: tuple[int, ...]
    questions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    policies: int | None = None
    seeds: tuple[int, ...] = (0,)
    estimators: tuple[str, ...] = tuple(CATALOGUE)
    options: Mapping[str, Options] = field(default_factory=dict)
    about_options: str = ""
    refuse: Thresholds | None = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        for what in ("ladders", "data", "transitions", "seeds", "estimators"):
            _require_list(f"The suite's {what}", getattr(self, what))
        self._require_kinds()
        for ladder in self.ladders:
            if not isinstance(ladder, Ladder):
                raise ConfigError(
                    f"The suite's ladders hold {ladder!r}; expected lfiw_envs.Ladder, such as "
                    "get_ladder gives."
                )
            for what, of in (("targets", ladder.targets), ("data sets", tuple(ladder.recipes))):
                _require_list(f"The {what} of {ladder.name}", of)
            _require_list(f"The suite's questions of {ladder.name}", self.asked(ladder))
        counts = tuple(whole("transitions", count, least=1) for count in self.transitions)
        object.__setattr__(self, "transitions", counts)
        seeds = tuple(whole("a seed", seed, least=0) for seed in self.seeds)
        object.__setattr__(self, "seeds", seeds)
        if self.policies is not None:
            whole("policies", self.policies, least=2)
        for ladder in self.ladders:
            for data in self.data:
                choice(f"A data set of {ladder.name}", data, tuple(ladder.recipes))
            for question in self.asked(ladder):
                choice(f"A question of {ladder.name}", question, tuple(ladder.questions))

    def _require_kinds(self) -> None:
        for what, kind in (("questions", tuple | list), ("options", Options)):
            of = getattr(self, what)
            if not isinstance(of, Mapping) or not all(isinstance(v, kind) for v in of.values()):
                expected = "Options" if what == "options" else "a tuple of names"
                raise ConfigError(
                    f"The suite's {what} are {of!r:.60}; expected a dict, by name, of {expected}."
                )
        for what in ("data", "estimators"):
            odd = [one for one in getattr(self, what) if not isinstance(one, str)]
            if odd:
                raise ConfigError(f"The suite's {what} hold {odd[0]!r:.60}; expected names.")
        if not isinstance(self.refuse, Thresholds | None):
            raise ConfigError(
                f"The suite's refuse is {self.refuse!r:.60}; it must be Thresholds, or None."
            )

    @property
    def in_words(self) -> str:
        """What it is for, and its settings where one of its estimators has any."""
        said = self.about_options if set(self.options) & set(self.estimators) else ""
        return f"{self.about} {said}".strip()

    def changed(self, **change: Any) -> "Suite":
        """The same suite with other entries, which its words say.

        Raises:
            ConfigError: as of a suite.
        """
        other = [name for name, of in change.items() if of != getattr(self, name)]
        if not other:
            return self
        return replace(self, about=f"Other {', '.join(other)} than its own.", **change)

    def asked(self, ladder: Ladder) -> tuple[str, ...]:
        """Questions of one ladder."""
        return self.questions.get(ladder.name, tuple(ladder.questions))

    def on(self, device: str) -> "Suite":
        """The same suite, its estimators of the catalogue on a device."""
        known = {name: self.options.get(name, Options()) for name in CATALOGUE}
        options = {name: replace(of, device=device) for name, of in known.items()}
        return replace(self, options=options)

    def targets(self, ladder: Ladder) -> tuple[str, ...]:
        """Policies of one ladder that are evaluated: by their places on it, never by their values.

        Of six of ten: the first, third, fifth, sixth, eighth and last.
        """
        every = ladder.targets
        if self.policies is None or self.policies >= len(every):
            return tuple(every)
        last = self.policies - 1
        places = (round(at * (len(every) - 1) / last) for at in range(self.policies))
        return tuple(every[place] for place in places)


def _require_list(what: str, given: Any) -> None:
    """That it is a tuple or list of one or more, each once."""
    if not isinstance(given, tuple | list):
        raise ConfigError(f"{what} are {given!r:.60}; expected a tuple of one or more.")
    names = [one.name if isinstance(one, Ladder) else one for one in given]
    if not names or any(one in names[:place] for place, one in enumerate(names)):
        raise ConfigError(
            f"{what} are {', '.join(map(str, names)) or 'none'}; name one or more, each once."
        )


def _returns(ladders: tuple[Ladder, ...]) -> dict[str, tuple[str, ...]]:
    """Of T = 100 alone, which simulates ten times fewer steps than the discounted questions."""
    return {of.name: ("T100",) for of in ladders}


def _quick() -> dict[str, Options]:
    """A training of seconds: that everything works, and no more."""
    options = {name: Options(updates=30) for name in CATALOGUE if name != "behaviour"}
    simulating = Options(updates=30, rollouts=100)
    return {**options, "lfiw": simulating, "model": simulating, "corrected-model": simulating}


_SMOKE = (LADDERS["cartpole"], LADDERS["pendulum"])
_SMALL = tuple(LADDERS[name] for name in ("cartpole", "swimmer", "half_cheetah", "walker2d"))

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="smoke",
            about="Whether everything works, in minutes.",
            about_options="Trainings are of 30 updates, and rollouts are 100: too few for any "
            "estimator to be judged by.",
            ladders=_SMOKE,
            data=("medium",),
            transitions=(10_000,),
            questions=_returns(_SMOKE),
            policies=4,
            options=_quick(),
        ),
        Suite(
            name="paper",
            about="The tasks of Grover et al. (2019): T = 100, logs of the behaviour policy. "
            "Errors are in units of the range of two policies' values, which on Swimmer is 1 % of "
            "either: they are large there and decide the mean, so read it by task.",
            ladders=tuple(PAPER.values()),
            data=("behaviour",),
            transitions=(50_000,),
            seeds=tuple(range(5)),
        ),
        Suite(
            name="ladder-small",
            about="Four tasks by every estimator, in hours on two cores.",
            about_options="For time's sake FQE and what corrects it (dr, wdr, magic) train for "
            "5000 updates and not 20,000, their target networks following twice as fast (tau "
            "0.02); all else as by default.",
            ladders=_SMALL,
            data=("medium", "replay"),
            transitions=(100_000,),
            # Most of CartPole's policies last 100 steps, and are worth the same by that.
            questions={**_returns(_SMALL), "cartpole": ("g0.99",)},
            policies=6,
            seeds=(0, 1),
            options=dict.fromkeys(("fqe", "dr", "wdr", "magic"), Options(updates=5000)),
        ),
        Suite(
            name="ladder",
            about="Every ladder, data set, size and question, all with the default settings.",
            ladders=tuple(LADDERS.values()),
            data=("random", "medium", "replay", "mixed", "expert"),
            transitions=(10_000, 100_000, 1_000_000),
            seeds=tuple(range(5)),
        ),
    )
}
"""By name."""


def get_suite(name: str) -> Suite:
    """The suite of this name.

    Raises:
        ConfigError: if there is none; it names those there are.
    """
    choice("The suite", name, tuple(SUITES))
    return SUITES[name]


@dataclass(frozen=True)
class Entry:
    """An estimator that takes part.

    Attributes:
        name: in the results: the catalogue's, or the object's own.
        build: makes it for an estimand; settings are the catalogue's estimators' alone.
    """

    name: str
    build: Callable[[Estimand, Options], Estimator]


def estimator_entries(said: Sequence[str]) -> tuple[Entry, ...]:
    """Estimators by names of the catalogue, or by `package.module:NAME` of a callable.

    The callable makes an estimator of an `Estimand`; a class whose other arguments have defaults is
    one. The user trusts a module by naming it.

    Raises:
        ConfigError: if there is none of a name, an import path holds no such callable, or two have
            the same name.
    """
    entries: dict[str, Entry] = {}
    for one in said:
        entry = _own(one) if ":" in one else _listed(one)
        if entry.name in entries:
            raise ConfigError(f"Two estimators are called {entry.name!r}; name each once.")
        entries[entry.name] = entry
    return tuple(entries.values())


def _listed(name: str) -> Entry:
    if name not in CATALOGUE:
        raise ConfigError(
            f"There is no estimator {name!r}; choose of {', '.join(CATALOGUE)}, or name your own "
            "as package.module:NAME."
        )
    return Entry(name, CATALOGUE[name])


def _own(path: str) -> Entry:
    made = import_object(path)
    if not callable(made):
        raise ConfigError(
            f"{path} is a {type(made).__name__}; expected a class or function that makes an "
            "estimator of an lfiw_ope.Estimand."
        )

    def build(estimand: Estimand, options: Options) -> Estimator:  # noqa: ARG001
        return _checked(path, made, estimand)

    build(Estimand(horizon=2), Options())  # what cannot be is found before any work
    return Entry(path.partition(":")[2], build)


def _checked(path: str, make: Callable[[Estimand], Any], estimand: Estimand) -> Estimator:
    try:
        found = make(estimand)
    except Exception as error:  # the user's code may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{path} makes no estimator of an estimand ({reason}).") from error
    if not isinstance(found, Estimator):
        raise ConfigError(
            f"{path} makes a {type(found).__name__}; expected an estimator, which has an estimand "
            "and fit(data, seed, *, progress)."
        )
    try:
        inspect.signature(found.fit).bind(None, 0, progress=None)
    except TypeError as error:
        raise ConfigError(
            f"The fit of {path} cannot be called ({error}); expected fit(data, seed, *, progress)."
        ) from error
    except ValueError:  # of what is built in, no signature is known
        pass
    if found.estimand != estimand:
        raise ConfigError(
            f"{path} was given {estimand} and estimates {found.estimand}; it must estimate what "
            "it is given."
        )
    return found


def ladders_named(said: Sequence[str]) -> tuple[Ladder, ...]:
    """Ladders by name, or by `package.module:NAME` of an `lfiw_envs.Ladder` of one's own.

    Raises:
        ConfigError: if there is none of a name, or an import path holds something else.
    """
    return tuple(_own_ladder(one) if ":" in one else _shipped(one) for one in said)


def _shipped(name: str) -> Ladder:
    try:
        return get_ladder(name)
    except ValueError as error:
        raise ConfigError(f"{error} Your own is named as package.module:NAME.") from error


def _own_ladder(path: str) -> Ladder:
    found = import_object(path)
    if not isinstance(found, Ladder):
        raise ConfigError(f"{path} is a {type(found).__name__}; expected an lfiw_envs.Ladder.")
    return found

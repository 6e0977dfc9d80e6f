"""Entries of a suite by name: what is shipped, or one's own by its import path."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lfiw_envs.ladder import Ladder
from lfiw_envs.ladders import get_ladder

from lfiw_ope.answering import Estimator
from lfiw_ope.catalogue import CATALOGUE, Options
from lfiw_ope.errors import ConfigError
from lfiw_ope.estimand import Estimand
from lfiw_ope.imported import import_object


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

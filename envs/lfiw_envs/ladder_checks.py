"""What the record of a benchmark task may hold, and the files of what was measured of it."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any


def require_names(
    ladder: str,
    targets: Sequence[str],
    recipes: Mapping[str, Sequence[str]],
    questions: Mapping[str, Any],
) -> None:
    """That a ladder, its data sets and its questions can name files, and its lists are lists.

    Args:
        ladder: its name.
        targets: policies that are evaluated.
        recipes: by data set, the policies that make it.
        questions: by name.

    Raises:
        ValueError: if one cannot, data sets or questions are no mapping, a list of policies is
            none, a target stands there twice, or no policy makes a data set.
    """
    for what, of in (("recipes", recipes), ("questions", questions)):
        if not isinstance(of, Mapping):
            raise ValueError(f"The {what} of {ladder} are {of!r:.60}; expected a dict by name.")
    named = {"ladder": [ladder], "data set": recipes, "question": questions}
    for what, names in named.items():
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"(?!\.)[\w.-]+", name):
                raise ValueError(
                    f"A {what} is called {name!r}; files are named by it, so give it a name of "
                    "letters, digits, '_', '-' and '.'."
                )
    lists = {f"makers of {data!r}": makers for data, makers in recipes.items()}
    for what, policies in {"targets": targets, **lists}.items():
        if not isinstance(policies, tuple | list) or not all(
            isinstance(one, str) for one in policies
        ):
            raise ValueError(
                f"The {what} of {ladder} are {policies!r}; expected a tuple of names of policies."
            )
    if len(set(targets)) < len(targets):
        raise ValueError(f"The targets of {ladder} are {', '.join(targets)}; name each once.")
    empty = [data for data, policies in recipes.items() if not policies]
    if empty:
        raise ValueError(
            f"{ladder} names no policy that makes its data {', '.join(empty)}; name one or more."
        )


def require_episode(ladder: str, steps: Any) -> None:
    """That episodes are of a whole number of steps.

    Raises:
        ValueError: if they are not.
    """
    if not _is_whole(steps) or steps < 1:
        raise ValueError(
            f"The episode of {ladder} is {steps!r}; it must be a whole number of steps, 1 or more."
        )


def require_question(ladder: str, name: str, of: Any) -> None:
    """That a question is a horizon and a discount.

    Raises:
        ValueError: if it is not.
    """
    good = isinstance(of, tuple | list) and len(of) == 2 and _is_whole(of[0]) and is_number(of[1])
    if not good or of[0] < 1 or not 0.0 <= of[1] <= 1.0:
        raise ValueError(
            f"The question {name!r} of {ladder} is {of!r:.60}; expected one such as "
            "Question(horizon=100, discount=1.0), of 1 step or more and a discount from 0 to 1."
        )


def is_value(found: Any) -> bool:
    """Whether an entry of a file of values is one: see `lfiw_envs.LadderValue`."""
    wanted = {"mean", "standard_error", "spread", "quantiles", "episodes"}
    if not isinstance(found, dict) or found.keys() != wanted:
        return False
    quantiles = found["quantiles"]
    return (
        all(is_number(found[name]) for name in ("mean", "standard_error", "spread"))
        and min(found["standard_error"], found["spread"]) >= 0
        and isinstance(quantiles, dict)
        and all(map(is_number, quantiles.values()))
        and _is_whole(found["episodes"])
    )


def is_number(value: Any) -> bool:
    """Whether it is a number that a float holds; JSON can say 1e999."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

"""Names that the record of a benchmark task holds: files and results are named by them."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lfiw_envs.ladder import Ladder


def require_names(ladder: "Ladder") -> None:
    """That a ladder, its data sets and its questions can name files, and its lists are lists.

    Raises:
        ValueError: if one cannot, a list of policies is none, a target stands there twice, or no
            policy makes a data set.
    """
    named = {"ladder": [ladder.name], "data set": ladder.recipes, "question": ladder.questions}
    for what, names in named.items():
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"(?!\.)[\w.-]+", name):
                raise ValueError(
                    f"A {what} is called {name!r}; files are named by it, so give it a name of "
                    "letters, digits, '_', '-' and '.'."
                )
    lists = {f"makers of {data!r}": makers for data, makers in ladder.recipes.items()}
    for what, policies in {"targets": ladder.targets, **lists}.items():
        if not isinstance(policies, tuple | list) or not all(
            isinstance(one, str) for one in policies
        ):
            raise ValueError(
                f"The {what} of {ladder.name} are {policies!r}; expected a tuple of names of "
                "policies."
            )
    if len(set(ladder.targets)) < len(ladder.targets):
        raise ValueError(
            f"The targets of {ladder.name} are {', '.join(ladder.targets)}; name each once."
        )
    empty = [data for data, policies in ladder.recipes.items() if not policies]
    if empty:
        raise ValueError(
            f"{ladder.name} names no policy that makes its data {', '.join(empty)}; name one or "
            "more."
        )

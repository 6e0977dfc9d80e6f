"""Names that the record of a benchmark task holds: files and results are named by them."""

import re
from collections.abc import Iterable, Mapping, Sequence


def require_names(
    ladder: str,
    targets: Sequence[str],
    recipes: Mapping[str, Sequence[str]],
    questions: Iterable[str],
) -> None:
    """That a ladder, its data sets and its questions can name files, and its lists are lists.

    Args:
        ladder: its name.
        targets: policies that are evaluated.
        recipes: by data set, the policies that make it.
        questions: their names.

    Raises:
        ValueError: if one cannot, a list of policies is none, a target stands there twice, or no
            policy makes a data set.
    """
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

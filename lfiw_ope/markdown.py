"""Tables of a Markdown page."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """The first column to the left, as it holds names, and the others, of numbers, to the right."""
    rules = ["---", *["---:"] * (len(head) - 1)]
    return "".join(
        "|" + "".join(f" {cell} |" if cell else " |" for cell in line) + "\n"
        for line in (head, rules, *lines)
    )

"""Numbers in sentences."""


def counted(count: int, what: str) -> str:
    """A number and its noun: 1 seed, 2 seeds."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"

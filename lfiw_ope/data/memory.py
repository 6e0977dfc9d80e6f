"""How much memory is free, and a refusal before an allocation that cannot fit."""

import contextlib
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.errors import InsufficientMemoryError

READING = 2**26
"""Bytes that reading and checking hold beside the kept arrays: a few chunks."""

_CGROUP_FILES = (  # of versions 2 and 1: the limit, what is used, and the cache it may reclaim
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still allocate, or None where the system does not say.

    The least of what the machine has free and what the limits of the control groups that the
    process is in leave: in a container the machine's own figure promises too much.

    Args:
        root: where the file system of Linux begins; another one in tests.
    """
    found = []
    said = re.search(r"MemAvailable:\s*(\d+) kB", _text(root / "proc/meminfo"))
    if said:
        found.append(1024 * int(said[1]))
    else:
        # Windows has no sysconf, macOS not the name.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min([*found, *_left_by_groups(root)], default=None)


def _left_by_groups(root: Path) -> list[int]:
    """What each memory limit leaves, from the process's own control group up to the outermost."""
    left = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        mount, limit_name, usage_name, cache_name = _CGROUP_FILES[controllers == "memory"]
        # A container sees its own group as the mount's root, while the path may be the host's.
        group = root / mount / path.strip("/")
        for folder in (group, *group.parents):
            limit, usage = _text(folder / limit_name), _text(folder / usage_name)
            if limit.strip().isdigit() and usage.strip().isdigit():
                cache = re.search(rf"^{cache_name} (\d+)", _text(folder / "memory.stat"), re.M)
                left.append(int(limit) - int(usage) + (int(cache[1]) if cache else 0))
            if folder == root / mount:
                break
    return [max(0, one) for one in left]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def check_fits(episode_bytes: NDArray[np.int64], source: str, *, beside: int = 0) -> None:
    """Refuse episodes that would not fit, before anything is allocated for them.

    Args:
        episode_bytes: `[N]`, what each episode's arrays take.
        source: what the episodes are read from, for the message.
        beside: bytes that reading holds beside them and a few chunks.

    Raises:
        InsufficientMemoryError: if they need more than is free; it says how many would fit.
    """
    free = available_memory()
    reading = READING + beside
    needed = int(episode_bytes.sum()) + reading
    if free is None or needed <= free:
        return
    fitting = int(np.searchsorted(np.cumsum(episode_bytes), free - reading, side="right"))
    advice = (
        f"the first {fitting} would fit, with episodes={fitting}."
        if fitting
        else "not even the first of them fits."
    )
    raise InsufficientMemoryError(
        f"The {episode_bytes.size} episodes of {source} need {_gib(needed)} of memory and "
        f"{_gib(free)} are free; {advice}"
    )


def check_room(needed: int, what: str) -> None:
    """Refuse what would not fit and whose parts are not told apart, before work on it begins.

    Args:
        needed: bytes.
        what: needs them, for the message: a plural.

    Raises:
        InsufficientMemoryError: if they are more than are free.
    """
    free = available_memory()
    if free is not None and needed + READING > free:
        raise InsufficientMemoryError(
            f"{what} need {_gib(needed + READING)} of memory and {_gib(free)} are free; take fewer."
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"

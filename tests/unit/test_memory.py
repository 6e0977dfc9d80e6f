"""What is free is read from a file tree such as Linux's, here one made up for each case."""

import numpy as np
import pytest

import lfiw_ope as ope
from lfiw_ope.data import READING, available_memory, check_fits, memory

MIB = 2**20


def tree(root, **files):
    for path, text in files.items():
        file = root / path.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


MEMINFO = "MemTotal: 9999 kB\nMemAvailable:   2048 kB\n"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"proc__meminfo": MEMINFO}, 2 * MIB),
        (  # a container of version 2, whose group is its root
            {
                "proc__meminfo": MEMINFO,
                "proc__self__cgroup": "0::/\n",
                "sys__fs__cgroup__memory_dot_max": str(3 * MIB),
                "sys__fs__cgroup__memory_dot_current": str(2 * MIB),
            },
            MIB,
        ),
        (  # the cache counts as used but can be reclaimed
            {
                "proc__meminfo": MEMINFO,
                "proc__self__cgroup": "0::/\n",
                "sys__fs__cgroup__memory_dot_max": str(3 * MIB),
                "sys__fs__cgroup__memory_dot_current": str(2 * MIB),
                "sys__fs__cgroup__memory_dot_stat": f"anon 1\ninactive_file {MIB // 2}\n",
            },
            MIB + MIB // 2,
        ),
        (  # no limit of its own, but its parent has one
            {
                "proc__meminfo": MEMINFO,
                "proc__self__cgroup": "0::/job/step\n",
                "sys__fs__cgroup__job__step__memory_dot_max": "max\n",
                "sys__fs__cgroup__job__step__memory_dot_current": "5\n",
                "sys__fs__cgroup__job__memory_dot_max": f"{MIB}\n",
                "sys__fs__cgroup__job__memory_dot_current": f"{MIB // 4}\n",
            },
            MIB - MIB // 4,
        ),
        (  # version 1, where the path is the host's and the mount the container's own
            {
                "proc__meminfo": MEMINFO,
                "proc__self__cgroup": "5:devices:/x\n4:memory:/docker/abc\n0::/\n",
                "sys__fs__cgroup__memory__memory_dot_limit_in_bytes": str(MIB),
                "sys__fs__cgroup__memory__memory_dot_usage_in_bytes": str(3 * MIB // 4),
            },
            MIB // 4,
        ),
        (  # used beyond its limit: nothing is free, not less than nothing
            {
                "proc__meminfo": MEMINFO,
                "proc__self__cgroup": "0::/\n",
                "sys__fs__cgroup__memory_dot_max": "10",
                "sys__fs__cgroup__memory_dot_current": "20",
            },
            0,
        ),
    ],
)
def test_free_memory_is_the_least_that_anything_leaves(tmp_path, files, free):
    assert available_memory(tree(tmp_path, **files)) == free


def test_a_system_that_says_nothing_refuses_nothing(tmp_path, monkeypatch):
    monkeypatch.delattr("os.sysconf")
    assert available_memory(tmp_path) is None
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    check_fits(np.array([2**60]), "huge")


def test_this_machine_says_what_is_free():
    assert available_memory() > MIB


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: READING + 10 * MIB)
    check_fits(np.full(10, MIB), "log")
    with pytest.raises(MemoryError) as refusal:
        check_fits(np.full(16, MIB), "log.h5")
    assert str(refusal.value) == (
        "The 16 episodes of log.h5 need 0.08 GiB of memory and 0.07 GiB are free; the first 10 "
        "would fit, with episodes=10."
    )
    assert isinstance(refusal.value, ope.OPEError)
    with pytest.raises(ope.InsufficientMemoryError, match="not even the first of them fits"):
        check_fits(np.full(2, 11 * MIB), "log")
    with pytest.raises(ope.InsufficientMemoryError, match="the first 7 would fit"):
        check_fits(np.full(10, MIB), "log", beside=3 * MIB)


def test_arrays_that_do_not_fit_are_refused_before_they_are_allocated(monkeypatch):
    """A terabyte: allocating it would fail or, worse, be promised and fail when it is filled."""
    shape = (10**6, 250_000)
    vast = np.broadcast_to(np.float32(0), shape)
    flags = np.arange(shape[0]) % 1000 == 999
    arrays = {
        "observations": vast, "next_observations": vast, "actions": np.zeros((shape[0], 1)),
        "rewards": np.zeros(shape[0]), "terminated": np.zeros(shape[0]), "truncated": flags,
    }  # fmt: skip
    monkeypatch.setattr("lfiw_ope.data.arrays.find_breaks", lambda *_: np.empty(0))
    with pytest.raises(ope.InsufficientMemoryError, match=r"The 1000 episodes of The log need 93"):
        ope.from_arrays(arrays)

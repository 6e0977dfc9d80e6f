"""How much memory reading takes, for a process that is forked to measure it."""

import re
from pathlib import Path

import gymnasium  # noqa: F401  # what these take is no part of the data
import h5py  # noqa: F401
import minari  # noqa: F401
import pyarrow.dataset  # noqa: F401

import lfiw_ope as ope


def memory(name):
    """Of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{name}:\s*(\d+) kB", status)[1])


def read(path, small, told):
    """Send the bytes that are kept of a log, and the most that there were beside what was before.

    Linux counts the most that a process had from its fork on. It counts pages of libraries, too,
    which a fork maps as it first runs what stands there, 13 MB of them: a small log is read first.
    """
    ope.load_data(small)
    before = memory("VmRSS")
    data = ope.load_data(path)
    kept = sum(getattr(data, name).nbytes for name in ("states", "actions", "rewards"))
    told.send({"kept": kept, "most": memory("VmHWM") - before})

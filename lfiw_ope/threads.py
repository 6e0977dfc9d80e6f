"""How many threads torch computes with, for as long as some work takes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread until the end; then as many as before.

    Small networks are fastest so, and processes side by side do not crowd each other. And how many
    threads share a sum decides its last bits: what has to be the same arrays again runs on one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

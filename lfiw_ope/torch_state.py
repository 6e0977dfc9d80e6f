"""What torch keeps for a whole process, left as it was by code that may change it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_state_kept() -> Iterator[None]:
    """After it torch has the grad mode, default type, determinism and threads that it had before.

    One of the user's estimators may set them for itself, and forget the others.
    """
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

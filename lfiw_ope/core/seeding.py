"""One seed in, independent named streams out. The global generators are never touched."""

import hashlib

import numpy as np
import torch

from lfiw_ope.core.validation import whole


def derive(seed: int, *names: str) -> int:
    """A 63-bit seed for the stream called `names`, independent of every other name's stream.

    Streams are keyed by name and not by order, so adding a stage does not change the numbers of
    the others.

    Raises:
        ConfigError: if the seed is not a whole number, 0 or more.
    """
    seed = whole("The seed", seed, least=0)
    digest = hashlib.sha256("/".join(names).encode()).digest()
    words = np.frombuffer(digest, dtype=np.uint32).tolist()
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def torch_generator(seed: int, *names: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on `device` for the stream called `names`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *names))


def numpy_generator(seed: int, *names: str) -> np.random.Generator:
    """A NumPy generator for the stream called `names`."""
    return np.random.default_rng(derive(seed, *names))

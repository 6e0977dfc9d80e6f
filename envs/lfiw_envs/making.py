"""Environments made from what a record says of them."""

import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LOG = logging.getLogger(__name__)

_HANDLING = threading.RLock()
"""MuJoCo has one handler of warnings a process."""


def make(env_id: str, steps: int, env_kwargs: Mapping[str, Any]) -> Any:
    """One environment, truncated after `steps`.

    What MuJoCo warns of while it is made, which would go to the terminal and to a file in the
    working folder, is logged: as "info" what is deprecated in a model's file, which is for the
    file's author, and as "warning" what else there is.
    """
    import gymnasium

    with _mujoco_logged(env_id):
        return gymnasium.make(env_id, max_episode_steps=steps, **env_kwargs)


def make_vector(env_id: str, steps: int, env_kwargs: Mapping[str, Any], num_envs: int) -> Any:
    """A synchronous vector environment of `num_envs` copies."""
    import gymnasium

    def one() -> Any:
        return make(env_id, steps, env_kwargs)

    makers: list[Callable[[], Any]] = [one] * num_envs
    return gymnasium.vector.SyncVectorEnv(makers)


@contextmanager
def _mujoco_logged(env_id: str) -> Iterator[None]:
    if not _simulated_by_mujoco(env_id):
        yield
        return
    try:
        import mujoco
    except ImportError:
        yield  # Gymnasium says what is missing
        return
    said: list[str] = []
    with _HANDLING:
        before = mujoco.get_mju_user_warning()
        # It is called from C, where an exception would end the process: nothing is done there.
        mujoco.set_mju_user_warning(said.append)
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(before)
            for message in dict.fromkeys(said):
                level = logging.INFO if "deprecated" in message else logging.WARNING
                LOG.log(level, "MuJoCo, of %s: %s", env_id, message)


def _simulated_by_mujoco(env_id: str) -> bool:
    """Told without importing it, which takes a while: it is there already, or the id says so."""
    import gymnasium

    if "mujoco" in sys.modules:
        return True
    module, _, name = env_id.rpartition(":")
    try:
        if module:  # Gymnasium would, too
            importlib.import_module(module)
        return "mujoco" in sys.modules or "mujoco" in str(gymnasium.spec(name).entry_point)
    except (gymnasium.error.Error, ImportError):
        return False  # making it says what is wrong

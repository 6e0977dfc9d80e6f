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
    """A vector environment of `num_envs` copies, which resets each in the step after its end.

    It is the environment's own one if `is_vectorised`, else a `SyncVectorEnv`.
    """
    import gymnasium

    if is_vectorised(env_id):
        return gymnasium.make_vec(
            env_id,
            num_envs,
            vectorization_mode="vector_entry_point",
            max_episode_steps=steps,
            **env_kwargs,
        )

    def one() -> Any:
        return make(env_id, steps, env_kwargs)

    makers: list[Callable[[], Any]] = [one] * num_envs
    return gymnasium.vector.SyncVectorEnv(makers)


def is_vectorised(env_id: str) -> bool:
    """Whether an environment has a vector environment of its own.

    Gymnasium's own ones do not count: shipped logs of CartPole were played in copies that draw from
    a generator each, and must not change.
    """
    import gymnasium

    module, _, name = env_id.rpartition(":")
    try:
        if module:  # registers it
            importlib.import_module(module)
        entry = gymnasium.spec(name).vector_entry_point
    except (gymnasium.error.Error, ImportError):
        return False  # an unknown id; making it raises
    place = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    return entry is not None and place.partition(".")[0] != "gymnasium"


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

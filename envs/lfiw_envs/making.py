"""Environments made from what a record says of them."""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_HANDLING = threading.RLock()
"""MuJoCo has one handler of warnings a process."""


def make(env_id: str, steps: int, env_kwargs: Mapping[str, Any]) -> Any:
    """One environment, truncated after `steps`.

    What MuJoCo warns of, which would go to the terminal and to a file in the working folder, is a
    Python warning: `DeprecationWarning` where it is of something deprecated in a model's file,
    which is for the file's author, and `RuntimeWarning` otherwise.
    """
    import gymnasium

    with _mujoco_warnings(env_id):
        return gymnasium.make(env_id, max_episode_steps=steps, **env_kwargs)


def make_vector(env_id: str, steps: int, env_kwargs: Mapping[str, Any], num_envs: int) -> Any:
    """A synchronous vector environment of `num_envs` copies."""
    import gymnasium

    def one() -> Any:
        return make(env_id, steps, env_kwargs)

    makers: list[Callable[[], Any]] = [one] * num_envs
    return gymnasium.vector.SyncVectorEnv(makers)


@contextmanager
def _mujoco_warnings(env_id: str) -> Iterator[None]:
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
        # It is called from C, where an exception ends the process, as one of `-W error` would.
        mujoco.set_mju_user_warning(said.append)
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(before)
    for message in dict.fromkeys(said):
        kind = DeprecationWarning if "deprecated" in message else RuntimeWarning
        warnings.warn(f"MuJoCo, of {env_id}: {message}", kind, stacklevel=4)


def _simulated_by_mujoco(env_id: str) -> bool:
    """Told without importing it, which takes a while; not of environments that wrap it unsaid."""
    import gymnasium

    try:
        return "mujoco" in str(gymnasium.spec(env_id).entry_point).lower()
    except (gymnasium.error.Error, ModuleNotFoundError):
        return False  # making it says what is wrong

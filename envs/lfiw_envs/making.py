"""Environments made from what a record says of them."""

from collections.abc import Callable, Mapping
from typing import Any


def make(env_id: str, steps: int, env_kwargs: Mapping[str, Any]) -> Any:
    """One environment, truncated after `steps`."""
    import gymnasium

    return gymnasium.make(env_id, max_episode_steps=steps, **env_kwargs)


def make_vector(env_id: str, steps: int, env_kwargs: Mapping[str, Any], num_envs: int) -> Any:
    """A synchronous vector environment of `num_envs` copies."""
    import gymnasium

    def one() -> Any:
        return make(env_id, steps, env_kwargs)

    makers: list[Callable[[], Any]] = [one] * num_envs
    return gymnasium.vector.SyncVectorEnv(makers)

"""Trajectories from the buffers that stable-baselines3 trains from.

What a buffer keeps was read off stable-baselines3 2.9: `common/buffers.py` and the two
`collect_rollouts`, of `off_policy_algorithm.py` and `on_policy_algorithm.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lfiw_ope.checks import whole
from lfiw_ope.data.sb3_replay import replay_log
from lfiw_ope.data.sb3_rollouts import rollout_log
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.data.transitions import read_transitions
from lfiw_ope.errors import DataError, UntrustedFileError
from lfiw_ope.extras import needed


def from_sb3_buffer(
    buffer: Any,
    *,
    scaled_actions: bool = True,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    drop_terminal: bool = False,
    keep_partial: bool = False,
    episodes: int | None = None,
) -> Trajectories:
    """The episodes in a `ReplayBuffer` or `RolloutBuffer` of stable-baselines3.

    Episodes come environment by environment, each in time order. One that the buffer cut off is
    truncated; one whose beginning it overwrote or never saw is left out, because its first state
    is no initial state, and a `DataWarning` counts such.

    A `ReplayBuffer` keeps actions scaled to [-1, 1]; they are given back in the environment's
    units. With `handle_timeout_termination` it tells time limits from terminal states. Without, it
    counts every end as terminal, unless `max_episode_steps` says which are not. With
    `optimize_memory_usage` it loses the state that each episode's last transition led to.

    A `RolloutBuffer` keeps the policy's draws and their log-probabilities; actions are the draws
    clipped to the bounds. It keeps neither the state that the last transition of an episode led to
    nor whether it was terminal, and stable-baselines3 adds its value estimate to the reward of one
    that timed out: these transitions can only be left out, which `drop_terminal` allows.

    Args:
        buffer: the buffer, or better the model that owns it, which knows its environment and
            whether `VecNormalize` changed what a `RolloutBuffer` holds.
        scaled_actions: whether the actions of a `ReplayBuffer` are scaled to [-1, 1], as those
            of every buffer that stable-baselines3 filled itself are.
        env_id: the environment's Gymnasium id, where the buffer's model does not say it.
        env_kwargs: what `gymnasium.make` was given beside the id.
        max_episode_steps: the time limit, for a buffer that does not mark it.
        drop_terminal: leave out terminal transitions whose next state the buffer does not keep.
        keep_partial: keep episodes whose beginning is not in the buffer. Where their lengths would
            have to tell time limits from terminal states, they are refused.
        episodes: how many to keep, the first ones; all where None.

    Raises:
        DataError: if it is no such buffer, is empty, has spaces that are not supported, or
            terminal transitions have no next state.
        InsufficientMemoryError: if the episodes would not fit into memory.
    """
    if episodes is not None:
        whole("episodes", episodes, least=1)
    if max_episode_steps is not None:
        whole("max_episode_steps", max_episode_steps, least=1)
    model = buffer if hasattr(buffer, "policy") else None
    if model is not None:
        buffer = getattr(model, "replay_buffer", None) or getattr(model, "rollout_buffer", None)
    rollout = hasattr(buffer, "episode_starts")
    if not rollout and not hasattr(buffer, "dones"):
        raise DataError(
            f"{type(model or buffer).__name__} is or has no ReplayBuffer or RolloutBuffer of "
            "stable-baselines3."
        )
    if model is not None:
        spec = _environment(model, rollout)
        if env_id is None and spec is not None:
            env_id, env_kwargs = str(spec.id), dict(spec.kwargs)
        if max_episode_steps is None and spec is not None:
            max_episode_steps = spec.max_episode_steps
    if buffer.size() == 0:
        raise DataError(f"The {type(buffer).__name__} is empty; train or collect first.")
    if rollout:
        log = rollout_log(buffer, drop_terminal)
    else:
        log = replay_log(buffer, scaled_actions, max_episode_steps, keep_partial)
    log = replace(log, env_id=env_id, env_kwargs=env_kwargs or {})
    return read_transitions(
        log, episodes=episodes, drop_terminal=drop_terminal, keep_partial=keep_partial
    )


def load_sb3_buffer(
    path: str | Path,
    *,
    trust: bool = False,
    scaled_actions: bool = True,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    drop_terminal: bool = False,
    keep_partial: bool = False,
    episodes: int | None = None,
) -> Trajectories:
    """A replay buffer that stable-baselines3's `save_replay_buffer` wrote: `from_sb3_buffer` of it.

    Args:
        path: the pickle.
        trust: execute the pickle. Only for files of your own.
        scaled_actions: as in `from_sb3_buffer`, as are the rest.
        env_id: likewise.
        env_kwargs: likewise.
        max_episode_steps: likewise.
        drop_terminal: likewise.
        keep_partial: likewise.
        episodes: likewise.

    Raises:
        UntrustedFileError: without `trust`.
        DataError: if there is no such file, it is no pickle, or for what `from_sb3_buffer` refuses.
        MissingDependencyError: if stable-baselines3 is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no replay buffer {path}.")
    if not trust:
        raise UntrustedFileError(
            f"{path} is a pickle, which executes code when it is read; pass trust=True if the file "
            "is yours."
        )
    with needed("Saved replay buffers need stable-baselines3", extra="sb3"):
        from stable_baselines3.common.save_util import load_from_pkl
    try:
        buffer = load_from_pkl(path)
    except Exception as error:  # a pickle can raise anything
        raise DataError(f"{path} cannot be unpickled ({type(error).__name__}: {error}).") from error
    return from_sb3_buffer(
        buffer,
        scaled_actions=scaled_actions,
        env_id=env_id,
        env_kwargs=env_kwargs,
        max_episode_steps=max_episode_steps,
        drop_terminal=drop_terminal,
        keep_partial=keep_partial,
        episodes=episodes,
    )


def _environment(model: Any, rollout: bool) -> Any:
    """The specification of a model's environment, or None.

    Raises:
        DataError: if the model's rollout buffer does not hold what the environment saw.
    """
    if rollout and model.get_vec_normalize_env() is not None:
        raise DataError(
            "The model trains under VecNormalize, so its RolloutBuffer holds observations and "
            "rewards in no environment's units, normalised by statistics that moved meanwhile; "
            "collect with lfiw_ope.collect instead."
        )
    if rollout and getattr(model.policy, "squash_output", False):
        raise DataError(
            "The model's policy squashes its output, so its RolloutBuffer holds no actions in the "
            "environment's units; collect with lfiw_ope.collect instead."
        )
    env = model.get_env()
    return None if env is None else env.get_attr("spec")[0]

"""A zip of one's own, loaded by stable-baselines3 itself, which executes the pickles in it."""

import importlib
import re
from typing import Any

from lfiw_ope.errors import DataError
from lfiw_ope.extras import needed
from lfiw_ope.policies.sb3_settings import PICKLED
from lfiw_ope.policies.sb3_zip import SB3Zip

_ALGORITHMS = {
    "top_quantiles_to_drop_per_net": ("sb3_contrib", "TQC"),
    "n_delta": ("sb3_contrib", "ARS"),
    "cg_max_steps": ("sb3_contrib", "TRPO"),
    "n_quantiles": ("sb3_contrib", "QRDQN"),
    "clip_range": ("stable_baselines3", "PPO"),
    "policy_delay": ("stable_baselines3", "TD3"),  # DDPG is TD3 with other settings
    "target_entropy": ("stable_baselines3", "SAC"),
    "exploration_rate": ("stable_baselines3", "DQN"),
    "gae_lambda": ("stable_baselines3", "A2C"),
}
"""By a setting that those before it in the list do not have."""

_EXTRAS = {"stable_baselines3": "sb3", "sb3_contrib": "sb3-contrib"}

_NEEDED = {
    *("policy_class", "policy_kwargs", "observation_space", "action_space"),
    *("train_freq", "target_entropy", "rollout_buffer_class", "replay_buffer_class"),
}
"""What a model is set up from. The other pickles are left unread even in a trusted file: schedules
hold byte code, which another version of Python cannot run."""


def unpickle_model(archive: SB3Zip) -> Any:
    """The model, by its own algorithm's `load`.

    Raises:
        MissingDependencyError: if its algorithm is not installed.
        DataError: if stable-baselines3 cannot load it.
    """
    path, said = archive.path, archive.said
    found = next((algorithm for key, algorithm in _ALGORITHMS.items() if key in said), None)
    if found is None:
        raise DataError(
            f"{path} is of none of the algorithms {', '.join(n for _, n in _ALGORITHMS.values())}."
        )
    package, name = found
    with needed(f"trust=True needs {package} for {name}", extra=_EXTRAS[package]):
        algorithm = getattr(importlib.import_module(package), name)
    try:
        return algorithm.load(path, device="cpu", custom_objects=_replacements(archive))
    except Exception as error:  # whatever the file's own code raises
        raise DataError(
            f"{package} cannot load {path} as {name} ({type(error).__name__}: {error})."
        ) from error


def _replacements(archive: SB3Zip) -> dict[str, Any]:
    """For what is not needed, would not fit, or names packages that are no longer there."""
    replaced: dict[str, Any] = {
        key: 0.0 if re.search(r"schedule|learning_rate|clip_range$", key) else None
        for key, value in archive.said.items()
        if key not in _NEEDED and isinstance(value, dict) and PICKLED in value
    }
    if "buffer_size" in archive.said:
        replaced["buffer_size"] = 1  # a replay buffer of the training's size could fill the memory
    for key in ("observation_space", "action_space"):
        if "'gym." in str(archive.said[key].get(":type:")):
            replaced[key] = archive.gymnasium_space(key)  # Gym is not installed beside Gymnasium
    return replaced

"""Trajectories to Minari data sets."""

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from lfiw_ope.data.minari import installed_minari
from lfiw_ope.data.minari_episodes import LOG_PROB, PROPOSED
from lfiw_ope.data.spaces import decode_actions, gymnasium
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import ConfigError, DataError


def save_minari(
    data: Trajectories,
    folder: str | Path,
    *,
    dataset_id: str,
    max_episode_steps: int | None = None,
) -> Path:
    """Write a Minari data set (HDF5) that `load_minari` and Minari itself read.

    Args:
        data: the log.
        folder: a folder that does not exist yet; it appears whole or not at all.
        dataset_id: Minari's name for it, such as "swimmer/behaviour-v0".
        max_episode_steps: after which the log's environment was truncated, for Minari's
            `recover_environment`; the environment's own limit where None.

    Raises:
        ConfigError: if Minari takes no such name.
        DataError: if the folder exists.
        MissingDependencyError: if Minari is not installed.
    """
    require_dataset_id(dataset_id)
    minari = installed_minari()
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    folder = Path(folder)
    if folder.exists():
        raise DataError(f"{folder} exists; name a new folder, or delete it first.")
    spaces = gymnasium().spaces
    spec = data.action_spec
    observation_space = spaces.Box(-np.inf, np.inf, (data.state_size,), np.float32)
    action_space = spaces.Discrete(spec.size)
    if spec.kind == "continuous":
        action_space = spaces.Box(
            np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32), dtype=np.float32
        )
    # Absolute: of a relative folder Minari joins the path to itself.
    partial = folder.absolute().with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "data").mkdir(parents=True)
    try:
        storage = MinariStorage.new(
            partial / "data",
            observation_space=observation_space,
            action_space=action_space,
            env_spec=_environment(data, max_episode_steps),
            data_format="hdf5",
        )
        storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__})
        storage.update_episodes(
            EpisodeBuffer(**_episode(data, i, action_space)) for i in range(data.num_episodes)
        )
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def require_dataset_id(said: str) -> None:
    """That Minari can call a data set so: one of another name is written, and cannot be read.

    Raises:
        ConfigError: if it cannot.
        MissingDependencyError: if Minari is not installed.
    """
    installed_minari()
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(said)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"Minari takes no data set called {said!r}; name it such as swimmer/replay-v0, with "
            "two letters or more before a slash."
        ) from error


def _environment(data: Trajectories, max_episode_steps: int | None) -> Any:
    """Gymnasium's specification of the environment, or None where Gymnasium does not know it."""
    if data.env_id not in gymnasium().registry:
        return None
    spec = copy.deepcopy(gymnasium().spec(data.env_id))
    spec.kwargs.update(data.env_kwargs)
    spec.max_episode_steps = max_episode_steps or spec.max_episode_steps
    return spec


def _episode(data: Trajectories, i: int, action_space: Any) -> dict[str, Any]:
    rows = slice(data.offsets[i], data.offsets[i + 1])
    steps = int(data.lengths[i])
    infos: dict[str, Any] = {}
    if data.log_prob is not None:
        infos[LOG_PROB] = data.log_prob[rows]
    if data.proposed_actions is not None:
        infos[PROPOSED] = data.proposed_actions[rows]
    ends = np.arange(steps) == steps - 1
    return {
        "id": i,
        "observations": data.states[data.state_offsets[i] : data.state_offsets[i + 1]],
        "actions": decode_actions(action_space, data.actions[rows]),
        "rewards": data.rewards[rows],
        "terminations": ends & data.terminated[i],
        "truncations": ends & data.truncated[i],
        "infos": infos or None,
    }

"""Trajectories from and to Minari data sets (HDF5)."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from lfiw_ope.data.spaces import (
    action_spec,
    decode_actions,
    encode_actions,
    flatten_states,
    gymnasium,
    state_size,
)
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError, MissingDependencyError

LOG_PROB, PROPOSED = "behaviour_log_prob", "behaviour_proposed_action"
"""Names among a Minari episode's infos."""


def load_minari(source: str | Path) -> Trajectories:
    """Read a Minari data set, by id or by the folder that holds it.

    A data set that is not there under its id is downloaded, where the network allows. Episodes
    keep their last observation; one that was neither terminated nor truncated when the recording
    stopped counts as truncated.

    Args:
        source: an id such as "mujoco/hopper/medium-v0", or a folder with `main_data.hdf5` in it
            or in its `data/`.

    Raises:
        DataError: if it is no Minari data set, holds no episode, or has other spaces than Box and
            Discrete.
        MissingDependencyError: if Minari is not installed.
    """
    data_set = _open(source)
    observation_space, action_space = data_set.observation_space, data_set.action_space
    spec = action_spec(action_space)
    size = state_size(observation_space)
    episodes, rows = int(data_set.total_episodes), int(data_set.total_steps)
    if episodes == 0:
        raise DataError(f"The Minari data set {source} holds no episode; at least one is needed.")
    states = np.empty((rows + episodes, size), np.float32)
    actions = np.empty((rows, spec.size), np.float32)
    rewards = np.empty(rows, np.float32)
    lengths = np.empty(episodes, np.int64)
    terminated, truncated = np.empty(episodes, bool), np.empty(episodes, bool)
    infos: dict[str, list[Any]] = {LOG_PROB: [], PROPOSED: []}
    row = 0
    for i, episode in enumerate(data_set.iterate_episodes()):
        steps = len(episode.rewards)
        _check_episode(episode, i, source)
        lengths[i] = steps
        here = slice(row + i, row + i + steps + 1)
        states[here] = flatten_states(observation_space, episode.observations)
        actions[row : row + steps] = encode_actions(action_space, episode.actions)
        rewards[row : row + steps] = episode.rewards
        terminated[i] = bool(episode.terminations[-1])
        truncated[i] = not terminated[i] or bool(episode.truncations[-1])
        for name, kept in infos.items():
            # Minari's collector records an info at the reset too: the last `steps` are the steps'.
            if episode.infos and name in episode.infos:
                kept.append(np.asarray(episode.infos[name])[-steps:])
        row += steps
    for name, kept in infos.items():
        if 0 < len(kept) < episodes:
            raise DataError(
                f"{len(kept)} of {episodes} episodes of {source} carry {name}; all or none must."
            )
    log_prob, proposed = (
        np.concatenate(kept) if len(kept) == episodes else None for kept in infos.values()
    )
    return Trajectories(
        states=states,
        actions=actions,
        rewards=rewards,
        lengths=lengths,
        terminated=terminated,
        truncated=truncated,
        action_spec=spec,
        log_prob=log_prob,
        proposed_actions=None if proposed is None else proposed.reshape(rows, spec.size),
        env_id=None if data_set.env_spec is None else str(data_set.env_spec.id),
    )


def save_minari(data: Trajectories, folder: str | Path, *, dataset_id: str) -> Path:
    """Write a Minari data set (HDF5) that `load_minari` and Minari itself read.

    Args:
        data: the log.
        folder: a folder that does not exist yet; it appears whole or not at all.
        dataset_id: Minari's name for it, such as "swimmer/behaviour-v0".

    Raises:
        DataError: if the folder exists.
        MissingDependencyError: if Minari is not installed.
    """
    minari = _minari()
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
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "data").mkdir(parents=True)
    registered = data.env_id in gymnasium().registry
    storage = MinariStorage.new(
        partial / "data",
        observation_space=observation_space,
        action_space=action_space,
        env_spec=gymnasium().spec(data.env_id) if registered else None,
        data_format="hdf5",
    )
    storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__})
    storage.update_episodes(
        EpisodeBuffer(**_episode(data, i, action_space)) for i in range(data.num_episodes)
    )
    os.replace(partial, folder)
    return folder


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


def _check_episode(episode: Any, index: int, source: str | Path) -> None:
    steps, states = len(episode.rewards), len(episode.observations)
    if steps < 1 or states != steps + 1:
        raise DataError(
            f"Episode {index} of {source} has {states} observations and {steps} rewards; an "
            "episode of T steps needs T + 1 observations, T of 1 or more."
        )


def _minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise MissingDependencyError(
            "Minari data sets need Minari: pip install 'lfiw-ope[minari]'."
        ) from error
    return minari


def _open(source: str | Path) -> Any:
    minari = _minari()
    folder = Path(source)
    if not folder.exists() and (folder.is_absolute() or str(source).startswith(".")):
        raise DataError(f"There is no folder {source}; name one with a Minari data set, or an id.")
    try:
        if folder.is_dir():
            return minari.MinariDataset(folder / "data" if (folder / "data").is_dir() else folder)
        return minari.load_dataset(str(source), download=True)
    except Exception as error:  # Minari raises many types, for the network as for the format
        raise DataError(
            f"{source} is neither a folder with a Minari data set nor an id that can be loaded "
            f"({type(error).__name__}: {error})."
        ) from error

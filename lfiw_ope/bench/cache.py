"""Logs that took long to make, kept in files that are named by all that made them."""

import hashlib
import json
import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.data.npz import log_arrays, write_npz
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError, warn

Made = tuple[Trajectories, NDArray[np.int64]]
"""A log, and who played each of its episodes `[N]`."""

_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What NumPy raises of an archive that was not written to its end, or was changed since; zip
archives carry a checksum of every array, and reading one from beginning to end verifies it."""


def cache_folder() -> Path:
    """`$LFIW_OPE_CACHE`, else `$XDG_CACHE_HOME/lfiw_ope`, else `~/.cache/lfiw_ope`."""
    if own := os.environ.get("LFIW_OPE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lfiw_ope"


def cached_path(folder: Path, name: str, identity: Mapping[str, Any]) -> Path:
    """The file of what these things make: a readable name, and the digest of them all.

    Args:
        folder: of the cache.
        name: for whoever looks into the folder.
        identity: everything that decides what is made, as JSON can hold it.
    """
    text = json.dumps(identity, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}-{key}.npz"


def keep(path: Path, made: Made, identity: Mapping[str, Any]) -> None:
    """Write it, whole or not at all; where that cannot be done, a `DataWarning` says so."""
    log, player = made
    spec = log.action_spec
    about = {
        "identity": dict(identity),
        "action_spec": {"kind": spec.kind, "size": spec.size, "low": spec.low, "high": spec.high},
        "env_id": log.env_id,
        "env_kwargs": log.env_kwargs,
    }
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")  # another process may write too
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(
            partial, {**log_arrays(log), "player": player, "about": np.array(json.dumps(about))}
        )
        partial.replace(path)
    except OSError as error:
        warn(f"What was made could not be kept in {path} ({error}); it will be made again.")
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def find(path: Path, identity: Mapping[str, Any]) -> Made | None:
    """What is kept there, or None where nothing is; or nothing whole, which is then said."""
    if not path.exists():
        return None
    try:
        return _read(path, identity)
    except _DAMAGE as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        warn(f"{path} is damaged ({reason}); it is made anew.")
        return None


def _read(path: Path, identity: Mapping[str, Any]) -> Made:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(str(arrays.pop("about")))
    if about["identity"] != json.loads(json.dumps(identity)):
        raise DataError("it says that it was made of other things")
    said = about["action_spec"]
    spec = ActionSpec(said["kind"], said["size"], tuple(said["low"]), tuple(said["high"]))
    player = arrays.pop("player")
    states = arrays.pop("observations")
    log = Trajectories(
        states=states,
        **arrays,
        action_spec=spec,
        env_id=about["env_id"],
        env_kwargs=about["env_kwargs"],
    )
    return log, player

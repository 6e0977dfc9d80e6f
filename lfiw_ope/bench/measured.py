"""Files of what was measured of a ladder: they say with what, and are gone on with."""

import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lfiw_envs.ladder import Ladder

from lfiw_ope.data.spaces import gymnasium
from lfiw_ope.errors import ConfigError, DataError
from lfiw_ope.policies.actor_file import actor_digest
from lfiw_ope.stored import provenance


def digest(path: Path) -> str:
    """Of a policy: a measurement is of what its file holds, whatever its name is.

    Raises:
        DataError: if there is no such file, or it is none.
    """
    return actor_digest(path)[:16]


def made_by(ladder: Ladder, command: str, **settings: Any) -> dict[str, Any]:
    """The head of such a file: what was played, with which settings and versions."""
    machine = {**provenance()["machine"], "gymnasium": gymnasium().__version__}
    with suppress(PackageNotFoundError):
        machine["mujoco"] = version("mujoco")
    return {
        "command": command,
        "env_id": ladder.env_id,
        "env_kwargs": dict(ladder.env_kwargs),
        "episode": ladder.episode,
        "questions": {name: list(of) for name, of in ladder.questions.items()},
        **settings,
        "machine": machine,
    }


def gone_on_with(path: Path, head: dict[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """What the file holds already, under this head; nothing yet where there is none.

    Args:
        path: the file.
        head: what `made_by` gave; all but the command and the machine must be as it was.
        parts: names of the tables that follow the head.

    Raises:
        ConfigError: if the file was measured otherwise.
        DataError: if it is no such file.
    """
    if not path.exists():
        return {**head, **{part: {} for part in parts}}
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = [dict(stored[part]) for part in parts]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no {parts[-1]} of a ladder ({error}); remove it.") from error
    plain = json.loads(json.dumps(head))
    free = ("command", "machine")
    differing = [name for name in plain if name not in free and stored.get(name) != plain[name]]
    if differing:
        raise ConfigError(
            f"{path} was measured with another {' and '.join(differing)}; remove it to measure "
            "anew."
        )
    return {**stored, **head}

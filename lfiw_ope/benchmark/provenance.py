"""Files of what was measured of a ladder: they say with what, and are gone on with."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lfiw_envs.ladder import Ladder

from lfiw_ope.core.errors import ConfigError, DataError
from lfiw_ope.core.serialization import provenance
from lfiw_ope.data.spaces import gymnasium
from lfiw_ope.policies.files import actor_digest


def digest(path: Path) -> str:
    """Of a policy: a measurement is of what its file holds, whatever its name is.

    Raises:
        DataError: if there is no such file, or it is none.
    """
    return actor_digest(path)[:16]


def plain_kwargs(ladder: Ladder, advice: str) -> dict[str, Any]:
    """The environment's settings as a file has them.

    Raises:
        ConfigError: if no file can hold them; it ends with the advice.
    """
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(ladder.env_kwargs)))
    except TypeError as error:
        raise ConfigError(
            f"The env_kwargs of {ladder.name} cannot be written down ({error}), {advice}."
        ) from error
    return found


def made_by(ladder: Ladder, command: str, **settings: Any) -> dict[str, Any]:
    """The head of such a file: what was played, with which settings and versions."""
    machine = {**provenance()["machine"], "gymnasium": gymnasium().__version__}
    with suppress(PackageNotFoundError):
        machine["mujoco"] = version("mujoco")
    return {"command": command, **_task(ladder), **settings, "machine": machine}


def _task(ladder: Ladder) -> dict[str, Any]:
    advice = (
        "and files of what is measured say by which it was; give numbers, text, lists and dicts"
    )
    return {
        "env_id": ladder.env_id,
        "env_kwargs": plain_kwargs(ladder, advice),
        "episode": ladder.episode,
        "questions": {name: list(of) for name, of in ladder.questions.items()},
    }


def require_measured_of(
    ladder: Ladder, path: Path, policies: Iterable[str], *, data: str | None = None
) -> None:
    """That a file tells of what the ladder is now, and not of what was there when it was measured.

    A policy that was trained anew under its name has another value: the file's would be taken for
    it, and every error be wrong.

    Args:
        ladder: the task.
        path: of the file, which is there.
        policies: whose files it must know by what they hold.
        data: a data set whose recipe it must know.

    Raises:
        ConfigError: if it was measured otherwise, or of other policies, or the ladder's
            environment cannot be written down.
        DataError: if a policy's file is missing or none.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(_task(ladder)))
    differing = [f"another {name}" for name, of in now.items() if stored.get(name) != of]
    if data is not None and stored.get("recipes", {}).get(data) != list(ladder.recipe(data)):
        differing.append(f"another recipe of {data}")
    files = stored.get("files", {})
    changed = [one for one in policies if files.get(one) != digest(ladder.policy_path(one))]
    if changed:
        differing.append(f"other files of {', '.join(changed)}")
    if differing:
        raise ConfigError(
            f"{path} was measured with {' and '.join(differing)} than {ladder.name} has now; "
            "measure it anew."
        )


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

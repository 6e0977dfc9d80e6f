"""The file of a ladder's true values: what is known is kept, and nothing of another policy."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

from lfiw_envs.ladder import Ladder, LadderValue, Play

from lfiw_ope.data.spaces import gymnasium
from lfiw_ope.errors import ConfigError, DataError
from lfiw_ope.stored import provenance, write_text

PLAYS: tuple[Play, ...] = get_args(Play)

SETTINGS = ("env_id", "env_kwargs", "episode", "questions", "seed", "num_envs")
"""What decides the numbers, so that one file holds values of one setting alone."""


@dataclass(frozen=True)
class ValueFile:
    """Values by policy, kind of play and question, and what they were measured with.

    Attributes:
        ladder: where it belongs, at `ladder.values_path`.
        head: what measures now: command, settings, versions.
        files: digest of the file of each policy that has values.
        values: by policy, play and question.
    """

    ladder: Ladder
    head: Mapping[str, Any]
    files: dict[str, str]
    values: dict[str, dict[str, dict[str, Any]]]

    @classmethod
    def open(cls, ladder: Ladder, *, command: str, seed: int, num_envs: int) -> "ValueFile":
        """What is stored already, or nothing.

        Raises:
            ConfigError: if it was measured with other settings.
            DataError: if the file is of another kind.
        """
        head = {"command": command, **_settings(ladder, seed, num_envs), "machine": _machine()}
        path = ladder.values_path
        if not path.exists():
            return cls(ladder, head, {}, {})
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            files, values = dict(stored["files"]), dict(stored["values"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no values of a ladder ({error}); remove it.") from error
        if differing := [name for name in SETTINGS if stored.get(name) != head[name]]:
            raise ConfigError(
                f"{path} was measured with another {' and '.join(differing)}; remove it to measure "
                "anew."
            )
        return cls(ladder, head, files, values)

    def knows(self, policy: str, play: Play, episodes: int) -> bool:
        """Whether a policy's file was measured as it is now, by so many episodes or more.

        Raises:
            DataError: if the policy's file is missing.
        """
        known = self.files.get(policy) == self._digest(policy)
        values = self.values.get(policy, {}).get(play, {})
        return known and bool(values) and all(of["episodes"] >= episodes for of in values.values())

    def add(self, policy: str, play: Play, values: Mapping[str, LadderValue]) -> None:
        """Keep a policy's values, and write the file, whole or not at all."""
        digest = self._digest(policy)
        if self.files.get(policy) != digest:
            self.values[policy] = {}  # those of another policy of this name
        self.files[policy] = digest
        plain = {question: asdict(value) for question, value in values.items()}
        self.values.setdefault(policy, {})[play] = plain
        # In the ladder's order, whichever was measured first.
        order = [name for name in self.ladder.targets if name in self.values]
        order += [name for name in self.values if name not in order]
        said = {
            **self.head,
            "files": {name: self.files[name] for name in order},
            "values": {
                name: {play: self.values[name][play] for play in PLAYS if play in self.values[name]}
                for name in order
            },
        }
        text = json.dumps(said, indent=1, allow_nan=False) + "\n"
        write_text(self.ladder.values_path, text)

    def _digest(self, policy: str) -> str:
        """Of a policy's file: values are of what it holds, whatever its name is."""
        path = self.ladder.policy_path(policy)
        if not path.is_file():
            raise DataError(f"There is no policy file {path}.")
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _settings(ladder: Ladder, seed: int, num_envs: int) -> dict[str, Any]:
    return {
        "env_id": ladder.env_id,
        "env_kwargs": dict(ladder.env_kwargs),
        "episode": ladder.episode,
        "questions": {name: list(of) for name, of in ladder.questions.items()},
        "seed": seed,
        "num_envs": num_envs,
    }


def _machine() -> dict[str, Any]:
    machine = {**provenance()["machine"], "gymnasium": gymnasium().__version__}
    with suppress(PackageNotFoundError):
        machine["mujoco"] = version("mujoco")
    return machine

"""The file of a ladder's true values: what is known is kept, and nothing of another policy."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from lfiw_envs.ladder import Ladder, LadderValue, Play

from lfiw_ope.bench.measured import digest, gone_on_with, made_by
from lfiw_ope.stored import write_text

PLAYS: tuple[Play, ...] = get_args(Play)


@dataclass(frozen=True)
class ValueFile:
    """Values by policy, kind of play and question, and what they were measured with.

    Attributes:
        ladder: where it belongs, at `ladder.values_path`.
        head: what measures now: command, settings, versions.
        files: digest of each policy that has values.
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
        head = made_by(ladder, command, seed=seed, num_envs=num_envs)
        stored = gone_on_with(ladder.values_path, head, ("files", "values"))
        return cls(ladder, head, stored["files"], stored["values"])

    def knows(self, policy: str, play: Play, episodes: int) -> bool:
        """Whether a policy's file was measured as it is now, by so many episodes or more.

        Raises:
            DataError: if the policy's file is missing or none.
        """
        known = self.files.get(policy) == digest(self.ladder.policy_path(policy))
        values = self.values.get(policy, {}).get(play, {})
        return known and bool(values) and all(of["episodes"] >= episodes for of in values.values())

    def add(self, policy: str, play: Play, values: Mapping[str, LadderValue]) -> None:
        """Keep a policy's values, and write the file, whole or not at all."""
        file = digest(self.ladder.policy_path(policy))
        if self.files.get(policy) != file:
            self.values[policy] = {}  # those of another policy of this name
        self.files[policy] = file
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

"""Task records: environment, horizon, discount, shipped policies and their measured values."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lfiw_envs import making
from lfiw_envs.rules.lookup import rules_for
from lfiw_envs.rules.record import EnvironmentRules

POLICIES = Path(__file__).parent / "policies"


@dataclass(frozen=True)
class MeasuredValue:
    """A policy's value, measured by playing it in the real environment.

    Attributes:
        mean: of the returns.
        standard_error: of the mean.
        episodes: played.
        command: what measured it.
    """

    mean: float
    standard_error: float
    episodes: int
    command: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One evaluation task.

    Attributes:
        name: short, as the command line takes it.
        env_id: the Gymnasium id.
        horizon: T, in environment steps; episodes are truncated there.
        discount: γ.
        policies: names of the shipped policies; "behaviour" made the data, "target" is evaluated.
        env_kwargs: passed on to the environment.
    """

    name: str
    env_id: str
    horizon: int
    discount: float = 1.0
    policies: tuple[str, ...] = ("behaviour", "target")
    env_kwargs: dict[str, Any] = field(default_factory=dict)

    def policy_path(self, policy: str) -> Path:
        """The shipped actor's safetensors file."""
        self._check(policy)
        return POLICIES / self.name / f"{policy}.safetensors"

    def value(self, policy: str) -> MeasuredValue:
        """A shipped policy's measured value: stochastic play, this horizon and discount."""
        self._check(policy)
        stored = json.loads((POLICIES / self.name / "values.json").read_text(encoding="utf-8"))
        return MeasuredValue(command=stored["command"], **stored["values"][policy])

    def make(self) -> Any:
        """One environment, truncated at the horizon."""
        return making.make(self.env_id, self.horizon, self.env_kwargs)

    def make_vector(self, num_envs: int) -> Any:
        """A synchronous vector environment of `num_envs` copies."""
        return making.make_vector(self.env_id, self.horizon, self.env_kwargs, num_envs)

    def rules(self) -> EnvironmentRules:
        """Termination and reward as functions, where they are known."""
        return rules_for(self.env_id, self.env_kwargs)

    def _check(self, policy: str) -> None:
        if policy not in self.policies:
            raise ValueError(
                f"{self.name} has no policy {policy!r}; it ships {', '.join(self.policies)}."
            )


TASKS = {
    task.name: task
    for task in (
        Task(name="swimmer", env_id="Swimmer-v5", horizon=100),
        Task(name="half_cheetah", env_id="HalfCheetah-v5", horizon=100),
        Task(name="humanoid_standup", env_id="HumanoidStandup-v5", horizon=100),
    )
}
"""The three tasks of Grover et al. (2019), on their v5 environments, by name."""


def get_task(name: str) -> Task:
    """The task of this name.

    Raises:
        ValueError: if there is none; it names those there are.
    """
    if name not in TASKS:
        raise ValueError(f"There is no task {name!r}; choose one of {', '.join(TASKS)}.")
    return TASKS[name]

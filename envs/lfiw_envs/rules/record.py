"""What is known of an environment as functions."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Rule(Protocol):
    """A reward or a termination rule of an environment.

    States are `[..., n, S]`, as the environment observed them, flattened; actions `[..., n, A]`, in
    the environment's units, one-hot if discrete. A reward is given in the states' dtype, a
    termination as bool. Rules run on the tensors' device and wait for nothing.
    """

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """`[..., n]`"""
        ...


@dataclass(frozen=True, kw_only=True)
class EnvironmentRules:
    """An environment's termination and reward, as far as its observations tell them.

    A task of your own is one of these; there is nothing to register:

        def leaves_the_track(state, action, next_state):
            return next_state[..., 0].abs() > 1.0

        rules = EnvironmentRules(env_id="Cart-v0", termination=leaves_the_track)
        estimator = LFIW(estimand, reward=rules.reward, termination=rules.termination)

    Attributes:
        env_id: the Gymnasium id, or any name.
        state_size: S that the rules read, or None for any.
        termination: the rule, `NEVER` where no state ends an episode, or None where it is not
            known and must be learned.
        reward: the reward, exact up to rounding, or None where it is not known and must be
            learned.
        termination_note: where the rule can err, or why there is none; empty where it cannot.
        reward_note: why there is no reward, or what an exact one rests on.
    """

    env_id: str
    state_size: int | None = None
    termination: Rule | None = None
    reward: Rule | None = None
    termination_note: str = ""
    reward_note: str = ""

    def __str__(self) -> str:
        ends = "not known" if self.termination is None else "a rule"
        parts = {
            "termination": ("never" if self.termination == NEVER else ends, self.termination_note),
            "reward": ("not known" if self.reward is None else "exact", self.reward_note),
        }
        said = (f"{k}: {known}{f' ({note})' if note else ''}" for k, (known, note) in parts.items())
        return f"{self.env_id}: {'; '.join(said)}"


@dataclass(frozen=True)
class Never:
    """No state ends an episode."""

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.zeros(next_state.shape[:-1], dtype=torch.bool, device=next_state.device)


NEVER = Never()

"""A tabular MDP: finite states and actions, everything exact by dynamic programming.

States and actions are one-hot tensors, as flattened discrete spaces are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_envs.outcome import Outcome

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TabularPolicy:
    """π(a | s) from a table.

    Attributes:
        table: `[S, A]`, rows sum to 1.
    """

    table: Array

    def __post_init__(self) -> None:
        _check_rows("table", self.table)

    @property
    def state_size(self) -> int:
        return int(self.table.shape[0])

    @property
    def action_size(self) -> int:
        return int(self.table.shape[1])

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        chosen = _draw(self._probabilities(state), generator)
        return torch.nn.functional.one_hot(chosen, self.action_size).to(state.dtype)

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor:
        return (self._probabilities(state) * action).sum(-1).log()

    def _probabilities(self, state: Tensor) -> Tensor:
        return state @ torch.as_tensor(self.table, dtype=state.dtype, device=state.device)


@dataclass(frozen=True)
class TabularMDP:
    """Finite states and actions; also a dynamics model that can be sampled.

    Attributes:
        transition: `[S, A, S]`, P(s' | s, a); rows sum to 1.
        reward: `[S, A, S]`, r(s, a, s').
        initial: `[S]`, distribution of s_0.
        terminal: `[S]` bool; an episode ends on entering such a state, whose reward counts.
    """

    transition: Array
    reward: Array
    initial: Array
    terminal: NDArray[np.bool_]

    def __post_init__(self) -> None:
        _check_rows("transition", self.transition)
        _check_rows("initial", self.initial)
        states = self.num_states
        if self.reward.shape != self.transition.shape or self.terminal.shape != (states,):
            raise ValueError(
                f"reward has shape {self.reward.shape} and terminal {self.terminal.shape}; "
                f"expected {self.transition.shape} and {(states,)}."
            )

    @classmethod
    def random(
        cls, states: int, actions: int, seed: int, *, terminal: int = 0, concentration: float = 1.0
    ) -> "TabularMDP":
        """Dirichlet transitions and normal rewards; the last `terminal` states end an episode."""
        rng = np.random.default_rng(seed)
        transition = rng.dirichlet(np.full(states, concentration), (states, actions))
        ends = np.arange(states) >= states - terminal
        initial = np.where(ends, 0.0, rng.dirichlet(np.ones(states)))
        return cls(transition, rng.normal(size=transition.shape), initial / initial.sum(), ends)

    def perturbed(self, seed: int, amount: float) -> "TabularMDP":
        """A wrong model with the same support: (1 − amount) P + amount · a random P."""
        other = np.random.default_rng(seed).dirichlet(
            np.ones(self.num_states), self.transition.shape[:2]
        )
        mixed = (1.0 - amount) * self.transition + amount * other
        return TabularMDP(mixed, self.reward, self.initial, self.terminal)

    @property
    def num_states(self) -> int:
        return int(self.transition.shape[0])

    @property
    def num_actions(self) -> int:
        return int(self.transition.shape[1])

    def value(
        self,
        policy: TabularPolicy,
        horizon: int,
        discount: float = 1.0,
        *,
        after: "tuple[int, TabularMDP] | None" = None,
    ) -> float:
        """v(π) = E[ Σ_{t<T} γ^t r_t ], by backward induction.

        Args:
            policy: π.
            horizon: T.
            discount: γ.
            after: (H, model): from step H on, `model` moves instead: what first-H weights with
                exact ratios estimate.
        """
        values = np.zeros(self.num_states)
        for t in reversed(range(horizon)):
            mdp = self if after is None or t < after[0] else after[1]
            going_on = mdp.reward + discount * np.where(mdp.terminal, 0.0, values)
            values = np.einsum("sa,sap,sap->s", policy.table, mdp.transition, going_on)
        return float(self.initial @ values)

    def action_values(self, policy: TabularPolicy, horizon: int, discount: float = 1.0) -> Array:
        """`[T, S, A]`, Q_t(s, a): what is earned from step t on, discounted to step t."""
        found = np.zeros((horizon, self.num_states, self.num_actions))
        values = np.zeros(self.num_states)
        for t in reversed(range(horizon)):
            going_on = self.reward + discount * np.where(self.terminal, 0.0, values)
            found[t] = np.einsum("sap,sap->sa", self.transition, going_on)
            values = (policy.table * found[t]).sum(1)
        return found

    def occupancies(self, policy: TabularPolicy, horizon: int) -> Array:
        """`[T, S, A]`, P(s_t = s, a_t = a, no terminal state before): sums to 1 or less."""
        found = np.zeros((horizon, self.num_states, self.num_actions))
        reached = self.initial
        for t in range(horizon):
            found[t] = reached[:, None] * policy.table
            onwards = np.einsum("sa,sap->p", found[t], self.transition)
            reached = np.where(self.terminal, 0.0, onwards)
        return found

    def discounted_occupancy(self, policy: TabularPolicy, discount: float) -> Array:
        """`[S, A]`, (1 − γ) Σ_t γ^t P(s_t = s, a_t = a, no terminal state before).

        The solution of d(s') = (1 − γ) p_0(s') + γ Σ_{s, a} d(s) π(a | s) P(s' | s, a), where
        nothing flows into terminal states.
        """
        moved = np.einsum("sa,sap->sp", policy.table, self.transition)
        moved = np.where(self.terminal, 0.0, moved)
        flow = np.eye(self.num_states) - discount * moved.T
        states = np.linalg.solve(flow, (1.0 - discount) * self.initial)
        occupancy: Array = states[:, None] * policy.table
        return occupancy

    def sample(self, state: Tensor, action: Tensor, generator: torch.Generator) -> Outcome:
        """One draw at each one-hot state `[..., n, S]` and action `[..., n, A]`."""
        s, a = state.argmax(-1), action.argmax(-1)
        rows = torch.as_tensor(self.transition, dtype=torch.float64, device=s.device)[s, a]
        reached = _draw(rows, generator)
        reward = torch.as_tensor(self.reward, device=s.device)[s, a, reached]
        ended = torch.as_tensor(self.terminal, device=s.device)[reached]
        next_state = torch.nn.functional.one_hot(reached, self.num_states).to(state.dtype)
        return Outcome(next_state, reward.to(state.dtype), ended, torch.zeros_like(ended))

    def initial_states(self, n: int, generator: torch.Generator) -> Tensor:
        """`[n, S]`, one-hot."""
        rows = torch.as_tensor(self.initial).expand(n, -1)
        return torch.nn.functional.one_hot(_draw(rows, generator), self.num_states).float()

    def log_density(self, state: Tensor, action: Tensor, outcome: Any) -> Tensor:
        """log P(s' | s, a) `[..., n]`, float64."""
        table = torch.as_tensor(self.transition, device=state.device)
        reached = outcome.next_state.argmax(-1)
        return table[state.argmax(-1), action.argmax(-1), reached].log()


def _draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Indices `[..., n]` from rows `[..., n, D]`; the draw is shared along the leading axes."""
    device = probabilities.device
    uniform = torch.rand(
        probabilities.shape[-2], generator=generator, device=device, dtype=torch.float64
    )
    levels = probabilities.double().cumsum(-1)
    below = (levels < uniform[:, None] * levels[..., -1:]).sum(-1)
    return below.clamp_max(probabilities.shape[-1] - 1)


def _check_rows(name: str, rows: Array) -> None:
    if (rows < 0).any() or not np.allclose(rows.sum(-1), 1.0, atol=1e-9):
        raise ValueError(f"{name} holds rows that are no distributions: they must sum to 1.")

"""Small tabular tasks that the field compares estimators on, with exact values."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_envs.outcome import Outcome
from lfiw_envs.tabular import Array, TabularMDP, TabularPolicy


@dataclass(frozen=True)
class Example:
    """A task with the two policies that it is usually shown with.

    Attributes:
        mdp: what moves.
        behaviour: makes the log.
        target: is to be evaluated.
        horizon: T, of the usual estimand.
    """

    mdp: "TabularMDP | AliasedMDP"
    behaviour: TabularPolicy
    target: TabularPolicy
    horizon: int


@dataclass(frozen=True)
class AliasedMDP:
    """A tabular MDP whose states are seen only up to a label: what is logged is no Markov state.

    Rollouts carry the state itself, and `observe` is what a policy and a log see of it.

    Attributes:
        mdp: what moves.
        label: `[S]`, of each state, 0 to O − 1.
    """

    mdp: TabularMDP
    label: NDArray[np.int64]

    @property
    def num_labels(self) -> int:
        return int(self.label.max()) + 1

    def value(self, policy: TabularPolicy, horizon: int, discount: float = 1.0) -> float:
        """v(π) of a policy of observations, `[O, A]`."""
        return self.mdp.value(TabularPolicy(policy.table[self.label]), horizon, discount)

    def observe(self, state: Tensor) -> Tensor:
        """One-hot states `[..., S]` to one-hot labels `[..., O]`."""
        label = torch.as_tensor(self.label, device=state.device)[state.argmax(-1)]
        return torch.nn.functional.one_hot(label, self.num_labels).to(state.dtype)

    def sample(self, state: Tensor, action: Tensor, generator: torch.Generator) -> Outcome:
        """As the MDP's: of states, not of what is seen of them."""
        return self.mdp.sample(state, action, generator)

    def initial_states(self, n: int, generator: torch.Generator) -> Tensor:
        """`[n, S]`, one-hot, not what is seen of them."""
        return self.mdp.initial_states(n, generator)


def model_win() -> Example:
    """ModelWin (Thomas and Brunskill 2016): a model is easily learned, trajectories are long.

    From state 0, action 0 leads to state 1 with probability 0.4 and to state 2 with 0.6, action 1
    the other way round; +1 for reaching state 1, −1 for state 2. Both lead back at no reward.
    """
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1:], transition[0, 1, 1:] = (0.4, 0.6), (0.6, 0.4)
    transition[1:, :, 0] = 1.0
    reward = np.zeros_like(transition)
    reward[0, :, 1], reward[0, :, 2] = 1.0, -1.0
    mdp = TabularMDP(transition, reward, np.eye(3)[0], np.zeros(3, bool))
    return Example(mdp, *_two_policies(3, 0.73), horizon=20)


def model_fail() -> Example:
    """ModelFail (Thomas and Brunskill 2016): all states look alike, so no model can be right.

    The first action leads to one of two states, the second step pays +1 in one and −1 in the
    other and ends the episode, whatever is done. Nothing tells the three states apart.
    """
    transition = np.zeros((4, 2, 4))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1:, :, 3] = 1.0
    reward = np.zeros_like(transition)
    reward[1, :, 3], reward[2, :, 3] = 1.0, -1.0
    mdp = TabularMDP(transition, reward, np.eye(4)[0], np.arange(4) == 3)
    return Example(AliasedMDP(mdp, np.zeros(4, np.int64)), *_two_policies(1, 0.88), horizon=2)


def chain(length: int = 6, slip: float = 0.1) -> Example:
    """Walk to the right end of a chain, which ends the episode and pays 1; a step costs 0.05.

    Action 1 goes right and action 0 left, the other way with probability `slip`; at the left end
    a step to the left stays.
    """
    transition = np.zeros((length, 2, length))
    for state in range(length):
        left, right = max(state - 1, 0), min(state + 1, length - 1)
        for action, (wanted, other) in enumerate(((left, right), (right, left))):
            transition[state, action, wanted] += 1.0 - slip
            transition[state, action, other] += slip
    reward = np.full(transition.shape, -0.05)
    reward[:, :, -1] += 1.0
    mdp = TabularMDP(transition, reward, np.eye(length)[0], np.arange(length) == length - 1)
    return Example(mdp, *_two_policies(length, 0.6), horizon=12)


def taxi(size: int = 3) -> Example:
    """A small taxi (Dietterich 2000): fetch a passenger at one corner, deliver at the other.

    States are taxi position × passenger (at a corner, or aboard) × destination, and one for
    "delivered", which ends the episode. Actions are up, down, left, right, pick up, put down. A
    step costs 1, a pick-up or put-down that does nothing 3, delivery pays 10. The target knows
    the way and the behaviour mixes it with uniform actions.
    """
    corners = (0, size * size - 1)
    states = [(at, who, to) for at in range(size**2) for who in range(3) for to in range(2)]
    index = {state: i for i, state in enumerate(states)}
    delivered = len(states)
    transition = np.zeros((delivered + 1, 6, delivered + 1))
    reward = np.full(transition.shape, -1.0)
    way = np.zeros((delivered + 1, 6))
    transition[delivered, :, delivered], way[delivered] = 1.0, 1.0 / 6.0
    for (at, who, to), i in index.items():
        for action in range(6):
            reached, pays = _taxi_step(at, who, to, action, size, corners)
            j = delivered if reached is None else index[reached]
            transition[i, action, j], reward[i, action, j] = 1.0, pays
        way[i, _taxi_way(at, who, to, size, corners)] = 1.0
    initial = np.zeros(delivered + 1)
    initial[[i for (_, who, to), i in index.items() if who == 1 - to]] = 1.0
    mdp = TabularMDP(
        transition, reward, initial / initial.sum(), np.arange(delivered + 1) == delivered
    )
    near, far = (TabularPolicy((1.0 - e) * way + e / 6.0) for e in (0.1, 0.4))
    return Example(mdp, far, near, horizon=15)


def random_mdp(states: int = 50, horizon: int = 10) -> Example:
    """A random MDP of 3 actions: a random behaviour, and a target that nearly always acts well."""
    mdp = TabularMDP.random(states, 3, seed=7)
    drawn = np.random.default_rng(0).dirichlet(np.ones(3), states)
    behaviour = TabularPolicy(0.5 * drawn + 0.5 / 3)
    best = np.eye(3)[mdp.action_values(behaviour, horizon)[0].argmax(1)]
    return Example(mdp, behaviour, TabularPolicy(0.8 * best + 0.2 / 3), horizon)


def _taxi_step(
    at: int, who: int, to: int, action: int, size: int, corners: tuple[int, int]
) -> tuple[tuple[int, int, int] | None, float]:
    """Where an action leads, None for delivered, and what it pays."""
    row, column = divmod(at, size)
    if action < 4:
        step = ((-1, 0), (1, 0), (0, -1), (0, 1))[action]
        row, column = (
            min(max(x + d, 0), size - 1) for x, d in zip((row, column), step, strict=True)
        )
        return (row * size + column, who, to), -1.0
    if action == 4 and who < 2 and at == corners[who]:
        return (at, 2, to), -1.0
    if action == 5 and who == 2 and at == corners[to]:
        return None, 10.0
    return (at, who, to), -3.0


def _taxi_way(at: int, who: int, to: int, size: int, corners: tuple[int, int]) -> int:
    """The action that goes towards the passenger, or the destination."""
    goal = corners[to if who == 2 else who]
    if at == goal:
        return 5 if who == 2 else 4
    (row, column), (to_row, to_column) = divmod(at, size), divmod(goal, size)
    if row != to_row:
        return 0 if to_row < row else 1
    return 2 if to_column < column else 3


def _two_policies(states: int, first: float) -> tuple[TabularPolicy, TabularPolicy]:
    """The behaviour takes action 0 with this probability everywhere, the target with the other."""
    table: Array = np.tile((first, 1.0 - first), (states, 1))
    return TabularPolicy(table), TabularPolicy(table[:, ::-1].copy())

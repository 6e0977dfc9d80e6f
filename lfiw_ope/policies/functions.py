"""Policies that are NumPy functions, tables, or uniform."""

import copy
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import ConfigError, PolicyError
from lfiw_ope.core.validation import whole
from lfiw_ope.policies.acting import HeadPolicy, action_rows
from lfiw_ope.policies.heads import NO_DENSITY, WITHOUT_DENSITY, CategoricalHead, Output

Array = NDArray[Any]


@dataclass(frozen=True)
class FunctionPolicy:
    """A function of states; see `from_function`. It runs on the CPU, wherever the states are."""

    function: Callable[..., Array]
    state_size: int
    action_spec: ActionSpec
    stochastic: bool
    log_probability: Callable[[Array, Array], Array] | None

    @property
    def action_size(self) -> int:
        return self.action_spec.size

    @property
    def deterministic(self) -> bool:
        return not self.stochastic

    @property
    def has_density(self) -> bool:
        return self.log_probability is not None

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """Executed actions `[..., n, A]` at states `[..., n, S]`."""
        if not self.stochastic:
            found = self._encoded(self.function(_rows(state)), state.shape[:-1].numel())
        else:
            seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
            # The same numbers at every leading index: see lfiw_ope.core.protocols.
            found = torch.cat(
                [
                    self._encoded(
                        self.function(_rows(rows), np.random.default_rng(seed)), len(rows)
                    )
                    for rows in state.reshape(-1, *state.shape[-2:])
                ]
            )
        return found.to(state).reshape(*state.shape[:-1], self.action_size)

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor:
        """log π(action | state) of executed actions.

        Raises:
            PolicyError: if the function came without `log_prob`.
        """
        if self.log_probability is None:
            raise PolicyError(
                "The policy is a function without log_prob; give from_function a log_prob, or use "
                f"{WITHOUT_DENSITY}."
                if self.stochastic
                else NO_DENSITY
            )
        given = _rows(action)
        if self.action_spec.kind == "discrete":
            given = given.argmax(1)
        found = np.asarray(self.log_probability(_rows(state), given), np.float32)
        if found.size != state.shape[:-1].numel():
            raise PolicyError(
                f"log_prob gave an array of shape {found.shape} for {len(given)} states; expected "
                "one number for each."
            )
        return torch.from_numpy(found).to(state).reshape(state.shape[:-1])

    def _encoded(self, given: Array, rows: int) -> Tensor:
        values = np.array(given)  # a copy: the function may give a read-only view, or its own
        if values.dtype.kind not in "fiub":
            raise PolicyError(f"The policy gave {values.dtype} values; expected numbers.")
        found = action_rows(torch.from_numpy(values), rows, self.action_spec)
        if self.action_spec.kind == "discrete":
            return found
        low, high = (torch.tensor(b) for b in (self.action_spec.low, self.action_spec.high))
        return torch.clamp(found.to(low.dtype), low, high)


def _rows(values: Tensor) -> Array:
    """`[rows, ...]`, a copy that the function may write to."""
    return values.reshape(-1, values.shape[-1]).cpu().numpy().copy()


def from_function(
    function: Callable[..., Array],
    *,
    state_size: int,
    action_spec: ActionSpec,
    stochastic: bool = False,
    log_prob: Callable[[Array, Array], Array] | None = None,
) -> FunctionPolicy:
    """A plain function on NumPy arrays as a policy.

    Args:
        function: of states `[n, S]` float32, and of a `numpy.random.Generator` where `stochastic`;
            gives actions `[n, A]` in the environment's units, clipped to the bounds on execution,
            or indices `[n]` of discrete ones. It must draw from that generator alone.
        state_size: S.
        action_spec: what actions are; a log's `action_spec` will do.
        stochastic: whether it takes a generator.
        log_prob: of states `[n, S]` and executed actions, in the form that `function` gives them:
            log π(action | state) `[n]`.

    Raises:
        ConfigError: if `log_prob` is given for a deterministic function.
    """
    if log_prob is not None and not stochastic:
        raise ConfigError("log_prob is given, but a function that is not stochastic has none.")
    size = whole("state_size", state_size, least=1)
    return FunctionPolicy(function, size, action_spec, stochastic, log_prob)


class UniformPolicy(nn.Module):
    """Uniform over the discrete actions, or over the box of the action bounds.

    Args:
        state_size: S.
        action_spec: what actions are; a log's `action_spec` will do.

    Raises:
        PolicyError: if a bound is infinite.
    """

    low: Tensor
    high: Tensor

    def __init__(self, state_size: int, action_spec: ActionSpec) -> None:
        super().__init__()
        self.state_size = whole("state_size", state_size, least=1)
        self.action_spec = action_spec
        bounds = zip(action_spec.low, action_spec.high, strict=True)
        if not all(-math.inf < low < high < math.inf for low, high in bounds):
            raise PolicyError(
                "There is no uniform distribution over unbounded actions; the action_spec needs "
                f"finite bounds, low below high, and has {action_spec.low} and {action_spec.high}."
            )
        self.register_buffer("low", torch.tensor(action_spec.low, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(action_spec.high, dtype=torch.float32))

    @property
    def action_size(self) -> int:
        return self.action_spec.size

    @property
    def stack_key(self) -> Hashable:
        return "uniform", self.state_size, self.action_spec

    def stack(self, others: Sequence["UniformPolicy"]) -> "UniformPolicy":  # noqa: ARG002
        """A copy: policies of one stack_key are the same."""
        return copy.deepcopy(self)

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        n, size = state.shape[-2], self.action_size
        continuous = self.action_spec.kind == "continuous"
        shape = (n, size) if continuous else (n,)
        uniform = torch.rand(shape, generator=generator, device=state.device, dtype=state.dtype)
        if continuous:
            action = self.low + (self.high - self.low) * uniform
            inward = torch.nextafter(self.low, self.high), torch.nextafter(self.high, self.low)
            action = torch.clamp(action, *inward)  # a bound itself has probability 0
        else:
            chosen = (uniform * size).long().clamp_max(size - 1)
            action = nn.functional.one_hot(chosen, size).to(state.dtype)
        return action.expand(*state.shape[:-1], size)

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor:
        """-log A, or -log of the box's volume; -inf on its bounds and beyond."""
        if self.action_spec.kind == "discrete":
            return torch.full_like(state[..., 0], -math.log(self.action_size))
        inside = ((action > self.low) & (action < self.high)).all(-1)
        log_volume = torch.log(self.high - self.low).sum()
        return torch.where(inside, -log_volume, -torch.inf)


class TabularPolicy(HeadPolicy):
    """π(a | s) from a table, at one-hot states.

    A state that is nearly one-hot, as a learned model draws them, is read as the nearest one.

    Args:
        table: `[S, A]` probabilities; or `[P, S, A]`, of P policies.
        deterministic: act by the likeliest action.

    Raises:
        PolicyError: if its rows are no distributions.
    """

    table: Tensor

    def __init__(self, table: ArrayLike | Tensor, *, deterministic: bool = False) -> None:
        super().__init__(CategoricalHead(), deterministic=deterministic)
        rows = torch.as_tensor(table).detach().double()
        if rows.dim() not in (2, 3):
            raise PolicyError(f"The table has shape {tuple(rows.shape)}; expected [S, A].")
        sums = rows.sum(-1)
        if not ((rows >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-6)):
            raise PolicyError(
                "The table holds rows that are no distributions: each row's probabilities must be "
                "0 or more and sum to 1."
            )
        self.register_buffer("table", (rows if rows.dim() == 3 else rows[None]).float())

    @property
    def state_size(self) -> int:
        return self.table.shape[1]

    @property
    def action_size(self) -> int:
        return self.table.shape[2]

    @property
    def action_spec(self) -> ActionSpec:
        return ActionSpec.discrete(self.action_size)

    @property
    def stack_key(self) -> Hashable:
        return "table", *self.table.shape[1:], self.deterministic

    def stack(self, others: Sequence["TabularPolicy"]) -> "TabularPolicy":
        """One policy of all these policies' axes P, one after the other; a copy."""
        tables = torch.cat([one.table for one in (self, *others)])
        return TabularPolicy(tables, deterministic=self.deterministic)

    def outputs(self, state: Tensor) -> Output:
        nearest = nn.functional.one_hot(state.argmax(-1), self.state_size).to(state.dtype)
        table = self.table if state.dim() == 3 else self.table[0]
        return Output(torch.log(nearest @ table.to(state.dtype)))

"""Policies that are plain functions on NumPy arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.checks import whole
from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import ConfigError, PolicyError
from lfiw_ope.policies.actions import action_rows
from lfiw_ope.policies.heads import NO_DENSITY, WITHOUT_DENSITY

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
            # The same numbers at every leading index: see lfiw_ope.types.
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

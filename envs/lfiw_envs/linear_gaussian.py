"""A linear-Gaussian MDP with linear-Gaussian policies: exact values by propagated moments."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_envs.outcome import Outcome

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearGaussianPolicy:
    """a = K s + k + σ ε, ε ~ N(0, 1): unbounded.

    Attributes:
        gain: `[A, S]`, K.
        bias: `[A]`, k.
        scale: `[A]`, σ, positive.
    """

    gain: Array
    bias: Array
    scale: Array

    @property
    def state_size(self) -> int:
        return int(self.gain.shape[1])

    @property
    def action_size(self) -> int:
        return int(self.gain.shape[0])

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        mean = self._mean(state)
        noise = torch.randn(mean.shape[-2:], generator=generator, device=state.device)
        return mean + _like(self.scale, state) * noise

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor:
        return _log_normal(action - self._mean(state), np.diag(self.scale**2))

    def _mean(self, state: Tensor) -> Tensor:
        return state @ _like(self.gain, state).T + _like(self.bias, state)


@dataclass(frozen=True)
class LinearGaussianMDP:
    """s' = A s + B a + b + w, w ~ N(0, W); also a dynamics model that can be sampled.

    r(s, a) = c + q·s − s'Q s − a'R a, a function of (s, a) alone, so p / p_θ is that of s'.

    Attributes:
        a: `[S, S]`.
        b: `[S, A]`.
        offset: `[S]`.
        noise: `[S, S]`, W, positive definite.
        initial_mean: `[S]`, of s_0 ~ N(mean, cov).
        initial_cov: `[S, S]`.
        linear: `[S]`, q.
        state_cost: `[S, S]`, Q.
        action_cost: `[A, A]`, R.
        constant: c.
    """

    a: Array
    b: Array
    offset: Array
    noise: Array
    initial_mean: Array
    initial_cov: Array
    linear: Array
    state_cost: Array
    action_cost: Array
    constant: float = 0.0

    @property
    def state_size(self) -> int:
        return int(self.a.shape[0])

    def value(
        self,
        policy: LinearGaussianPolicy,
        horizon: int,
        discount: float = 1.0,
        *,
        after: "tuple[int, LinearGaussianMDP] | None" = None,
    ) -> float:
        """v(π) = E[ Σ_{t<T} γ^t r_t ]: mean and covariance of s_t, carried forward.

        Args:
            policy: π.
            horizon: T.
            discount: γ.
            after: (H, model): from step H on, `model` moves instead: what first-H weights with
                exact ratios estimate.
        """
        mean, cov = self.initial_mean, self.initial_cov
        action_noise = np.diag(policy.scale**2)
        total = 0.0
        for t in range(horizon):
            total += discount**t * self._expected_reward(policy, mean, cov)
            mdp = self if after is None or t < after[0] else after[1]
            closed = mdp.a + mdp.b @ policy.gain
            mean = closed @ mean + mdp.b @ policy.bias + mdp.offset
            cov = closed @ cov @ closed.T + mdp.b @ action_noise @ mdp.b.T + mdp.noise
        return total

    def _expected_reward(self, policy: LinearGaussianPolicy, mean: Array, cov: Array) -> float:
        action_mean = policy.gain @ mean + policy.bias
        action_cov = policy.gain @ cov @ policy.gain.T + np.diag(policy.scale**2)
        state_part = mean @ self.state_cost @ mean + np.trace(self.state_cost @ cov)
        action_part = action_mean @ self.action_cost @ action_mean
        action_part += np.trace(self.action_cost @ action_cov)
        return float(self.constant + self.linear @ mean - state_part - action_part)

    def sample(self, state: Tensor, action: Tensor, generator: torch.Generator) -> Outcome:
        """One draw at each state `[..., n, S]` and action `[..., n, A]`."""
        shape = (state.shape[-2], self.state_size)
        noise = torch.randn(shape, generator=generator, device=state.device)
        factor = _like(np.linalg.cholesky(self.noise), state)
        next_state = self._mean(state, action) + noise @ factor.T
        never = torch.zeros(state.shape[:-1], dtype=torch.bool, device=state.device)
        return Outcome(next_state, self.reward(state, action), never, never)

    def reward(self, state: Tensor, action: Tensor) -> Tensor:
        """r(s, a) `[..., n]`"""
        state_part = (state @ _like(self.state_cost, state) * state).sum(-1)
        action_part = (action @ _like(self.action_cost, state) * action).sum(-1)
        return self.constant + state @ _like(self.linear, state) - state_part - action_part

    def initial_states(self, n: int, generator: torch.Generator) -> Tensor:
        """`[n, S]`"""
        noise = torch.randn((n, self.state_size), generator=generator)
        factor = _like(np.linalg.cholesky(self.initial_cov), noise)
        return _like(self.initial_mean, noise) + noise @ factor.T

    def log_density(self, state: Tensor, action: Tensor, outcome: Any) -> Tensor:
        """log N(s'; A s + B a + b, W) `[..., n]`, float64."""
        state, action = state.double(), action.double()
        residual = outcome.next_state.double() - self._mean(state, action)
        return _log_normal(residual, self.noise)

    def _mean(self, state: Tensor, action: Tensor) -> Tensor:
        moved = state @ _like(self.a, state).T + action @ _like(self.b, state).T
        return moved + _like(self.offset, state)


def _like(values: NDArray[np.floating[Any]], like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def _log_normal(residual: Tensor, cov: Array) -> Tensor:
    """log N(residual; 0, cov) `[..., n]`"""
    size = cov.shape[0]
    factor = _like(np.linalg.inv(np.linalg.cholesky(cov)), residual)
    z: Tensor = residual @ factor.T
    constant = -0.5 * (size * math.log(2.0 * math.pi) + float(np.linalg.slogdet(cov)[1]))
    log_density: Tensor = constant - 0.5 * z.square().sum(-1)
    return log_density

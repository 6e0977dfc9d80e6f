"""From a network's output to a value, and the values that rewards allow."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_ope.estimand import Estimand


@dataclass(frozen=True)
class ValueScale:
    """Q_t = G_k (offset + spread · output), with G_k = Σ_{j<k} γ^j of the k = T − t steps left.

    The networks learn the discounted *mean* reward of what remains, standardised by the logged
    rewards. So at every t, discount and horizon outputs are of order 1, untrained networks predict
    the log's mean reward at each step, which is nearly the behaviour's value, and V_T = 0 holds
    by itself. Without time as input k is infinite, and G = 1 / (1 − γ).

    Attributes:
        estimand: T and γ.
        steps: `[T + 1]`, G_{T − t} by t; without time a single number, `[]`.
        offset: mean logged reward.
        spread: its standard deviation.
        low: the least that G times a mean reward can be made of: the lowest logged reward, or 0
            where an episode can end.
        high: the largest.
    """

    estimand: Estimand
    steps: Tensor
    offset: float
    spread: float
    low: float
    high: float

    @classmethod
    def of(
        cls, rewards: Tensor, estimand: Estimand, *, has_time: bool, terminates: bool
    ) -> "ValueScale":
        """From the rewards `[R]` of the log."""
        discount, horizon = estimand.discount, estimand.horizon
        if has_time:
            powers = torch.tensor(discount, dtype=torch.float64) ** torch.arange(horizon)
            steps = torch.cat((powers.new_zeros(1), powers.cumsum(0))).flip(0)
        else:
            steps = torch.tensor(1.0 / (1.0 - discount))
        values = rewards.double()
        low, high, offset = float(values.min()), float(values.max()), float(values.mean())
        spread = float(values.std(correction=0))
        if spread <= 1e-6 * max(abs(low), abs(high), 1e-6):
            spread = max(abs(offset), 1e-6)
        if terminates:
            low, high = min(low, 0.0), max(high, 0.0)
        return cls(estimand, steps.float().to(rewards.device), offset, spread, low, high)

    @property
    def has_time(self) -> bool:
        return self.steps.dim() > 0

    def left(self, step: Tensor) -> Tensor:
        """G of what remains from step t on, in the shape of `step`."""
        return self.steps[step] if self.has_time else self.steps.expand(step.shape)

    def value(self, output: Tensor, left: Tensor) -> Tensor:
        return left * (self.offset + self.spread * output)

    def output(self, value: Tensor, left: Tensor) -> Tensor:
        """The inverse of `value`."""
        return (value / left - self.offset) / self.spread

    def bounded(self, value: Tensor, left: Tensor) -> Tensor:
        """The value, put on the bounds of what rewards allow."""
        return torch.minimum(torch.maximum(value, left * self.low), left * self.high)

    def beyond(self, value: Tensor, left: Tensor) -> Tensor:
        """Where a value lies outside by more than a twentieth of the largest value.

        Values of a good policy lie near a bound, and some a little beyond it: no divergence.
        """
        far = 0.05 * left * max(abs(self.low), abs(self.high))
        return (value > left * self.high + far) | (value < left * self.low - far)

    def clock(self, step: Tensor) -> Tensor:
        """`[..., 1]`, time as the networks see it, of mean 0 and variance 1; `[..., 0]` without."""
        if not self.has_time:
            return self.steps.new_empty((*step.shape, 0))
        return (step[..., None] / self.estimand.horizon - 0.5) * 12**0.5

"""The networks of the saddle point: ν, ζ and the multiplier λ, of P policies at once."""

import math

import torch
from torch import Tensor, nn

from lfiw_ope.nn.ensemble import BatchedMLP, Standardiser
from lfiw_ope.occupancy.config import DICEConfig


class SaddleNetworks(nn.Module):
    """ν and ζ of P policies, as networks of one batch: E = P.

    Every policy starts from the same weights, so that it learns the same alone and among others.
    ζ starts near 1, which is the behaviour's own ratio.

    Args:
        config: widths, positivity.
        policies: P.
        inputs: standardises states and actions `[S + A]`.
        horizon: T where time is an input, else None.
        generator: draws the initial weights; without one they are zero.
    """

    def __init__(
        self,
        config: DICEConfig,
        policies: int,
        inputs: Standardiser,
        horizon: int | None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config, self.policies, self.horizon = config, policies, horizon
        sizes = (inputs.mean.numel() + (horizon is not None), *config.hidden, 1)
        self.critic = BatchedMLP(policies, sizes, config.activation)
        self.ratio = BatchedMLP(policies, sizes, config.activation)
        self.multiplier = nn.Parameter(torch.zeros(policies, horizon or 1))
        self.inputs = inputs
        if generator is not None:
            for network in (self.critic, self.ratio):
                own = BatchedMLP(1, sizes, config.activation, generator).state_dict()
                network.load_state_dict(
                    {k: v.repeat(policies, *(1 for _ in v.shape[1:])) for k, v in own.items()}
                )

    def features(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """What the networks see, `[..., n, D]`, at states and steps of the last axes of actions."""
        shape = action.shape[:-1]
        seen = self.inputs(torch.cat((state.expand(*shape, -1), action), -1))
        if self.horizon is None:
            return seen
        clock = (step.to(seen.dtype) / self.horizon - 0.5) * 12**0.5
        return torch.cat((seen, clock.expand(shape)[..., None]), -1)

    def nu(self, features: Tensor) -> Tensor:
        """ν `[P, n]`"""
        return self.critic(features)[..., 0]

    def zeta(self, features: Tensor) -> Tensor:
        """ζ `[P, n]`"""
        output = self.ratio(features)[..., 0]
        if self.config.positivity == "square":
            return (output + 1.0).square()
        if self.config.positivity == "softplus":
            return nn.functional.softplus(output + math.log(math.e - 1.0))
        return output + 1.0

    def price(self, flow_step: Tensor, terminated: Tensor, ahead: float) -> Tensor:
        """What one unit of ω costs in λ `[P, n]`: its own mass, and what it leaves absorbed.

        Args:
            flow_step: `[n]`
            terminated: `[n]`
            ahead: γ / (1 − γ), of what is absorbed, without time.
        """
        if self.horizon is None:
            return self.multiplier * (1.0 + ahead * terminated)
        later = self.multiplier.flip(1).cumsum(1).flip(1) - self.multiplier
        return self.multiplier[:, flow_step] + later[:, flow_step] * terminated

    @torch.no_grad()
    def take(self, parts: "list[SaddleNetworks]", order: Tensor) -> None:
        """Be the networks of these parts, one after the other, policies put into this order."""
        of_each = [part.parameters() for part in parts]
        for own, *others in zip(self.parameters(), *of_each, strict=True):
            own.copy_(torch.cat(others)[order.to(own.device)])

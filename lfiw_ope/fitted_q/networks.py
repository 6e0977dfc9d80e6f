"""P · M networks, trained ones and the targets that follow them, and what goes in and comes out."""

from itertools import chain

import torch
from torch import Tensor, nn

from lfiw_ope.fitted_q.config import FQEConfig
from lfiw_ope.fitted_q.scale import ValueScale
from lfiw_ope.nn.ensemble import BatchedMLP, Standardiser


class ValueNetworks(nn.Module):
    """Q of P policies by M members each, as networks of one batch: E = P · M, policy by policy.

    Every policy starts from the same weights, so that it learns the same alone and among others.

    Args:
        config: widths, members.
        policies: P.
        inputs: standardises states and actions `[S + A]`.
        scale: from outputs to values.
        generator: draws the initial weights; without one they are zero.
    """

    def __init__(
        self,
        config: FQEConfig,
        policies: int,
        inputs: Standardiser,
        scale: ValueScale,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config, self.policies, self.scale = config, policies, scale
        self.inputs = inputs
        sizes = (inputs.mean.numel() + scale.has_time, *config.hidden, 1)
        members, activation = config.members, config.activation
        self.trained = BatchedMLP(policies * members, sizes, activation)
        self.following = BatchedMLP(policies * members, sizes, activation)
        if generator is not None:
            own = BatchedMLP(members, sizes, activation, generator).state_dict()
            every = {
                name: values.repeat(policies, *(1 for _ in values.shape[1:]))
                for name, values in own.items()
            }
            self.trained.load_state_dict(every)
            self.following.load_state_dict(every)
        self.following.requires_grad_(False)
        self.trained.biases[-1].requires_grad_(False)  # `shift` alone moves it

    def features(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """What the networks see, `[..., D]`, of states, actions and steps of these leading axes."""
        clock = self.scale.clock(step)
        shape = action.shape[:-1]
        parts = (state.expand(*shape, -1), action)
        return torch.cat((self.inputs(torch.cat(parts, -1)), clock.expand(*shape, -1)), -1)

    def outputs(self, network: BatchedMLP, features: Tensor) -> Tensor:
        """`[P, M, n]` from `[P or 1, M or 1, n, D]`."""
        policies, members = self.policies, self.config.members
        rows = features.expand(policies, members, -1, -1).flatten(0, 1)
        found: Tensor = network(rows)[..., 0]
        return found.view(policies, members, -1)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the following networks by τ towards the trained ones."""
        following: list[Tensor] = list(self.following.parameters())
        torch._foreach_lerp_(following, list[Tensor](self.trained.parameters()), self.config.tau)

    @torch.no_grad()
    def shift(self, output: Tensor) -> None:
        """Add a constant `[P, M]` to the outputs of trained and following networks."""
        for network in (self.trained, self.following):
            network.biases[-1].add_(output.float().view(-1, 1, 1))

    @torch.no_grad()
    def take(self, parts: list["ValueNetworks"], order: Tensor) -> None:
        """Be the networks of these parts, one after the other, policies put into this order."""
        members = self.config.members
        places = (order[:, None] * members + torch.arange(members)).flatten()
        for name in ("trained", "following"):
            of_each = [getattr(part, name).parameters() for part in parts]
            for own, *others in zip(getattr(self, name).parameters(), *of_each, strict=True):
                own.copy_(torch.cat(others)[places.to(own.device)])

    def finite(self) -> bool:
        every = chain(self.trained.parameters(), self.following.parameters())
        return all(bool(values.isfinite().all()) for values in every)

"""Policies that are fully connected networks: what PPO and its kin train."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lfiw_ope.errors import PolicyError
from lfiw_ope.nn.ensemble import BatchedMLP
from lfiw_ope.policies.heads import NO_DENSITY, CategoricalHead, GaussianHead


class MLPPolicy(nn.Module):
    """P policies of one architecture in one batched call; a single policy is a stack of one.

    Args:
        network: the E axis is the policy axis P.
        head: what the network's outputs mean.
        deterministic: act by the head's mode, without noise; there is then no density.

    Raises:
        PolicyError: if the head's shapes do not fit the network.
    """

    def __init__(
        self,
        network: BatchedMLP,
        head: GaussianHead | CategoricalHead,
        *,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        shape = (network.members, network.sizes[-1])
        if isinstance(head, GaussianHead) and tuple(head.log_std.shape) != shape:
            raise PolicyError(
                f"log_std has shape {tuple(head.log_std.shape)}; the network gives {shape[0]} "
                f"policies of {shape[1]} action entries, so it must be {shape}."
            )
        if not all(values.isfinite().all() for values in network.parameters()):
            raise PolicyError("The policy's network has weights that are not finite.")
        self.network = network
        self.head = head
        self.deterministic = deterministic
        self.requires_grad_(False)

    @classmethod
    def from_layers(
        cls,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        head: GaussianHead | CategoricalHead,
        *,
        activation: str,
        deterministic: bool = False,
    ) -> "MLPPolicy":
        """A single policy from its layers: weights `[in, out]` and biases `[out]`."""
        sizes = (weights[0].shape[0], *(weight.shape[1] for weight in weights))
        network = BatchedMLP(1, sizes, activation)
        layers = {f"weights.{i}": weight.detach()[None] for i, weight in enumerate(weights)}
        layers |= {f"biases.{i}": bias.detach()[None, None] for i, bias in enumerate(biases)}
        network.load_state_dict(layers)
        return cls(network, head, deterministic=deterministic)

    @property
    def state_size(self) -> int:
        return self.network.sizes[0]

    @property
    def action_size(self) -> int:
        return self.network.sizes[-1]

    @property
    def stack_key(self) -> Hashable:
        return self.network.sizes, self.network.activation, self.head.name, self.deterministic

    def stack(self, others: Sequence["MLPPolicy"]) -> "MLPPolicy":
        """One policy of all these policies' axes P, one after the other; a copy."""
        every = (self, *others)
        members = sum(one.network.members for one in every)
        network = BatchedMLP(members, self.network.sizes, self.network.activation)
        network.load_state_dict(
            {
                name: torch.cat([one.network.state_dict()[name] for one in every])
                for name in network.state_dict()
            }
        )
        heads: Any = [one.head for one in others]  # of one kind: stack_key says so
        head = self.head.stack(heads)
        return MLPPolicy(network, head, deterministic=self.deterministic)

    def outputs(self, state: Tensor) -> Tensor:
        """The network at states `[P, n, S]`, or `[n, S]` of a single policy."""
        output: Tensor = self.network(state if state.dim() == 3 else state[None])
        return output.view(*state.shape[:-1], -1)

    def propose(self, state: Tensor, generator: torch.Generator) -> Tensor:
        return self.head.propose(self.outputs(state), None if self.deterministic else generator)

    def execute(self, proposed: Tensor) -> Tensor:
        return self.head.execute(proposed)

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        return self.execute(self.propose(state, generator))

    def log_prob(self, state: Tensor, proposed: Tensor) -> Tensor:
        """log π of a proposed action, before clipping.

        Raises:
            PolicyError: if the policy is deterministic.
        """
        if self.deterministic:
            raise PolicyError(NO_DENSITY)
        return self.head.log_prob(self.outputs(state), proposed)

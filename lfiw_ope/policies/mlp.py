"""Fully connected policies, and normalisation of their observations."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import PolicyError
from lfiw_ope.nn.batched_mlp import BatchedMLP
from lfiw_ope.policies.acting import HeadPolicy
from lfiw_ope.policies.heads import ContinuousHead, Head, Output


class ObservationNormaliser(nn.Module):
    """clip((state − mean) / std, ± limit), for P policies; in float64, as VecNormalize's.

    Args:
        mean: `[P, S]`
        std: `[P, S]`, √(variance + ε).
        limit: `[P, 1]`, clip_obs.

    Raises:
        PolicyError: if the shapes disagree, or a number is not finite or a std not positive.
    """

    mean: Tensor
    std: Tensor
    limit: Tensor

    def __init__(self, mean: Tensor, std: Tensor, limit: Tensor) -> None:
        super().__init__()
        if mean.shape != std.shape or mean.dim() != 2 or limit.shape != (len(mean), 1):
            raise PolicyError(
                f"The normaliser's mean, std and limit have shapes {tuple(mean.shape)}, "
                f"{tuple(std.shape)} and {tuple(limit.shape)}; expected [P, S], [P, S] and [P, 1]."
            )
        if not mean.isfinite().all() or not std.isfinite().all() or not (std > 0).all():
            raise PolicyError(
                "The normaliser's mean or standard deviation is not finite or not positive."
            )
        for name, values in (("mean", mean), ("std", std), ("limit", limit)):
            self.register_buffer(name, values.detach().clone().double())

    @classmethod
    def of(
        cls, mean: ArrayLike, variance: ArrayLike, *, epsilon: float, clip: float
    ) -> "ObservationNormaliser":
        """One policy's, from VecNormalize's own numbers; statistics of any shape are flattened."""
        flat_mean, flat_variance = (
            torch.from_numpy(np.array(values, np.float64).reshape(1, -1))
            for values in (mean, variance)
        )
        limit = torch.full((1, 1), float(clip), dtype=torch.float64)
        return cls(flat_mean, torch.sqrt(flat_variance + float(epsilon)), limit)

    @classmethod
    def from_vec_normalize(cls, wrapper: Any) -> "ObservationNormaliser | None":
        """A copy of a VecNormalize's statistics as they are now; None where it has `norm_obs` off.

        Raises:
            PolicyError: if it normalises dictionaries.
        """
        if not wrapper.norm_obs:
            return None
        if isinstance(wrapper.obs_rms, dict):
            raise PolicyError("The VecNormalize is of Dict observations; only Box works.")
        statistics = wrapper.obs_rms
        return cls.of(
            statistics.mean, statistics.var, epsilon=wrapper.epsilon, clip=wrapper.clip_obs
        )

    @property
    def state_size(self) -> int:
        return self.mean.shape[1]

    def stack(self, others: Sequence["ObservationNormaliser"]) -> "ObservationNormaliser":
        every = (self, *others)
        return ObservationNormaliser(
            torch.cat([one.mean for one in every]),
            torch.cat([one.std for one in every]),
            torch.cat([one.limit for one in every]),
        )

    def forward(self, state: Tensor) -> Tensor:
        """States `[P, n, S]`, or `[n, S]` of a single policy."""
        mean, std, limit = (
            values[:, None] if state.dim() == 3 else values
            for values in (self.mean, self.std, self.limit)
        )
        return torch.clamp((state.double() - mean) / std, -limit, limit).to(state.dtype)


class MLPPolicy(HeadPolicy):
    """P policies of one architecture in one batched call; a single policy is a stack of one.

    Args:
        network: the E axis is the policy axis P.
        head: what the network's outputs mean.
        deterministic: act by the head's mode, without noise; there is then no density.
        normaliser: applied to states before the network.

    Raises:
        PolicyError: if the head's or normaliser's shapes do not fit the network.
    """

    def __init__(
        self,
        network: BatchedMLP,
        head: Head,
        *,
        deterministic: bool = False,
        normaliser: ObservationNormaliser | None = None,
    ) -> None:
        super().__init__(head, deterministic=deterministic)
        if not all(values.isfinite().all() for values in network.parameters()):
            raise PolicyError("The policy's network has weights that are not finite.")
        self.network = network
        self.normaliser = normaliser
        self._check_shapes()
        self.requires_grad_(False)

    def _check_shapes(self) -> None:
        members = self.network.members
        if isinstance(self.head, ContinuousHead) and len(self.head.low) != members:
            raise PolicyError(
                f"The head is of {len(self.head.low)} policies and the network of {members}; "
                "they must be the same."
            )
        width = self.network.sizes[-2]
        std = self.head.arguments().get("std")
        if std is not None and tuple(std.shape[:2]) != (members, width):
            raise PolicyError(
                f"gSDE's std has shape {tuple(std.shape)}; the network's last hidden layer has "
                f"{width} entries."
            )
        self.head.action_size(self.network.sizes[-1])
        if self.normaliser is not None and self.normaliser.mean.shape != (members, self.state_size):
            raise PolicyError(
                f"The normaliser's mean has shape {tuple(self.normaliser.mean.shape)}; the network "
                f"takes {self.state_size} state entries for each of {members} policies."
            )

    @classmethod
    def from_layers(
        cls,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        head: Head,
        *,
        activation: str,
        deterministic: bool = False,
        normaliser: ObservationNormaliser | None = None,
    ) -> "MLPPolicy":
        """A single policy from its layers: weights `[in, out]` and biases `[out]`."""
        sizes = (weights[0].shape[0], *(weight.shape[1] for weight in weights))
        network = BatchedMLP(1, sizes, activation)
        layers = {f"weights.{i}": weight.detach()[None] for i, weight in enumerate(weights)}
        layers |= {f"biases.{i}": bias.detach()[None, None] for i, bias in enumerate(biases)}
        network.load_state_dict(layers)
        return cls(network, head, deterministic=deterministic, normaliser=normaliser)

    @property
    def state_size(self) -> int:
        return self.network.sizes[0]

    @property
    def action_size(self) -> int:
        return self.head.action_size(self.network.sizes[-1])

    @property
    def action_spec(self) -> ActionSpec:
        """What an action is, and its bounds."""
        return self.head.action_spec(self.network.sizes[-1])

    @property
    def stack_key(self) -> Hashable:
        network, arguments = self.network, self.head.arguments()
        flags = tuple(value for value in arguments.values() if not isinstance(value, Tensor))
        head = self.head.name, flags, self.deterministic
        return network.sizes, network.activation, head, self.normaliser is None

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
        rest: Any = [(one.head, one.normaliser) for one in others]  # of one kind: stack_key says so
        normaliser = self.normaliser
        if normaliser is not None:
            normaliser = normaliser.stack([of_one for _, of_one in rest])
        return MLPPolicy(
            network,
            self.head.stack([head for head, _ in rest]),
            deterministic=self.deterministic,
            normaliser=normaliser,
        )

    def outputs(self, state: Tensor) -> Output:
        """The network at states `[P, n, S]`, or `[n, S]` of a single policy."""
        if self.normaliser is not None:
            state = self.normaliser(state)
        rows = state if state.dim() == 3 else state[None]
        shape = state.shape[:-1]
        if not self.head.reads_latent:
            return Output(self.network(rows).view(*shape, -1))
        latent = self.network.hidden(rows)
        value = self.network.last(latent).view(*shape, -1)
        return Output(value, latent.reshape(*shape, latent.shape[-1]))

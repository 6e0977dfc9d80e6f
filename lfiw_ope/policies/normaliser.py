"""Observations standardised as stable-baselines3's `VecNormalize` does."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lfiw_ope.errors import PolicyError


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

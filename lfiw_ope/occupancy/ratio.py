"""The fitted occupancy ratio of P policies, to be asked at any state, action and step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_ope.data.tensors import ROWS_AT_ONCE
from lfiw_ope.occupancy.networks import SaddleNetworks
from lfiw_ope.occupancy.report import RatioReport


@dataclass(frozen=True)
class OccupancyRatio:
    """ω = d^π / d^D of P policies, self-normalised over the episodes that it was fitted to.

    Without time, d^π is the discounted, normalised occupancy and d^D the logged transitions, all
    alike. With time, ω_t is of step t of π over step t of the log. Where episodes terminate, ω has
    mass below 1, by what the absorbing state holds; see `lfiw_ope.occupancy.flow`.

    Attributes:
        networks: ζ is the ratio before it is normalised.
        factors: `[P, T]` float64, what ζ_t is multiplied by; `[P, 1]` without time.
        values: `[P]` float64, of the policies: mean rewards weighted by ω.
        reports: how the training went, by policy.
    """

    networks: SaddleNetworks
    factors: Tensor
    values: Tensor
    reports: tuple[RatioReport, ...]

    @property
    def has_time(self) -> bool:
        """Whether ω depends on the step."""
        return self.networks.horizon is not None

    @torch.no_grad()
    def ratio(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """ω `[P, n]` float64 at states `[n, S]`, actions `[n, A]` and steps t `[n]`, below T.

        Without time as input, the steps are not looked at.
        """
        factors = self.factors.to(state.device)
        found = []
        for start in range(0, len(state), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            features = self.networks.features(state[rows], action[rows], step[rows])
            place = step[rows] if self.has_time else torch.zeros_like(step[rows])
            found.append(self.networks.zeta(features).double() * factors[:, place])
        return torch.cat(found, -1)

"""Each row through one network drawn at random, at the cost of one network.

Members of an ensemble are dealt to rows evenly: a random permutation, cut into M equal hands.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Deal(NamedTuple):
    """Which of n rows each of M members gets; the P policies of a batch share one deal.

    Attributes:
        rows: `[M, P, h]`, the flat row (of P · n) at each of a member's h = ceil(n / M) places;
            places that are left over hold some row, unused.
        places: `[P · n]`, the flat place (of M · P · h) of each row.
    """

    rows: Tensor
    places: Tensor

    @classmethod
    def draw(
        cls, n: int, members: int, device: torch.device, generator: torch.Generator, policies: int
    ) -> "Deal":
        hand = math.ceil(n / members)
        slot = torch.randperm(members * hand, generator=generator, device=device)
        of_policy = torch.arange(policies, device=device)[:, None]
        rows = of_policy * n + slot.clamp_max(n - 1).view(members, 1, hand)
        taken = torch.empty_like(slot)
        taken[slot] = torch.arange(len(slot), device=device)
        member, place = taken[:n] // hand, taken[:n] % hand
        places = (member * policies + of_policy) * hand + place
        return cls(rows, places.flatten())

    def member(self, n: int) -> Tensor:
        """`[n]` int64, the member of each row; policies share it."""
        policies, hand = self.rows.shape[1:]
        return self.places[:n] // (policies * hand)

    def out(self, rows: Tensor) -> Tensor:
        """`[P, n, D] -> [M, P · h, D]`"""
        dealt = rows.flatten(0, 1).index_select(0, self.rows.flatten())
        return dealt.view(self.rows.shape[0], -1, rows.shape[-1])

    def back(self, dealt: Tensor) -> Tensor:
        """The inverse: `[M, P · h, D] -> [P, n, D]`."""
        policies = self.rows.shape[1]
        rows = dealt.flatten(0, 1).index_select(0, self.places)
        return rows.view(policies, -1, dealt.shape[-1])

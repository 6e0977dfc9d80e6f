"""Each row through one network drawn at random, at the cost of one network.

Members of an ensemble are dealt to rows evenly: a random permutation, cut into M equal hands.
"""

import math

import torch
from torch import Tensor


def deal(n: int, members: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """`[M, ceil(n / M)]`, which row each member gets at each place; n and above is nobody."""
    places = members * math.ceil(n / members)
    return torch.randperm(places, generator=generator, device=device).view(members, -1)


def hand_out(rows: Tensor, slot: Tensor) -> Tensor:
    """`[P, n, D] -> [M, P · ceil(n / M), D]`; nobody's places hold some row, unused."""
    members, hand = slot.shape
    dealt = rows[:, slot.clamp_max(rows.shape[1] - 1).view(-1)]
    return dealt.view(rows.shape[0], members, hand, -1).transpose(0, 1).flatten(1, 2)


def take_back(dealt: Tensor, slot: Tensor, n: int) -> Tensor:
    """The inverse: `[M, P · ceil(n / M), D] -> [P, n, D]`."""
    members, hand = slot.shape
    rows = dealt.view(members, -1, hand, dealt.shape[-1]).transpose(0, 1).flatten(1, 2)
    return rows[:, torch.argsort(slot.view(-1))[:n]]

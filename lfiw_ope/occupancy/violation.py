"""By how much a ratio violates the flow equation, on test functions."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lfiw_ope.data.tensors import ROWS_AT_ONCE, DeviceLog
from lfiw_ope.occupancy.flow import LoggedFlow
from lfiw_ope.occupancy.networks import SaddleNetworks
from lfiw_ope.policies.together import TargetPolicies
from lfiw_ope.seeding import derive
from lfiw_ope.types import Policy


class Violation(NamedTuple):
    """Of P policies, `[P]` float64 each: see `lfiw_ope.occupancy.report.RatioReport`."""

    ratio: Tensor
    behaviour: Tensor
    behaviour_z: Tensor
    left: Tensor


TESTS_AT_ONCE = 1 << 25
"""Values of test functions that are held together: 256 MB an array."""


def violation(
    networks: SaddleNetworks,
    log: DeviceLog,
    flow: LoggedFlow,
    initial_states: Tensor,
    policies: Sequence[Policy],
    ratio: Tensor,
    seed: int,
) -> Violation:
    """The equation's left side with ω, and with the behaviour's own occupancy.

    Args:
        networks: what standardises states, actions and steps.
        log: the log.
        flow: its rows.
        initial_states: `[N, S]`, of the episodes that the rows are of.
        policies: P.
        ratio: `[P, R']`, ω.
        seed: of the policies' noise: one action at each state.
    """
    tests = (2 if networks.horizon is None else 4) * networks.inputs.mean.numel()
    largest = max(1, TESTS_AT_ONCE // (tests * max(2 * len(initial_states), ROWS_AT_ONCE)))
    found = []
    for start in range(0, len(policies), largest):
        some = slice(start, start + largest)
        acting = TargetPolicies(policies[some], log.rewards.device)
        found.append(_of_some(networks, log, flow, initial_states, acting, ratio[some], seed))
    return Violation(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _of_some(
    networks: SaddleNetworks,
    log: DeviceLog,
    flow: LoggedFlow,
    initial_states: Tensor,
    acting: TargetPolicies,
    ratio: Tensor,
    seed: int,
) -> Violation:
    """Of policies few enough for memory."""
    episodes, count = len(initial_states), len(flow.rows)
    zeros = torch.zeros(episodes, dtype=torch.int64, device=log.rewards.device)
    first = acting.act(initial_states, derive(seed, "dice", "violation", "start"))
    start = flow.start * _tests(networks, initial_states, first, zeros)
    by_episode = torch.stack((start, start))  # [2, P, N, K], by ω and by the behaviour
    each = flow.weight * (episodes / count)
    for part, places in enumerate(
        torch.split(torch.arange(count, device=zeros.device), ROWS_AT_ONCE)
    ):
        logged, step = log.at(flow.rows[places]), flow.step[places]
        after = acting.act(logged.next_state, derive(seed, "dice", "violation", str(part)))
        here = _tests(networks, logged.state, logged.action[None], step)
        there = _tests(networks, logged.next_state, after, step + 1)
        change = flow.onwards[places, None] * there - here
        change = each[places, None] * change
        for side, omega in enumerate((ratio[:, places], flow.own[places])):
            by_episode[side].index_add_(1, flow.episode[places], omega[..., None] * change)
    size, error = by_episode.mean(2), by_episode.std(2) / episodes**0.5
    found = size.square().mean(-1).sqrt() / flow.start
    z = (size[1].abs() / error[1].clamp_min(1e-12)).amax(-1)
    along = (size[0] * size[1]).sum(-1) / size[1].square().sum(-1).clamp_min(1e-300)
    return Violation(found[0].cpu(), found[1].cpu(), z.cpu(), along.cpu())


@torch.no_grad()
def _tests(networks: SaddleNetworks, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
    """Test functions `[P or 1, n, K]` float64."""
    features = networks.features(state, action, step).double()
    if networks.horizon is None:
        return torch.cat((features, features.square()), -1)
    features, clock = features[..., :-1], features[..., -1:]
    both = torch.cat((features, features.square()), -1)
    return torch.cat((both, both * clock), -1)

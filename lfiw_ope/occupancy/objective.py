"""The regularised Lagrangian as one loss, and what is recorded as training goes."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.occupancy.flow import LoggedFlow
from lfiw_ope.occupancy.networks import SaddleNetworks
from lfiw_ope.policies.together import TargetPolicies


class Lagrangian:
    """min over ν and λ, max over ζ ≥ 0 of (Yang et al. 2020, equation 8, with f(x) = ½ x²)

        c E[ν(s_0, a_0)] + λ + E_D[ζ (α_R r + γ (1 − terminated) ν(s', a') − ν(s, a) − λ)]
            + α_ν ½ E_D[ν²] − α_ζ ½ E_D[ζ²]

    with the weights, the c and the absorbing state of `lfiw_ope.occupancy.flow`. ν(s', a') enters
    linearly, so a single draw a' ~ π and a single s' leave the gradient unbiased. One step goes
    down in ν and λ and up in ζ: each sees the other as it was. Batches and the noise of actions
    are shared by the policies.

    Args:
        networks: ν, ζ and λ.
        log: on the networks' device.
        flow: the rows, and what they weigh.
        initial_states: `[N, S]`
        acting: the P policies.
        next_actions: `[P, R', A]` of policies without noise; None draws them at every update.
        watched: places among the rows where looks record the value.
        seed: of the actions' noise.
    """

    batches = 1

    def __init__(
        self,
        networks: SaddleNetworks,
        log: DeviceLog,
        flow: LoggedFlow,
        initial_states: Tensor,
        acting: TargetPolicies,
        *,
        next_actions: Tensor | None,
        watched: Tensor,
        seed: int,
    ) -> None:
        self.networks, self.log, self.flow = networks, log, flow
        self.averaged = copy.deepcopy(networks).requires_grad_(False)
        self.config, self.acting, self.seed = networks.config, acting, seed
        self.initial_states, self.next_actions = initial_states, next_actions
        self.rows = len(flow.rows)
        self.onwards, self.weight = flow.onwards.float(), flow.weight.float()
        rewards = log.rewards[flow.rows].double()
        spread = float(rewards.std(correction=0))
        scale = spread if spread > 1e-6 * float(rewards.abs().max()) else 1.0
        each = flow.reward_weight / flow.reward_weight.max().clamp_min(1e-300)
        self.rewards = (self.config.reward * each * rewards / scale).float()
        self.updates = 0
        self.looks: list[Tensor] = []
        self._watched = watched
        self._earned = flow.weight[watched] * flow.reward_weight[watched] * rewards[watched]

    def content(self) -> tuple[str, Sequence[Tensor]]:
        settings = f"{self.config} {self.flow.estimand} {self.acting.count} {self.seed}"
        return settings, (self.flow.rows, self.flow.step, self.rewards, self.initial_states)

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        chosen, networks, flow = rows[0], self.networks, self.flow
        step, terminated = flow.step[chosen], flow.terminated[chosen]
        logged = self.log.at(flow.rows[chosen])
        here = networks.features(logged.state, logged.action, step)
        some = torch.randint(
            len(self.initial_states), chosen.shape, generator=generator, device=chosen.device
        )
        nu, nu_next, nu_start = self._nus(
            here, logged.next_state, chosen, self.initial_states[some]
        )
        zeta = networks.zeta(here)
        change = self.rewards[chosen] + self.onwards[chosen] * nu_next - nu
        weight = self.weight[chosen]
        loss = flow.start * nu_start.mean(-1)
        if self.config.normalise:
            discount = flow.estimand.discount
            ahead = 0.0 if flow.has_time else discount / (1.0 - discount)
            change = change - networks.price(step, terminated.float(), ahead)
            loss = loss + networks.multiplier.mean(-1)
        loss = loss + (weight * zeta.detach() * change).mean(-1)
        loss = loss + self.config.primal_regulariser * 0.5 * (weight * nu.square()).mean(-1)
        gain = zeta * change.detach() - self.config.dual_regulariser * 0.5 * zeta.square()
        return loss - (weight * gain).mean(-1)

    def _nus(
        self, here: Tensor, next_state: Tensor, chosen: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """ν `[P, B]` at (s, a), (s', a') and (s_0, a_0), in one pass."""
        networks, policies = self.networks, self.acting.count
        if self.next_actions is None:
            both = self.acting.act(torch.cat((next_state, start)), self.seed + self.updates)
            after, first = torch.split(both, [len(next_state), len(start)], 1)
        else:
            after = self.next_actions[:, chosen]
            first = self.acting.act(start, self.seed)
        step = self.flow.step[chosen]
        there = networks.features(next_state, after, step + 1)
        begun = networks.features(start, first, torch.zeros_like(step))
        rows = torch.cat((here.expand(policies, -1, -1), there, begun), 1)
        nu, nu_next, nu_start = torch.split(
            networks.nu(rows), [len(step), len(step), len(start)], 1
        )
        return nu, nu_next, nu_start

    @torch.no_grad()
    def updated(self) -> None:
        """Keep the running mean of the weights over the second half of the training."""
        self.updates += 1
        since = self.updates - self.config.fit.updates // 2
        if since > 0:
            mean: list[Tensor] = list(self.averaged.parameters())
            torch._foreach_lerp_(mean, list[Tensor](self.networks.parameters()), 1.0 / since)

    def held_out_loss(self) -> None:
        """Nothing is held out: a lower Lagrangian is no better one. A look records values."""
        halfway = self.updates > self.config.fit.updates // 2
        networks = self.averaged if halfway else self.networks
        ratio = ratios(networks, self.log, self.flow, self._watched)
        part = self.flow.at(self._watched)
        scaled = ratio * part.normalisers(ratio)[:, part.step]
        self.looks.append((scaled * self._earned).mean(-1).cpu())


@torch.no_grad()
def ratios(networks: SaddleNetworks, log: DeviceLog, flow: LoggedFlow, places: Tensor) -> Tensor:
    """ζ `[P, n]` float64, at these places among the rows."""
    found = []
    for some in torch.split(places, 1 << 13):
        logged = log.at(flow.rows[some])
        features = networks.features(logged.state, logged.action, flow.step[some])
        found.append(networks.zeta(features).double())
    return torch.cat(found, -1)

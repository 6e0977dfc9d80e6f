"""What fitted Q evaluation minimises, and what it records as it goes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lfiw_ope.data.member_rows import MemberRows
from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.fitted_q.networks import ValueNetworks
from lfiw_ope.policies.together import TargetPolicies

ROWS_AT_A_LOOK = 1 << 12
"""Transitions of each member that the mean TD error is taken over, drawn anew every time."""


@dataclass
class Course:
    """What training went through, kept on its device until a look asks for it.

    Attributes:
        error: `[P, M]`, sum of squared TD errors since the last look, in units of value squared.
        beyond: `[P, M]`, sum of the shares of bootstrapped values that were bounded.
        updates: since the last look.
        looks: at each, the values at some initial states `[P, M]`, mean squared TD error and share
            bounded since the look before.
    """

    error: Tensor
    beyond: Tensor
    updates: int = 0
    looks: list[Tensor] = field(default_factory=list)

    def add(self, error: Tensor, beyond: Tensor) -> None:
        self.error += error
        self.beyond += beyond
        self.updates += 1

    def look(self, value: Tensor) -> None:
        """Record the values `[P, M]`, and start counting anew."""
        since = max(1, self.updates)
        found = torch.stack((value.double(), self.error / since, self.beyond / since))
        self.looks.append(found.cpu())
        self.error.zero_()
        self.beyond.zero_()
        self.updates = 0

    @property
    def record(self) -> Tensor:
        """`[looks, 3, P, M]`: value, mean squared TD error, share bounded."""
        return torch.stack(self.looks)


class BellmanError:
    """E[(Q_t(s, a) − r − γ (1 − terminated) V_{t+1}(s'))²] on logged transitions.

    V is the following networks' mean over K actions of the target policy, and t is drawn uniformly
    from all steps of the horizon, whatever the step that the transition was logged at: rewards and
    dynamics do not depend on it. Batches, steps and the noise of actions are shared by the
    policies.

    Args:
        networks: of the P policies.
        log: on their device.
        rows: of the members.
        policies: P.
        samples: K.
        next_actions: `[P, R, A]`, at the state that follows each transition, of policies that have
            no noise; None where they are drawn at every update.
        initial: `[P, K', n, D]`, features of initial states under the policies' actions.
        seed: of the actions' noise.
    """

    def __init__(
        self,
        networks: ValueNetworks,
        log: DeviceLog,
        rows: MemberRows,
        policies: TargetPolicies,
        *,
        samples: int,
        next_actions: Tensor | None,
        initial: Tensor,
        seed: int,
    ) -> None:
        self.networks, self.log, self.members = networks, log, rows
        self.policies, self.samples = policies, samples
        self.next_actions, self.initial, self.seed = next_actions, initial, seed
        self.rows, self.batches = rows.below, len(rows.size)
        self.updates = 0
        self.looking = torch.Generator(log.rewards.device).manual_seed(seed)
        count = policies.count, self.batches
        zero = torch.zeros(count, dtype=torch.float64, device=log.rewards.device)
        self.course = Course(zero, zero.clone())

    def content(self) -> tuple[str, Sequence[Tensor]]:
        return repr(self.networks.config), (*self.log, self.members.rows, self.initial)

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        networks, scale = self.networks, self.networks.scale
        chosen = self.members.pick(rows)
        logged = self.log.at(chosen)
        step = torch.randint(
            scale.estimand.horizon, rows.shape, generator=generator, device=rows.device
        )
        left, after = scale.left(step), scale.left(step + 1)
        found = self._next_value(logged.next_state, chosen, step + 1)
        following, beyond = scale.bounded(found, after), scale.beyond(found, after)
        going_on = ~logged.terminated
        discount = scale.estimand.discount
        target = logged.reward + discount * torch.where(going_on, following, 0.0)
        features = networks.features(logged.state, logged.action, step)
        output = networks.outputs(networks.trained, features[None])
        error = output - scale.output(target, left)
        with torch.no_grad():
            of_value = (error * left * scale.spread).square().mean(-1)
            self.course.add(of_value, (beyond & going_on).double().mean(-1))
        return error.square().mean(-1).flatten()

    @torch.no_grad()
    def _next_value(self, state: Tensor, chosen: Tensor, step: Tensor) -> Tensor:
        """V `[P, M, B]` at the next states `[M, B, S]` of the chosen transitions."""
        networks, scale = self.networks, self.networks.scale
        members, batch = chosen.shape
        if self.next_actions is None:
            drawn = self.policies.samples(state.flatten(0, 1), self.samples, self._fresh_seed())
            actions = drawn.view(len(drawn), self.samples, members, batch, -1).transpose(1, 2)
        else:
            stored = self.next_actions[:, chosen.flatten()]
            actions = stored.view(len(stored), members, 1, batch, -1)
        # [P, M, K, B, D]: the K draws at a state are further rows of its member's batch.
        features = networks.features(state[:, None], actions, step[:, None])
        output = networks.outputs(networks.following, features.flatten(2, 3))
        output = output.view(*features.shape[:-1]).mean(2)
        return scale.value(output, scale.left(step))

    def _fresh_seed(self) -> int:
        return self.seed + self.updates

    def updated(self) -> None:
        self.networks.follow()
        self.updates += 1
        if self.updates % self.networks.config.fit.evaluate_every == 0:
            self._balance()

    def held_out_loss(self) -> None:
        """Nothing is held out, as the targets are the networks' own; a look records the values."""
        self.course.look(initial_value(self.networks, self.initial))

    @torch.no_grad()
    def _balance(self) -> None:
        """Add to each Q the constant reward for every step left that makes its mean TD error 0.

        A constant is what bootstrapping learns slowest: it shrinks by γ each time that the targets
        have moved to what was learned, 1 / τ updates or more, and one sum solves for it. Q is a
        fixed point of both. In the second half of the training the steps are averaged, so that
        the noise of these rows is, too.
        """
        networks, scale, log = self.networks, self.networks.scale, self.log
        count = len(self.members.size), ROWS_AT_A_LOOK
        device = log.rewards.device
        rows = torch.randint(self.rows, count, generator=self.looking, device=device)
        step = torch.randint(scale.estimand.horizon, count, generator=self.looking, device=device)
        chosen = self.members.pick(rows)
        logged = log.at(chosen)
        going_on = scale.estimand.discount * (~logged.terminated).float()
        features = networks.features(logged.state, logged.action, step)
        left, after = scale.left(step), scale.left(step + 1)
        value = scale.value(networks.outputs(networks.following, features[None]), left)
        found = self._next_value(logged.next_state, chosen, step + 1)
        following = scale.bounded(found, after)
        error = (logged.reward + going_on * following - value).double().mean(-1)
        # A constant c for each step left changes Q by c · left and, where it is not bounded, V by
        # c · after; so it changes the mean TD error by −c times this.
        moving = going_on * (found == following)
        change = (left - moving * after).double().mean(-1)
        config = networks.config.fit
        weight = 1.0 / max(1.0, (self.updates - 0.5 * config.updates) / config.evaluate_every)
        networks.shift(weight * error / change / scale.spread)


@torch.no_grad()
def initial_value(networks: ValueNetworks, features: Tensor) -> Tensor:
    """Mean over states and draws `[P, M]` of V_0, from features `[P, K, n, D]`, float64."""
    scale = networks.scale
    output = networks.outputs(networks.following, features.flatten(1, 2)[:, None])
    left = scale.left(torch.zeros((), dtype=torch.int64, device=output.device))
    return scale.value(output.double(), left.double()).mean(-1)

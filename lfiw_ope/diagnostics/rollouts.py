"""Where simulated rollouts go: outside the logged states, or where members disagree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.core.policy_batch import group_policies
from lfiw_ope.core.protocols import Policy, Progress
from lfiw_ope.core.seeding import derive, torch_generator
from lfiw_ope.data.tensors import DeviceLog, thin
from lfiw_ope.diagnostics.config import DiagnosisConfig
from lfiw_ope.diagnostics.support import StateSupport
from lfiw_ope.dynamics.ensemble import EnsembleDynamics
from lfiw_ope.dynamics.rollout import ROWS_AT_ONCE, Watch, simulate
from lfiw_ope.nn.training import autocast


def _means(dynamics: EnsembleDynamics, state: Tensor, action: Tensor) -> Tensor:
    """`[M, B, S + 1]`, in standardised units of a step."""
    with autocast(state.device, dynamics.config.fit.precision):
        return dynamics.member_outputs(state, action).mean.float()


@torch.no_grad()
def mean_step(dynamics: EnsembleDynamics, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Next states `[M, B, S]` and rewards `[M, B]`, each member's own mean at its own rows.

    Args:
        dynamics: the ensemble.
        state: `[M, B, S]`
        action: `[M, B, A]`
    """
    found = dynamics.targets.inverse(_means(dynamics, state, action))
    found[..., :-1] += state
    kept = torch.clamp(found, dynamics.low, dynamics.high)
    next_state, reward = kept[..., :-1], kept[..., -1]
    if dynamics.reward_rule is not None:
        reward = dynamics.reward_rule(state, action, next_state)
    return next_state, reward


@torch.no_grad()
def spread(dynamics: EnsembleDynamics, state: Tensor, action: Tensor) -> Tensor:
    """How far the members are apart at rows `[B, ·]`, `[B]`.

    The mean over the entries of a step of the standard deviation of the members' means, in standard
    deviations of what a step does in the log. A reward that is known is no entry.

    Raises:
        ValueError: if there is a single member, which does not know it.
    """
    if dynamics.config.members < 2:
        raise ValueError("A single member does not disagree.")
    means = _means(dynamics, state, action)
    kept = means if dynamics.reward_rule is None else means[..., :-1]
    return kept.std(0).mean(-1)


MOST_ROWS = 1 << 12
"""Logged transitions that rollouts are held against: the mean of a spread is known to a percent."""

Seen = tuple[Tensor, Tensor, Tensor]
"""States `[P, n, S]`, actions `[P, n, A]` and alive `[P, n]` of a step."""


@dataclass(frozen=True)
class Excursion:
    """What a policy's rollouts in a model look like beside the log.

    Attributes:
        steps: the steps that were looked at.
        states_outside: share of simulated states outside the logged ones, over these steps; about
            0.01 of the behaviour's own.
        states_outside_by_step: the same at each of them; None where every rollout has ended.
        disagreement: the members' mean spread along the rollouts over that one step from logged
            transitions: 1 is as on the data, 10 is far off. None of a single member.
        disagreement_by_step: the same at each step; empty of a single member.
    """

    steps: tuple[int, ...]
    states_outside: float
    states_outside_by_step: tuple[float | None, ...]
    disagreement: float | None
    disagreement_by_step: tuple[float | None, ...]


class LoggedGround:
    """What rollouts are held against, of one log and one model.

    Args:
        log: on the model's device.
        held_out: episodes that the model was not trained on; all where there is none.
        dynamics: the model.
        horizon: T, of the rollouts.
        config: how closely to look.
        seed: of what is drawn.
    """

    def __init__(
        self,
        log: DeviceLog,
        held_out: Sequence[int],
        dynamics: EnsembleDynamics,
        horizon: int,
        config: DiagnosisConfig,
        seed: int,
    ) -> None:
        self.dynamics, self.horizon, self.config = dynamics, horizon, config
        self.initial_states = log.states[log.state_row[log.first]]
        self.seed = derive(seed, "diagnosis", "rollouts")
        device = log.rewards.device
        drawing = torch_generator(self.seed, "rows", device=device)
        unseen = set(held_out)
        learned = [i for i in range(len(log.first)) if i not in unseen]
        first, second = (learned, held_out) if unseen and learned else (learned or held_out,) * 2
        reference = log.at(thin(log.rows_of(first), config.transitions, drawing))
        rows = thin(log.rows_of(second), MOST_ROWS, drawing)
        logged = log.at(rows)
        drawn = dynamics.sample(
            logged.state, logged.action, torch_generator(self.seed, "draws", device=device)
        )
        self.support = StateSupport.of(reference.state, logged.next_state, drawn.next_state)
        self.spread: float | None = None
        if dynamics.config.members > 1:
            self.spread = self._spread_one_step_on(log, rows, drawn.next_state)

    def _spread_one_step_on(self, log: DeviceLog, rows: Tensor, reached: Tensor) -> float:
        """Of the members, where the model's draw from a logged transition meets the next action.

        Not at the logged state itself, which no rollout is quite at: of one-hot states, say, the
        members agree there and at no draw of theirs.
        """
        last = torch.zeros_like(log.terminated)
        last[log.first + log.lengths - 1] = True
        going_on = ~last[rows]
        if not going_on.any():  # episodes of a single step
            here = log.at(rows)
            return float(spread(self.dynamics, here.state, here.action).mean())
        action = log.actions[rows[going_on] + 1]
        return float(spread(self.dynamics, reached[going_on], action).mean())

    def excursions(self, policies: Sequence[Policy], progress: Progress) -> list[Excursion]:
        """Of each policy's rollouts.

        Raises:
            DivergedError: if the simulation leaves the finite numbers.
        """
        horizon, n = self.horizon, self.config.rollouts
        steps = np.unique(np.linspace(0, horizon - 1, self.config.steps).round().astype(int))
        found: list[Excursion | None] = [None] * len(policies)
        device = self.initial_states.device
        for group in group_policies(policies, device, max(1, ROWS_AT_ONCE // (n * len(steps)))):
            seen: dict[int, Seen] = {}
            simulate(
                group.policy,
                self.dynamics,
                self.initial_states,
                horizon=horizon,
                rollouts=n,
                seed=self.seed,
                policies=len(group.indices),
                watch=_watching(seen, {int(step) for step in steps}),
                progress=progress,
            )
            for place, index in enumerate(group.indices):
                found[index] = self._of(seen, place)
        return [one for one in found if one is not None]

    def _of(self, seen: dict[int, Seen], place: int) -> Excursion:
        """Of the policy at this place."""
        state, action, alive = (
            torch.stack([step[which][place] for step in seen.values()]) for which in range(3)
        )
        living = alive.cpu().numpy()
        outside = self.support.outside(state.flatten(0, 1)).reshape(living.shape)
        ratio: float | None = None
        by_step: tuple[float | None, ...] = ()
        if self.spread is not None:
            flat = (state.flatten(0, 1), action.flatten(0, 1))
            spreads = spread(self.dynamics, *flat).double().cpu().numpy()
            spreads = spreads.reshape(living.shape) / max(self.spread, 1e-12)
            by_step, ratio = _mean_by_step(spreads, living), float(spreads[living].mean())
        return Excursion(
            steps=tuple(seen),
            states_outside=float(outside[living].mean()),
            states_outside_by_step=_mean_by_step(outside, living),
            disagreement=ratio,
            disagreement_by_step=by_step,
        )


def _watching(seen: dict[int, Seen], wanted: set[int]) -> Watch:
    def watch(t: int, state: Tensor, action: Tensor, alive: Tensor) -> None:
        if t in wanted:
            seen[t] = (state, action, alive)

    return watch


def _mean_by_step(
    values: NDArray[np.float64] | NDArray[np.bool_], alive: NDArray[np.bool_]
) -> tuple[float | None, ...]:
    """Of `[steps, n]`, over the rollouts that go on; None where none does."""
    return tuple(
        float(row[on].mean()) if on.any() else None for row, on in zip(values, alive, strict=True)
    )

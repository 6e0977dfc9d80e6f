"""Held-out continuations: logged episodes, and what the model makes of them from the same states.

From states of episodes that the model was not trained on, the policy that logged them acts in the
model for a few steps; partial returns and states are scored against the logged continuation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.core.protocols import Dynamics
from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.stats.scores import crps, energy_score


class LoggedBehaviour(Protocol):
    """The policy that logged the data, acting at other states than the logged ones."""

    def act_like(
        self,
        state: Tensor,
        logged_state: Tensor,
        logged_action: Tensor,
        known: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Actions `[K, B, A]` at states `[K, B, S]`, by the policy and noise of the logged action.

        Args:
            state: `[K, B, S]`
            logged_state: `[B, S]`
            logged_action: `[B, A]`, what the policy did at `logged_state`.
            known: `[B]` bool, whether there is a logged action; elsewhere the policy acts afresh.
            generator: of what the logged action leaves open.
        """
        ...


@dataclass(frozen=True)
class Continuations:
    """B logged stretches of up to H steps.

    Attributes:
        states: `[H + 1, B, S]`; after the end of an episode its last state.
        actions: `[H, B, A]`; after the end of an episode, zeros.
        rewards: `[H, B]`, 0 after the end of an episode.
        known: `[H, B]` bool, the logged episode takes this step.
        episode: `[B]` int64, the episode of each stretch.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    known: Tensor
    episode: Tensor

    @classmethod
    def of(
        cls,
        log: DeviceLog,
        episodes: Tensor,
        steps: int,
        most: int,
        generator: torch.Generator,
        *,
        stride: int | None = None,
    ) -> "Continuations":
        """Stretches of `steps` steps that are logged to their end.

        A stretch that the log truncates is left out. Whether a stretch is in must not depend on how
        it ends, or those that begin late would be the terminated ones alone. So of those that
        terminate at T < t + H as many are kept as had been logged whole, had they gone on: a share
        of G(t + H) / G(T), with G(x) the chance that the log does not truncate an episode before x
        steps, by Kaplan and Meier's (1958) estimate from all episodes.

        Args:
            log: the transitions.
            episodes: `[E]` int64, the episodes to take them from.
            steps: H.
            most: stretches at most; more are thinned at random.
            generator: of the thinning.
            stride: steps from the begin of a stretch to that of the next one, which may overlap;
                None for as many as a stretch has.
        """
        stride = steps if stride is None else stride
        whole = _logged_whole(log, steps)
        begins, owner = [episodes.new_empty(0)], [episodes.new_empty(0)]
        for episode in episodes.tolist():
            length, first = int(log.lengths[episode]), int(log.first[episode])
            starts = torch.arange(0, length, stride, device=log.first.device)
            reached = starts + steps <= length
            if log.terminated[first + length - 1]:
                lots = torch.rand(
                    len(starts), generator=generator, device=starts.device, dtype=torch.float64
                )
                reached |= lots * whole[length] < whole[starts + steps]
            starts = starts[reached]
            begins.append(first + starts)
            owner.append(torch.full_like(starts, episode))
        begin, episode_of = torch.cat(begins), torch.cat(owner)
        if len(begin) > most:
            kept = torch.randperm(len(begin), generator=generator, device=begin.device)[:most]
            kept = kept.sort().values
            begin, episode_of = begin[kept], episode_of[kept]
        last = log.first[episode_of] + log.lengths[episode_of] - 1
        row = begin + torch.arange(steps, device=begin.device)[:, None]
        known = row <= last
        logged = log.at(row.clamp_max(last))
        states = torch.cat((logged.state[:1], logged.next_state))
        mask = known[..., None]
        return cls(
            states,
            torch.where(mask, logged.action, 0.0),
            torch.where(known, logged.reward, 0.0),
            known,
            episode_of,
        )

    def returns(self, marks: Sequence[int]) -> Tensor:
        """`[J, B]` float64, partial returns after so many steps."""
        return self.rewards.double().cumsum(0)[[mark - 1 for mark in marks]]

    def __len__(self) -> int:
        return len(self.episode)


def _logged_whole(log: DeviceLog, steps: int) -> Tensor:
    """`[longest + steps + 1]` float64, G(x): the log does not truncate an episode before x steps.

    An episode that terminates after T steps was not truncated in its first T − 1 and says no more:
    it would not have been truncated at its last step either way.
    """
    from scipy.stats import CensoredData, ecdf

    lengths = log.lengths.cpu().numpy()
    terminated = log.terminated[log.first + log.lengths - 1].cpu().numpy()
    at = np.arange(lengths.max() + steps + 1)
    share = np.ones(len(at))
    if not terminated.all():
        cut = CensoredData(uncensored=lengths[~terminated], right=lengths[terminated] - 1)
        share = ecdf(cut).sf.evaluate(at - 1)
    return torch.as_tensor(share, dtype=torch.float64, device=log.rewards.device)


@dataclass(frozen=True)
class Replayed:
    """What a model makes of B stretches in K draws.

    Attributes:
        marks: J numbers of steps, ascending, the last of them H.
        returns: `[J, K, B]`, undiscounted partial returns after so many steps.
        states: `[J, K, B, S]`, after so many steps, or where the rollout ended.
    """

    marks: tuple[int, ...]
    returns: Tensor
    states: Tensor


@torch.no_grad()
def replay(
    dynamics: Dynamics,
    behaviour: LoggedBehaviour,
    logged: Continuations,
    *,
    draws: int,
    generator: torch.Generator,
    marks: tuple[int, ...] | None = None,
) -> Replayed:
    """Roll the logged behaviour out in the model, from the first states of the stretches.

    Args:
        dynamics: the model.
        behaviour: acts in it.
        logged: B stretches.
        draws: K rollouts of each.
        generator: of actions and transitions.
        marks: numbers of steps after which returns and states are kept; None for H alone.
    """
    steps, count = logged.rewards.shape
    marks = (steps,) if marks is None else marks
    kept_returns, kept_states = [], []
    state = logged.states[0].expand(draws, -1, -1)
    alive = torch.ones((draws, count), dtype=torch.bool, device=state.device)
    returns = torch.zeros((draws, count), dtype=torch.float64, device=state.device)
    for t in range(steps):
        at_step = (logged.states[t], logged.actions[t], logged.known[t])
        action = behaviour.act_like(state, *at_step, generator)
        # Draws lie along the n axis, where random numbers are independent.
        step = dynamics.sample(state.reshape(-1, state.shape[-1]), action.flatten(0, 1), generator)
        returns += torch.where(alive, step.reward.view(draws, count).double(), 0.0)
        state = torch.where(alive[..., None], step.next_state.view_as(state), state)
        alive = alive & ~step.terminated.view(draws, count)
        if t + 1 in marks:
            kept_returns.append(returns.clone())
            kept_states.append(state)
    return Replayed(marks, torch.stack(kept_returns), torch.stack(kept_states))


def score(replayed: Replayed, logged: Continuations, state_scale: Tensor) -> tuple[Tensor, Tensor]:
    """CRPS of the partial return and energy score of the state at each mark, `[J, B]`, float64.

    Args:
        replayed: K draws of B stretches.
        logged: the stretches.
        state_scale: `[S]`, what differences of states are divided by.
    """
    observed = logged.returns(replayed.marks)
    states = logged.states[list(replayed.marks)] / state_scale
    of_return = [crps(*pair) for pair in zip(replayed.returns, observed, strict=True)]
    of_state = [
        energy_score(*pair) for pair in zip(replayed.states / state_scale, states, strict=True)
    ]
    return torch.stack(of_return), torch.stack(of_state)

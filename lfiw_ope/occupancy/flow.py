"""The flow equation of occupancies, and what a log's rows are in it.

Where the horizon is infinite, d(s, a) = (1 − γ) Σ_t γ^t P(s_t = s, a_t = a, not yet terminated),
and for every function ν, with ν' = E_{a' ~ π}[ν(s', a')],

    (1 − γ) E[ν(s_0, a_0)] + E_D[ω (γ (1 − terminated) ν' − ν)] = 0,   ω = d / d^D,

where D is the logged transitions, all alike. Over T steps, with d_t of every step and ν_T = 0,

    E[ν_0(s_0, a_0)] + Σ_t E_{D_t}[ω_t ((1 − terminated) ν'_{t+1} − ν_t)] = 0,   ω_t = d_t / d_t^D,

where D_t is step t of the episodes that are observed there, each by its standing
(`lfiw_ope.padding`): taken, or terminated before.

**Where terminated mass goes.** It goes to an absorbing state that pays nothing, and occupancies
sum to 1 only with it. The equation there can be solved by hand, so that no network has to learn
it: ν is set to 0 in it, which costs nothing because ν and ν + c say the same; and what it holds
follows from the transitions that lead to it,

    γ / (1 − γ) E_D[ω terminated],   or at step t of T   Σ_{u < t} E_{D_u}[ω_u terminated].

ν = 1 everywhere else then says that all masses sum to 1. A log needs no rows for it, and ω of real
transitions is relative to real transitions: E_D[ω x] is a mean of x under π's occupancy, with
x = 0 in the absorbing state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_ope.data.tensors import DeviceLog
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimand import Estimand
from lfiw_ope.padding import PaddedEpisodes


@dataclass(frozen=True)
class LoggedFlow:
    """The transitions that the equation is over, R' of them.

    Attributes:
        estimand: T and γ.
        has_time: whether it is the equation over T steps.
        rows: `[R']`, in the log.
        step: `[R']` int64, each one's t in its episode; 0 without time.
        weight: `[R']` float64: mean(weight · x) is E_D[x], or (1/T) Σ_t E_{D_t}[x].
        episode: `[R']` int64, each one's place among the episodes.
        terminated: `[R']` bool.
        own: `[R']` float64, the behaviour's own ω: its occupancy, over the log. 1 with time.
    """

    estimand: Estimand
    has_time: bool
    rows: Tensor
    step: Tensor
    weight: Tensor
    episode: Tensor
    terminated: Tensor
    own: Tensor

    @classmethod
    def of(
        cls,
        data: Trajectories,
        log: DeviceLog,
        episodes: Sequence[int],
        estimand: Estimand,
        *,
        has_time: bool,
    ) -> "LoggedFlow":
        """Of some episodes of a log.

        Raises:
            DataError: if time counts and the longest episodes were cut short of the horizon.
        """
        rows = log.rows_of(episodes)
        chosen = torch.as_tensor(list(episodes), device=rows.device)
        lengths = log.lengths[chosen]
        episode = torch.repeat_interleave(torch.arange(len(chosen), device=rows.device), lengths)
        step = rows - log.first[chosen][episode]
        ends, chosen_data = log.terminated[rows], data.select(list(episodes))
        if not has_time:
            weight = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
            padded = PaddedEpisodes.of(chosen_data, int(lengths.max()))
            powers = (
                torch.tensor(estimand.discount, dtype=torch.float64, device=rows.device) ** step
            )
            standing = padded.standing.to(rows.device)[episode, step] / len(chosen)
            own = len(rows) * (1.0 - estimand.discount) * powers * standing
            return cls(estimand, False, rows, 0 * step, weight, episode, ends, own)
        padded = PaddedEpisodes.of(chosen_data, estimand.horizon)
        within = step < estimand.horizon
        rows, step, episode, ends = rows[within], step[within], episode[within], ends[within]
        standing = padded.standing.to(rows.device)[episode, step] / len(chosen)
        weight = len(rows) / estimand.horizon * standing
        return cls(estimand, True, rows, step, weight, episode, ends, torch.ones_like(weight))

    def at(self, places: Tensor) -> "LoggedFlow":
        """Some of the rows."""
        arrays = (self.rows, self.step, self.weight, self.episode, self.terminated, self.own)
        return LoggedFlow(self.estimand, self.has_time, *(array[places] for array in arrays))

    @property
    def start(self) -> float:
        """What the initial states weigh in the equation, beside the mean over rows."""
        return 1.0 / self.estimand.horizon if self.has_time else 1.0 - self.estimand.discount

    @property
    def onwards(self) -> Tensor:
        """`[R']` float64, what ν' weighs at each row."""
        going_on = ~self.terminated
        if self.has_time:
            return (going_on & (self.step + 1 < self.estimand.horizon)).double()
        return self.estimand.discount * going_on.double()

    @property
    def reward_weight(self) -> Tensor:
        """`[R']` float64, such that the value is mean(weight · reward_weight · ω · r)."""
        if not self.has_time:
            return torch.full_like(self.weight, 1.0 / (1.0 - self.estimand.discount))
        discount = torch.tensor(self.estimand.discount, dtype=torch.float64)
        return self.estimand.horizon * discount.to(self.step.device) ** self.step

    def normalisers(self, ratio: Tensor) -> Tensor:
        """What ω `[P, R']` is to be multiplied by, `[P, T]`, or `[P, 1]` without time.

        So that all masses, with the absorbing state's, sum to 1: step by step where time counts.
        """
        if not self.has_time:
            discount = self.estimand.discount
            mass = 1.0 + discount / (1.0 - discount) * self.terminated.double()
            return 1.0 / (ratio * mass).mean(-1, keepdim=True)
        horizon = self.estimand.horizon
        share = ratio * self.weight * (horizon / self.rows.numel())
        empty = share.new_zeros((len(ratio), horizon))
        mass = empty.index_add(1, self.step, share)
        ends = empty.index_add(1, self.step, share * self.terminated)
        alive = torch.ones_like(mass[:, 0])
        factors = []
        for t in range(horizon):
            factor = torch.where(mass[:, t] > 0, alive / mass[:, t], 0.0)
            factors.append(factor)
            alive = (alive - factor * ends[:, t]).clamp_min(0.0)
        return torch.stack(factors, 1)

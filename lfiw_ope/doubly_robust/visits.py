"""The occupancy ratio by a classifier: simulated state-action pairs against logged ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lfiw_ope.classifier import ClassifierConfig
from lfiw_ope.data.tensors import DeviceLog, thin
from lfiw_ope.density_ratio import DensityRatio
from lfiw_ope.density_ratio_fit import fit_density_ratio
from lfiw_ope.diagnostics import SURPRISING
from lfiw_ope.doubly_robust.occupancy_form import LoggedSteps
from lfiw_ope.estimand import Estimand
from lfiw_ope.policies.stacking import group_policies
from lfiw_ope.rollout import simulate
from lfiw_ope.seeding import torch_generator
from lfiw_ope.types import Dynamics, Policy, Progress, silent

MOST_OFF = 0.2
"""How far from 1 the mean of a ratio may be before it is told of, however well it is known."""

MOST_VISITS = 1 << 16
"""Simulated, and logged, steps of one policy that its classifier is fitted to."""


@dataclass(frozen=True)
class ClassifiedOccupancy:
    """ω of P policies from one classifier ensemble each.

    Attributes:
        ratios: P density ratios of visits, whose samples are (s, a), or (s, a, t / T).
        log_mass: `[P, T]` float64, what takes the ratio of two normalised sets of visits to that
            of occupancies at each step: over T steps, log of A_π N / (c_t Σ_u n_u), with A_π the
            mean number of steps that a rollout lives, n_u the episodes that take step u, and c_t
            the standing of those that take step t (`lfiw_ope.padding`); without time, `[P, 1]`,
            log of (1 − γ) E[Σ_t γ^t alive_t].
    """

    ratios: tuple[DensityRatio, ...]
    log_mass: Tensor
    horizon: int | None

    def mass(self, step: Tensor) -> Tensor:
        """`[P, n]` float64, ω's mean over logged steps t `[n]` where it is right."""
        place = torch.zeros_like(step) if self.horizon is None else step
        return self.log_mass[:, place].exp()

    @torch.no_grad()
    def ratio(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """ω `[P, n]` float64 at states `[n, S]`, actions `[n, A]` and steps t `[n]`."""
        visits = _visits(state, action, step, self.horizon)
        place = torch.zeros_like(step) if self.horizon is None else step
        found = torch.stack([ratio.log_ratio(visits).double() for ratio in self.ratios])
        return (found + self.log_mass.to(found.device)[:, place]).exp()


def mean_ratio_warning(density_ratio: Tensor, episode: Tensor) -> list[str]:
    """What to say of density ratios `[R']` of logged steps, whose mean is 1 if they are right.

    Args:
        density_ratio: ω over its mass.
        episode: `[R']` int64, of each step; steps of one episode depend on each other.
    """
    mean = float(density_ratio.mean())
    of_episode = torch.zeros(int(episode.max()) + 1, dtype=torch.float64)
    of_episode.index_add_(0, episode, density_ratio - mean)
    error = float(of_episode.square().sum().sqrt()) / len(density_ratio)
    if not abs(mean - 1.0) > max(MOST_OFF, SURPRISING * error):
        return []
    return [
        f"The classifier's occupancy ratio, less what terminal states hold, averages {mean:.2f} ± "
        f"{error:.2g} over the log, and 1 is expected: it is far off, and the correction with it; "
        "train the classifiers longer, or use ratio='dice'."
    ]


def _visits(state: Tensor, action: Tensor, step: Tensor, horizon: int | None) -> Tensor:
    """`[n, D]`; time is a feature where there is a horizon."""
    parts = [state, action]
    if horizon is not None:
        parts.append((step / horizon).to(state.dtype)[:, None])
    return torch.cat(parts, -1)


class _Visits:
    """A watch of a simulation, which keeps what its first rollouts did."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, t: int, state: Tensor, action: Tensor, alive: Tensor) -> None:  # noqa: ARG002
        # Rollouts are independent and alike: the first are as good as any.
        some = slice(self.kept)
        self.steps.append((state[:, some].clone(), action[:, some].clone(), alive[:, some].clone()))

    def of(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        """(states `[T, n, S]`, actions `[T, n, A]`, alive `[T, n]`) of one policy."""
        states, actions, alive = (
            torch.stack([step[i][place] for step in self.steps]) for i in range(3)
        )
        return states, actions, alive


def fit_visits(
    policies: Sequence[Policy],
    dynamics: Dynamics,
    initial_states: Tensor,
    log: DeviceLog,
    logged: LoggedSteps,
    train: Sequence[int],
    estimand: Estimand,
    config: ClassifierConfig,
    *,
    rollouts: int,
    seed: int,
    progress: Progress = silent,
) -> ClassifiedOccupancy:
    """Fit ω of every policy, from rollouts of it in a model and from logged episodes.

    Args:
        policies: P.
        dynamics: where the policies are simulated.
        initial_states: `[N, S]`, that rollouts start from.
        log: the log, on the device of all of it.
        logged: which of its rows count, and at which step; with `padded`, over T steps.
        train: the episodes that are learned from.
        estimand: T and γ.
        config: the classifiers.
        rollouts: of each policy.
        seed: of everything that is random; policies share it.
        progress: told how far the work is.
    """
    device, horizon = initial_states.device, estimand.horizon
    learned = torch.zeros(len(log.lengths), dtype=torch.bool)
    learned[list(train)] = True
    rows = learned[logged.episode].nonzero()[:, 0]
    rows = thin(rows, MOST_VISITS, torch_generator(seed, "visits", "logged"))
    there = log.at(logged.rows[rows].to(device))
    timed = None if logged.padded is None else horizon
    behind = _visits(there.state, there.action, logged.steps[rows].to(device), timed)
    ratios: list[DensityRatio | None] = [None] * len(policies)
    masses = torch.zeros((len(policies), timed or 1), dtype=torch.float64)
    kept = min(rollouts, max(1, MOST_VISITS // horizon))
    for group in group_policies(policies, device, 8):
        watch = _Visits(kept)
        simulate(
            group.policy,
            dynamics,
            initial_states,
            horizon=horizon,
            rollouts=rollouts,
            seed=seed,
            policies=len(group.indices),
            watch=watch,
        )
        for place, index in enumerate(group.indices):
            ahead, mass = _simulated(watch.of(place), estimand, timed, seed)
            ratios[index] = fit_density_ratio(
                ahead, behind, config, seed=seed, device=str(device), progress=progress
            )
            masses[index] = mass + _logged_mass(logged, learned)
    return ClassifiedOccupancy(tuple(one for one in ratios if one is not None), masses, timed)


def _simulated(
    visits: tuple[Tensor, Tensor, Tensor], estimand: Estimand, timed: int | None, seed: int
) -> tuple[Tensor, float]:
    """Samples `[n, D]` of where a policy goes, and the log of their mass.

    Without time, step t is kept with probability γ^t: what is kept is of the discounted occupancy.
    """
    state, action, alive = visits
    horizon, n = alive.shape
    step = torch.arange(horizon, device=alive.device)[:, None].expand(horizon, n)
    if timed is not None:
        mass = float(alive.sum()) / n
    else:
        weight = torch.tensor(estimand.discount, dtype=torch.float64) ** step.cpu()
        mass = (1.0 - estimand.discount) * float((weight * alive.cpu()).sum()) / n
        generator = torch_generator(seed, "visits", "discounting")
        drawn = torch.rand((horizon, n), dtype=torch.float64, generator=generator) < weight
        alive = alive & drawn.to(alive.device)
    return _visits(state[alive], action[alive], step[alive], timed), math.log(mass)


def _logged_mass(logged: LoggedSteps, learned: Tensor) -> Tensor:
    """`[T]`, log of N / (c_t Σ_u n_u) of the episodes learned from; `[1]`, 0, without time."""
    if logged.padded is None:
        return torch.zeros(1, dtype=torch.float64)
    taken, living = logged.padded.taken[learned], logged.padded.living
    living = torch.where(living > 0, living, 1.0)  # at steps that no episode takes
    return math.log(len(taken)) - (living * taken.sum()).log()

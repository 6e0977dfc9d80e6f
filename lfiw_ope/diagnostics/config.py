"""Settings of a diagnosis, and logged transitions in two halves."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.core.seeding import numpy_generator, torch_generator
from lfiw_ope.core.validation import device_there, whole, widths
from lfiw_ope.data.tensors import DeviceLog, TransitionTensors, thin
from lfiw_ope.nn.training import FitConfig
from lfiw_ope.ratios.behaviour_cloning import BehaviourConfig


@dataclass(frozen=True, kw_only=True)
class DiagnosisConfig:
    """Settings of `lfiw_ope.diagnose`: how much of the log is looked at, and how.

    Attributes:
        transitions: of the log that are looked at, at most, drawn from all episodes.
        neighbours: K, logged transitions at the nearest states that an action is held against.
        rollouts: n, simulated of each policy, where a model is given.
        steps: of a rollout that are looked at, at most, evenly spaced.
        open_loop_episodes: held-out episodes that are replayed in the model, at most.
        hidden: width of each hidden layer of the classifiers of actions.
        fit: their training.
        behaviour: where the behaviour's likelihoods come from, for the weights of logged episodes;
            None takes those that the log carries, and trains no clones where it has none.
        device: where the classifiers are trained. A model stays on its own.

    Raises:
        ConfigError: if a setting is out of its range, or the device is not there.
    """

    transitions: int = 20_000
    neighbours: int = 50
    rollouts: int = 100
    steps: int = 40
    open_loop_episodes: int = 100
    hidden: tuple[int, ...] = (64, 64)
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            updates=500, learning_rate=3e-3, evaluate_every=50, patience=None
        )
    )
    behaviour: BehaviourConfig | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        whole("transitions", self.transitions, least=20)
        whole("neighbours", self.neighbours, least=5)
        whole("rollouts", self.rollouts, least=2)
        whole("steps", self.steps, least=1)
        whole("open_loop_episodes", self.open_loop_episodes, least=1)
        widths("hidden", self.hidden)
        device_there(self.device)


STOPPING = 5
"""One in so many episodes of a half stops the training that learns from the others."""


class Half(NamedTuple):
    """Logged transitions of some episodes.

    Attributes:
        learned: `[n]`, what a training learns from.
        stopping: `[m]`, of other episodes, that it is stopped by; of the same ones where there is
            a single episode.
    """

    learned: TransitionTensors
    stopping: TransitionTensors

    @property
    def state(self) -> Tensor:
        """`[n + m, S]`"""
        return torch.cat((self.learned.state, self.stopping.state))

    @property
    def action(self) -> Tensor:
        """`[n + m, A]`"""
        return torch.cat((self.learned.action, self.stopping.action))


def draw_halves(log: DeviceLog, transitions: int, seed: int) -> tuple[Half, Half]:
    """Two halves of the episodes, with as many transitions in either part of one as of the other.

    Args:
        log: of two episodes or more.
        transitions: in all, at most.
        seed: of what is drawn.
    """
    order = numpy_generator(seed, "diagnosis", "halves").permutation(len(log.first))
    drawing = torch_generator(seed, "diagnosis", "rows", device=log.rewards.device)
    parts: list[list[Tensor]] = [[], []]
    for half in np.array_split(order, 2):
        stopping = max(1, len(half) // STOPPING)
        learned = half[stopping:] if len(half) > 1 else half
        for part, episodes in zip(parts, (learned, half[:stopping]), strict=True):
            part.append(log.rows_of(episodes.tolist()))
    of_half = max(2, transitions // 2)
    most = (of_half - of_half // STOPPING, of_half // STOPPING)
    rows = []
    for part, limit in zip(parts, most, strict=True):
        count = min(limit, *(len(one) for one in part))
        rows.append([thin(one, max(1, count), drawing) for one in part])
    one, other = (Half(*(log.at(part[which]) for part in rows)) for which in (0, 1))
    return one, other

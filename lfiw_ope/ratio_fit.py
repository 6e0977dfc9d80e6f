"""Fitting the density ratio of transitions: logged ones against fresh simulated ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.classifier_fit import Pair, TwoSampleObjective, fit_classifiers
from lfiw_ope.data.tensors import ROWS_AT_ONCE, DeviceLog, TransitionTensors, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.dynamics import EnsembleDynamics
from lfiw_ope.errors import ConfigError, DataError
from lfiw_ope.nn.ensemble import Standardiser
from lfiw_ope.ratio import Given, RatioConfig, TransitionRatio, outcome_centre
from lfiw_ope.seeding import torch_generator
from lfiw_ope.types import Dynamics, Progress, silent

MAX_KEPT = 1 << 26
"""Numbers that a training keeps of its rows, 256 MB."""

MOST_HELD_OUT = 1 << 16
"""Held-out transitions that calibration and the report rest on: more would not change them."""


class _RealOrSimulated(TwoSampleObjective):
    """Logged against freshly simulated transitions at the same (s, a).

    What does not change between batches is computed once: the features of logged transitions, and
    the ensemble's outputs, so that a batch draws members and noise and evaluates no network of the
    dynamics. Where that would take more than `MAX_KEPT` numbers, it is computed batch by batch.
    """

    def __init__(
        self,
        ratio: TransitionRatio,
        log: DeviceLog,
        train: Tensor,
        held_out: Tensor,
        member: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.ratio, self.log, self.train, self.member = ratio, log, train, member
        self.classifiers, self.rows = ratio.classifiers, len(train)
        pairs = [self._pair(rows, generator) for rows in torch.split(held_out, ROWS_AT_ONCE)]
        real, simulated = (torch.cat(features) for features in zip(*pairs, strict=True))
        self.held_out = real, simulated
        middle = episode_boundary(log, held_out)
        self.halves = middle, middle
        self.kept = self._keep(train)

    def _keep(self, train: Tensor) -> "_Predicted | None":
        dynamics = self.ratio.dynamics
        if not isinstance(dynamics, EnsembleDynamics):
            return None
        outputs = dynamics.network.sizes[-1] * dynamics.config.members
        if len(train) * (outputs + 3 * dynamics.inputs.mean.numel()) > MAX_KEPT:
            return None
        parts = [self._predicted(dynamics, rows) for rows in torch.split(train, ROWS_AT_ONCE)]
        return _Predicted(*(torch.cat(fields) for fields in zip(*parts, strict=True)))

    def sources(self) -> Sequence[Tensor]:
        # The model is in the held-out negatives: another model is another training.
        return (*self.log, self.train)

    def batch(self, rows: Tensor, generator: torch.Generator) -> Pair:
        if self.kept is None:
            real, simulated = self._pair(self.train.index_select(0, rows.flatten()), generator)
        else:
            at = _Predicted(*(field.index_select(0, rows.flatten()) for field in self.kept))
            real, simulated = self._simulated(at, generator)
        return real.view(*rows.shape, -1), simulated.view(*rows.shape, -1)

    def _pair(self, rows: Tensor, generator: torch.Generator) -> Pair:
        """Of logged transitions `[B, F]`, and of as many simulated at the same (s, a)."""
        ratio, dynamics = self.ratio, self.ratio.dynamics
        if isinstance(dynamics, EnsembleDynamics):
            return self._simulated(self._predicted(dynamics, rows), generator)
        logged = self.log.at(rows)
        simulated = dynamics.sample(logged.state, logged.action, generator)
        given = ratio.given(logged.state, logged.action)
        return ratio.features(given, logged), ratio.features(given, simulated)

    def _predicted(self, dynamics: EnsembleDynamics, rows: Tensor) -> "_Predicted":
        logged, member = self.log.at(rows), self.member[rows]
        predicted = dynamics.predict(logged.state, logged.action)
        mean = dynamics.member_mean(predicted, member, logged.state)
        given = self.ratio.given(logged.state, logged.action, mean)
        real = self.ratio.features(given, logged)
        by_row = predicted.movedim(0, 1)
        return _Predicted(logged.state, logged.action, *given, real, by_row, member)

    def _simulated(self, at: "_Predicted", generator: torch.Generator) -> Pair:
        predicted = at.predicted.movedim(1, 0)
        drawn = self.ratio.dynamics.sample_from(
            predicted, at.state, at.action, generator, at.member
        )
        pair = at.real, self.ratio.features(Given(at.inputs, at.centre), drawn)
        return self._smoothed(pair, predicted, generator)

    def _smoothed(self, pair: Pair, predicted: Tensor, generator: torch.Generator) -> Pair:
        """Features of either set with noise of the size of the model's own uncertainty.

        Args:
            pair: features `[B, F]`.
            predicted: `[M, B, O]`, the ensemble's outputs there.
            generator: of the noise, independent for the two.
        """
        ratio = self.ratio
        if ratio.config.smoothing == 0.0:
            return pair
        real, simulated = pair[0].clone(), pair[1].clone()
        for features in (real, simulated):
            error = ratio.dynamics.mean_error(predicted, generator) / ratio.outcomes.scale
            ratio.parts(features)[1].add_(error, alpha=ratio.config.smoothing)
        return real, simulated


class _Predicted(NamedTuple):
    """Logged transitions, and what the ensemble expects there."""

    state: Tensor  # [R, S]
    action: Tensor  # [R, A]
    inputs: Tensor  # [R, S + A]
    centre: Tensor  # [R, S + 1]
    real: Tensor  # [R, F]
    predicted: Tensor  # [R, M, O]
    member: Tensor  # [R], that each is compared with


def episode_boundary(log: DeviceLog, rows: Tensor) -> int:
    """Of rows in the order of their episodes, the boundary of two episodes nearest to the middle.

    One episode alone is cut in its middle.
    """
    order = log.first.argsort()
    episode = order[torch.searchsorted(log.first[order], rows, right=True) - 1]
    boundaries = 1 + (episode[1:] != episode[:-1]).nonzero()[:, 0].cpu()
    middle = len(rows) // 2
    if not len(boundaries):
        return middle
    return int(boundaries[(boundaries - middle).abs().argmin()])


def members_of(
    dynamics: Dynamics, log: DeviceLog, left_out: Sequence[Sequence[int]] | None, seed: int
) -> Tensor:
    """`[R]` int64, the member that each transition of the log is compared with.

    The one that did not learn from its episode, or one at random where none did.
    """
    device = log.rewards.device
    members = dynamics.config.members if isinstance(dynamics, EnsembleDynamics) else 1
    generator = torch_generator(seed, "ratio", "members", device=device)
    member = torch.randint(members, log.rewards.shape, generator=generator, device=device)
    for number, episodes in enumerate(left_out or ()):
        member[log.rows_of(list(episodes))] = number
    return member


def centred(
    config: RatioConfig, dynamics: EnsembleDynamics, log: DeviceLog, rows: Tensor, member: Tensor
) -> Iterator[tuple[TransitionTensors, Tensor]]:
    """Transitions, some at a time, and what their (s', r) are measured from, `[B, S + 1]`."""
    for some in torch.split(rows, ROWS_AT_ONCE):
        logged, mean = log.at(some), None
        if isinstance(dynamics, EnsembleDynamics):
            predicted = dynamics.predict(logged.state, logged.action)
            mean = dynamics.member_mean(predicted, member[some], logged.state)
        yield logged, outcome_centre(config, dynamics, logged.state, logged.action, mean)


def fit_transition_ratio(
    data: Trajectories,
    dynamics: EnsembleDynamics,
    config: RatioConfig,
    seed: int,
    *,
    train: Sequence[int],
    held_out: Sequence[int],
    left_out: Sequence[Sequence[int]] | None = None,
    progress: Progress = silent,
    checkpoint: Path | None = None,
) -> TransitionRatio:
    """Fit the ratio of the process behind `data` to `dynamics`.

    Args:
        data: the log.
        dynamics: the model; it must have been fitted to other episodes, or each member to others
            than `left_out` says, because residuals on a model's own episodes are too small and
            would teach the classifiers overfitting.
        config: the classifiers.
        seed: of weights, batches and negatives.
        train: episodes to learn from.
        held_out: further episodes, for early stopping, calibration and the report; two or more, so
            that one half can judge the calibration of the other (one is cut in its middle).
        left_out: for each member the episodes that it alone did not learn from: their transitions
            are compared with that member (cross-fitting), all others with one at random.
        progress: told how far training is.
        checkpoint: see `lfiw_ope.nn.fit.fit`. It serves every average and every calibration.

    Raises:
        ConfigError: if `config` is another one, or the episodes to learn from or those held out
            are none, not in the data, or in both parts.
        DataError: if the dynamics were fitted to states and actions of other sizes.
        DivergedError: if a member's loss stops being finite.
        MissingDependencyError: if the calibration needs a package that is not installed.
    """
    if not isinstance(config, RatioConfig):
        raise ConfigError(f"config is a {type(config).__name__}; give a RatioConfig.")
    _check_episodes(train, held_out, data.num_episodes)
    _check_sizes(dynamics, data)
    device = dynamics.low.device
    log = DeviceLog.of(data, device)
    rows = log.rows_of(train)
    member = members_of(dynamics, log, left_out, seed)
    ratio = TransitionRatio(
        config,
        dynamics,
        Standardiser.of_chunks(
            torch.cat((some.state, some.action), -1) for some in log.chunks(rows)
        ),
        Standardiser.of_chunks(
            torch.cat((some.next_state, some.reward[:, None]), -1) - centre
            for some, centre in centred(config, dynamics, log, rows, member)
        ),
        torch_generator(seed, "ratio", "weights"),
    ).to(device)
    drawing = torch_generator(seed, "ratio", "held out", device=device)
    objective = _RealOrSimulated(
        ratio,
        log,
        rows,
        thin(log.rows_of(held_out), MOST_HELD_OUT, drawing),
        member,
        drawing,
    )
    fit_classifiers(
        objective,
        torch_generator(seed, "ratio", "batches", device=device),
        progress=progress,
        checkpoint=checkpoint,
    )
    return ratio.requires_grad_(False)


def _check_episodes(train: Sequence[int], held_out: Sequence[int], number: int) -> None:
    for name, given in (("train", train), ("held_out", held_out)):
        chosen = np.asarray(given)
        if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
            raise ConfigError(
                f"{name} is {given!r}; it must be one or more episodes' numbers, such as range(10)."
            )
        outside = chosen[(chosen < 0) | (chosen >= number)]
        if outside.size:
            raise ConfigError(
                f"{name} names the episode {outside[0]}; the data have episodes 0 to {number - 1}."
            )
    both = np.intersect1d(train, held_out)
    if both.size:
        raise ConfigError(
            f"{both.size} episodes are in train and in held_out, the first {both[0]}; what stops "
            "and calibrates a classifier must not have taught it, so give each to one of them."
        )


def _check_sizes(dynamics: EnsembleDynamics, data: Trajectories) -> None:
    # Anything that samples can be told from data; an ensemble alone says what it was fitted to.
    if not isinstance(dynamics, EnsembleDynamics):
        return
    size = dynamics.state_size
    expected = size, dynamics.inputs.mean.numel() - size
    if expected != (data.state_size, data.action_size):
        raise DataError(
            f"The data have states of {data.state_size} entries and actions of {data.action_size}; "
            f"the dynamics were fitted to {expected[0]} and {expected[1]}."
        )

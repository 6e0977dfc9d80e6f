"""Behaviour cloning: the policy that made the log, from the log, cross-fitted by episode."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.tensors import ROWS_AT_ONCE, DeviceLog, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.nn.ensemble import BatchedMLP, Standardiser
from lfiw_ope.nn.fit import fit
from lfiw_ope.policies.density import Bounds
from lfiw_ope.policies.heads import CategoricalHead, ContinuousHead, Output
from lfiw_ope.policies.mixture import Mixture
from lfiw_ope.policies.mlp import MLPPolicy
from lfiw_ope.policies.noise import ConditionalGaussianHead, SquashedGaussianHead
from lfiw_ope.policies.normaliser import ObservationNormaliser
from lfiw_ope.policy_ratio.config import BehaviourConfig, CloneReport
from lfiw_ope.policy_ratio.marginal import marginal_frequencies, marginal_normal
from lfiw_ope.seeding import numpy_generator, torch_generator
from lfiw_ope.types import Progress, silent

MOST_HELD_OUT = 1 << 13
"""Transitions that a look at a clone's held-out loss takes."""

FAR = 1e6
"""Standard deviations at which a missing bound is put: the gradient of an infinite one is NaN."""

STATE_LIMIT = 10.0
"""Standard deviations that states are clipped to, as VecNormalize does."""


@dataclass(frozen=True, eq=False)
class ClonedBehaviour:
    """K clones of the behaviour; each was fitted without one part of the episodes.

    Attributes:
        clones: K policies.
        fold: `[N]` int64, the clone that did not see the episode.
        log_prob: `[R]` float64, log μ of the behaviour's draws: of `proposed_actions` where the log
            carries them, else of `actions`; by the clone that did not see them.
        log_prob_of_actions: `[R]` float64, of the executed actions.
        report: how well it went.
    """

    clones: tuple[MLPPolicy, ...]
    fold: NDArray[np.int64]
    log_prob: Tensor
    log_prob_of_actions: Tensor
    report: CloneReport

    @property
    def policy(self) -> Mixture:
        """The behaviour as a policy of its own, at any state: at each step one of the clones."""
        count = len(self.clones)
        return Mixture(self.clones, [1.0 / count] * count)


def fit_behaviour(
    data: Trajectories, config: BehaviourConfig, seed: int, *, progress: Progress = silent
) -> ClonedBehaviour:
    """Clone the behaviour by maximum likelihood.

    Discrete actions have a categorical distribution; continuous ones a normal distribution whose
    mean and σ depend on the state, fitted to what the behaviour drew where the log has it, and
    else to the executed actions with a probability on each bound that they were clipped to (the
    censored normal distribution), or, if so configured, a normal distribution under a tanh.

    Using an estimated behaviour can even lower the variance of importance sampling (Hanna, Niekum
    and Stone 2019, "Importance sampling policy evaluation with an estimated behavior policy");
    they estimate it from the same episodes, and here it is cross-fitted, so that a clone which
    remembers its episodes does not flatter them.

    Args:
        data: the log.
        config: the clones.
        seed: of folds, weights and batches.
        progress: told how far training is.

    Raises:
        DataError: if there are fewer episodes than folds, or than 3, or one stands there twice.
        DivergedError: if a clone's loss stops being finite.
    """
    require_episodes(
        data, max(config.folds, 3), f"{config.folds} clones are fitted and stopped on others"
    )
    cloning = _Cloning(data, config, seed)
    report = fit(
        cloning.network,
        cloning,
        config.fit,
        torch_generator(seed, "behaviour", "batches", device=config.device),
        stage="behaviour",
        progress=progress,
    )
    clones = cloning.clones()
    of_draws = cloning.cross_fitted(clones, proposed=True)
    plain = cloning.cross_fitted(cloning.marginals(), proposed=True)
    return ClonedBehaviour(
        clones=clones,
        fold=cloning.fold,
        log_prob=of_draws,
        log_prob_of_actions=(
            of_draws if cloning.executed else cloning.cross_fitted(clones, proposed=False)
        ),
        report=CloneReport(
            log_likelihood=float(of_draws.mean()),
            state_independent_log_likelihood=float(plain.mean()),
            folds=config.folds,
            updates=report.updates,
        ),
    )


class _Cloning:
    """K clones in training; an `lfiw_ope.nn.objective.Objective`.

    Networks see standardised states and, where actions are clipped, give the moments of
    standardised actions; `clones` undoes the latter.
    """

    def __init__(self, data: Trajectories, config: BehaviourConfig, seed: int) -> None:
        self.config, self.spec = config, data.action_spec
        self.discrete = self.spec.kind == "discrete"
        self.executed = data.proposed_actions is None or self.discrete
        device = torch.device(config.device)
        self.log = DeviceLog.of(data, device)
        self.drawn = self.log.actions
        if data.proposed_actions is not None and not self.executed:
            self.drawn = torch.from_numpy(data.proposed_actions.copy()).to(device)
        self.states_normaliser = Standardiser.of_chunks(torch.split(self.log.states, ROWS_AT_ONCE))
        scaled = not (self.discrete or config.squashed)
        unit = Standardiser(torch.zeros(data.action_size), torch.ones(data.action_size))
        self.actions_normaliser = (
            Standardiser.of_chunks(torch.split(self.drawn, ROWS_AT_ONCE)) if scaled else unit
        ).to(device)
        self._deal_episodes(data.num_episodes, seed, device)
        outputs = data.action_size * (1 if self.discrete else 2)
        self.network = BatchedMLP(
            config.folds,
            (data.state_size, *config.hidden, outputs),
            config.activation,
            torch_generator(seed, "behaviour", "weights"),
        ).to(device)
        self.head = self._head(config.folds, scaled=True)

    def _deal_episodes(self, episodes: int, seed: int, device: torch.device) -> None:
        order = numpy_generator(seed, "behaviour", "folds").permutation(episodes)
        self.fold = np.empty(episodes, np.int64)
        self.fold[order] = np.arange(episodes) % self.config.folds
        drawing = torch_generator(seed, "behaviour", "held out", device=device)
        self.train, held_out = [], []
        for clone in range(self.config.folds):
            others = order[self.fold[order] != clone]
            stopping = max(1, len(others) // 10)
            self.train.append(self.log.rows_of(others[stopping:].tolist()))
            kept = self.log.rows_of(others[:stopping].tolist())
            held_out.append(thin(kept, MOST_HELD_OUT, drawing))
        self.rows = max(len(rows) for rows in self.train)
        self.counts = torch.tensor([len(rows) for rows in self.train], device=device)[:, None]
        self.padded = torch.nn.utils.rnn.pad_sequence(self.train, batch_first=True)
        self.held_out = torch.nn.utils.rnn.pad_sequence(held_out, batch_first=True)
        held = torch.tensor([len(rows) for rows in held_out], device=device)[:, None]
        self.seen = torch.arange(self.held_out.shape[1], device=device) < held

    def _bounds(self, *, scaled: bool) -> Bounds:
        """`[A]` each, where actions are continuous; of standardised actions, and finite, if so."""
        device = self.log.actions.device
        bounds = (torch.tensor(bound, device=device) for bound in (self.spec.low, self.spec.high))
        if self.config.squashed or not scaled:
            return Bounds(*(bound.float() for bound in bounds))
        return Bounds(*(self.actions_normaliser(b.float()).clamp(-FAR, FAR) for b in bounds))

    def _head(self, policies: int, *, scaled: bool) -> CategoricalHead | ContinuousHead:
        if self.discrete:
            return CategoricalHead()
        low, high = (bound.expand(policies, -1) for bound in self._bounds(scaled=scaled))
        kind = SquashedGaussianHead if self.config.squashed else ConditionalGaussianHead
        return kind(low, high).to(low.device)

    def content(self) -> tuple[str, Sequence[Tensor]]:
        return repr(self.config), (self.log.states, self.drawn, self.padded, self.held_out)

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        # Folds differ in size: a row's number among the most there are becomes one among its own.
        own = self.padded.gather(1, rows * self.counts // self.rows)
        return -self._log_prob(own).mean(1)

    def held_out_loss(self) -> Tensor:
        total = self._log_prob(self.held_out).double()
        return -torch.where(self.seen, total, 0.0).sum(1) / self.seen.sum(1)

    def _log_prob(self, rows: Tensor) -> Tensor:
        """`[K, B]`, of the draws in rows `[K, B]`, by each clone in training."""
        state = self.log.states[self.log.state_row[rows]]
        output = Output(self.network(self._limited(state)))
        action = self.actions_normaliser(self.drawn[rows])
        head = self.head
        return (head.log_prob if self.executed else head.proposal_log_prob)(output, action)

    def _limited(self, state: Tensor) -> Tensor:
        limited: Tensor = self.states_normaliser(state).clamp(-STATE_LIMIT, STATE_LIMIT)
        return limited

    @torch.no_grad()
    def clones(self) -> tuple[MLPPolicy, ...]:
        """The trained networks as policies, in the environment's units."""
        weights = [weight.detach().clone() for weight in self.network.weights]
        biases = [bias.detach().clone()[:, 0] for bias in self.network.biases]
        if not self.discrete:
            mean, scale = self.actions_normaliser.mean, self.actions_normaliser.scale
            weights[-1] *= torch.cat((scale, torch.ones_like(scale)))
            biases[-1] = self._in_units(biases[-1], mean, scale)
        return tuple(
            self._policy([weight[k] for weight in weights], [bias[k] for bias in biases])
            for k in range(self.config.folds)
        )

    @torch.no_grad()
    def marginals(self) -> tuple[MLPPolicy, ...]:
        """State-independent fits to the same episodes, as policies."""
        policies = []
        for rows in self.train:
            action = self.actions_normaliser(self.drawn[rows])
            bounds = None if self.discrete else self._bounds(scaled=True)
            if bounds is None:
                bias = marginal_frequencies(action)
            elif self.config.squashed:
                bias = marginal_normal(_before_tanh(action, bounds), bounds, censored=False)
            else:
                bias = marginal_normal(action, bounds, censored=self.executed)
            bias = bias.float()
            if not self.discrete:
                bias = self._in_units(
                    bias, self.actions_normaliser.mean, self.actions_normaliser.scale
                )
            width = self.log.states.shape[1]
            policies.append(self._policy([bias.new_zeros((width, len(bias)))], [bias]))
        return tuple(policies)

    def _in_units(self, bias: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """(mean, log σ) of standardised actions as those of actions."""
        centre, log_std = bias.chunk(2, -1)
        return torch.cat((centre * scale + mean, log_std + scale.log()), -1)

    def _policy(self, weights: list[Tensor], biases: list[Tensor]) -> MLPPolicy:
        device = self.log.states.device
        normaliser = ObservationNormaliser(
            self.states_normaliser.mean[None],
            self.states_normaliser.scale[None],
            torch.full((1, 1), STATE_LIMIT),
        )
        head = self._head(1, scaled=False)
        activation = self.config.activation
        return MLPPolicy.from_layers(
            weights, biases, head, activation=activation, normaliser=normaliser
        ).to(device)

    @torch.no_grad()
    def cross_fitted(self, clones: Sequence[MLPPolicy], *, proposed: bool) -> Tensor:
        """`[R]` float64, of all transitions, each by the clone that did not see its episode."""
        found = torch.empty(
            len(self.log.actions), dtype=torch.float64, device=self.log.actions.device
        )
        draws = proposed and not self.executed
        for k, clone in enumerate(clones):
            every = self.log.rows_of(np.flatnonzero(self.fold == k).tolist())
            for rows in torch.split(every, ROWS_AT_ONCE):
                state = self.log.states[self.log.state_row[rows]]
                if draws:
                    found[rows] = clone.proposal_log_prob(state, self.drawn[rows]).double()
                else:
                    found[rows] = clone.log_prob(state, self.log.actions[rows]).double()
        return found


def _before_tanh(action: Tensor, bounds: Bounds) -> Tensor:
    unit = 2.0 * (action - bounds.low) / (bounds.high - bounds.low) - 1.0
    return torch.atanh(unit.double().clamp(-1.0 + 1e-7, 1.0 - 1e-7))

"""Clones of the behaviour in training: K of them, each without one part of the episodes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.data.tensors import ROWS_AT_ONCE, DeviceLog, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.nn.ensemble import BatchedMLP, Standardiser
from lfiw_ope.policies.density import Bounds
from lfiw_ope.policies.heads import CategoricalHead, ContinuousHead, Output
from lfiw_ope.policies.mlp import MLPPolicy
from lfiw_ope.policies.noise import ConditionalGaussianHead, SquashedGaussianHead
from lfiw_ope.policies.normaliser import ObservationNormaliser
from lfiw_ope.policy_ratio.config import BehaviourConfig
from lfiw_ope.policy_ratio.marginal import marginal_frequencies, marginal_normal
from lfiw_ope.seeding import numpy_generator, torch_generator

MOST_HELD_OUT = 1 << 13
"""Transitions that a look at a clone's held-out loss takes."""

STATE_LIMIT = 10.0
"""Standard deviations that states are clipped to, as VecNormalize does."""


class Cloning:
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
        """`[A]` each, where actions are continuous; of standardised actions, if so wished."""
        device = self.log.actions.device
        bounds = (torch.tensor(b, device=device).float() for b in (self.spec.low, self.spec.high))
        return Bounds(*(self.actions_normaliser(b) if scaled else b for b in bounds))

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
        output = Output(self._constant(self.network(self._limited(state))))
        action = self.actions_normaliser(self.drawn[rows])
        head = self.head
        return (head.log_prob if self.executed else head.proposal_log_prob)(output, action)

    def _constant(self, output: Tensor) -> Tensor:
        """With the same σ at every state, if so configured: the last layer's bias alone."""
        if self.discrete or self.config.sigma == "state":
            return output
        size = output.shape[-1] // 2
        log_std = self.network.biases[-1][..., size:].expand_as(output[..., size:])
        return torch.cat((output[..., :size], log_std), -1)

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
            if self.config.sigma == "constant":
                weights[-1][..., weights[-1].shape[-1] // 2 :] = 0.0
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

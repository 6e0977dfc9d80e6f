"""Behaviour cloning, cross-fitted by episode."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.special import log_ndtr

from lfiw_ope.core.errors import ConfigError, DataError
from lfiw_ope.core.protocols import Progress, silent
from lfiw_ope.core.seeding import numpy_generator, torch_generator
from lfiw_ope.core.validation import choice, device_there, whole, widths
from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.tensors import ROWS_AT_ONCE, DeviceLog, thin
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.nn.batched_mlp import BatchedMLP, Standardiser
from lfiw_ope.nn.training import FitConfig, fit
from lfiw_ope.policies.heads import (
    Bounds,
    CategoricalHead,
    ConditionalGaussianHead,
    ContinuousHead,
    Output,
    SquashedGaussianHead,
)
from lfiw_ope.policies.mixtures import Mixture
from lfiw_ope.policies.mlp import MLPPolicy, ObservationNormaliser


@dataclass(frozen=True, kw_only=True)
class BehaviourConfig:
    """Where log μ(a | s) of the logged actions comes from.

    Attributes:
        source: "logged" takes what the log carries, "cloned" estimates it by behaviour cloning,
            "auto" takes what is logged where there is such.
        folds: K, parts that episodes are dealt to; an episode's likelihood comes from the clone of
            the others.
        hidden: width of each hidden layer of a clone.
        activation: "silu", "tanh" or "relu".
        sigma: of continuous actions: "constant" is the same at every state, as PPO's is; "state"
            depends on the state, as SAC's does, and takes far more data: a σ too small at a rare
            state outweighs all other weights.
        squashed: continuous actions are drawn through a tanh, as SAC's are, and not clipped.
        device: where clones are trained, and likelihoods computed.
        fit: the training of the clones, stopped on held-out episodes of the others. Weight decay
            matters: a σ that is too small at a rare state makes a weight that outweighs all others.
    """

    source: Literal["auto", "logged", "cloned"] = "auto"
    folds: int = 5
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    sigma: Literal["constant", "state"] = "constant"
    squashed: bool = False
    device: str = "cpu"
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            updates=5000, learning_rate=3e-4, weight_decay=1.0, evaluate_every=100, patience=5
        )
    )

    def __post_init__(self) -> None:
        choice("source", self.source, ("auto", "logged", "cloned"))
        whole("folds", self.folds, least=2)
        widths("hidden", self.hidden)
        choice("activation", self.activation, ("silu", "tanh", "relu"))
        choice("sigma", self.sigma, ("constant", "state"))
        if not isinstance(self.squashed, bool):
            raise ConfigError(f"squashed is {self.squashed!r}; it must be True or False.")
        device_there(self.device)


@dataclass(frozen=True, kw_only=True)
class CloneReport:
    """How well the behaviour was cloned, on episodes that a clone did not see.

    Likelihoods are of what was cloned: the behaviour's draws where the log has them, else the
    executed actions; densities are in the environment's units.

    Attributes:
        log_likelihood: mean over the transitions, in nats.
        state_independent_log_likelihood: the same of the best fit that does not look at states;
            a clone that is no better has learned nothing of them.
        folds: K.
        updates: that were run, of all clones at once.
    """

    log_likelihood: float
    state_independent_log_likelihood: float
    folds: int
    updates: int


def marginal_frequencies(actions: Tensor) -> Tensor:
    """log-frequencies `[A]` of one-hot actions `[R, A]`; each counts half an action more than seen.

    So (Jeffreys' prior) an action that was never seen keeps a probability.
    """
    counts = actions.double().sum(0) + 0.5
    return torch.log(counts / counts.sum())


def marginal_normal(actions: Tensor, bounds: Bounds, *, censored: bool) -> Tensor:
    """(mean, log σ) `[2A]` of the likeliest normal distribution of actions `[R, A]`.

    Args:
        actions: what was drawn, or executed.
        bounds: `[A]` each.
        censored: actions on a bound stand for draws beyond it.
    """
    values = actions.double()
    low, high = (bound.double() for bound in bounds)
    at_low, at_high = values <= low, values >= high
    if not censored or not (at_low | at_high).any():
        log_std = values.std(0, unbiased=False).clamp_min(1e-8).log()
        return torch.cat((values.mean(0), log_std))
    inside = ~(at_low | at_high)
    count = inside.sum(0)
    mean = torch.where(inside, values, 0.0).sum(0) / count.clamp_min(1)
    squares = torch.where(inside, values - mean, 0.0).square().sum(0)
    masses = at_low.sum(0), at_high.sum(0)
    # A bound that nothing lies on does not matter; infinity would make its gradient NaN.
    low, high = (
        torch.where(there > 0, bound, 0.0) for there, bound in zip(masses, (low, high), strict=True)
    )
    start = torch.cat((values.mean(0), values.std(0, unbiased=False).clamp_min(1e-3).log()))

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Of (mean, log σ), and its gradient."""
        point = torch.from_numpy(at.copy()).to(values.device).requires_grad_()
        centre, log_std = point.chunk(2)
        scale = torch.exp(-log_std)
        density = 0.5 * (squares + count * (mean - centre).square()) * scale.square()
        beyond = masses[0] * log_ndtr((low - centre) * scale)
        beyond = beyond + masses[1] * log_ndtr((centre - high) * scale)
        total = (density + count * log_std - beyond).sum() / len(values)
        (gradient,) = torch.autograd.grad(total, point)
        return total.item(), gradient.cpu().numpy()

    # scipy's, since torch's optimizers import its compiler, which takes seconds.
    options = {"maxiter": 100, "ftol": 1e-12, "gtol": 1e-8}
    with torch.enable_grad():
        found = minimize(loss, start.cpu().numpy(), jac=True, method="L-BFGS-B", options=options)
    kept = torch.from_numpy(found.x).to(start)
    return torch.where(kept.isfinite(), kept, start)


MOST_HELD_OUT = 1 << 13
"""Transitions that a look at a clone's held-out loss takes."""

STATE_LIMIT = 10.0
"""Standard deviations that states are clipped to, as VecNormalize does."""


class Cloning:
    """K clones in training; an `lfiw_ope.nn.training.Objective`.

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

    @torch.no_grad()
    def act_like(
        self,
        state: Tensor,
        logged_state: Tensor,
        logged_action: Tensor,
        known: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Actions at `state` by the policy and noise that logged `logged_action`.

        Continuous: the logged action plus the difference of the clones' modes at the two states,
        clipped to the bounds. Discrete: the logged action fixes part of the inverse-transform
        uniform u that drew it, and the same u draws from the clones' probabilities at `state`. So
        the clone decides what a difference of states changes, and nothing else: a log of several
        policies needs no clone of each.

        Args:
            state: `[K, B, S]`
            logged_state: `[B, S]`
            logged_action: `[B, A]`
            known: `[B]` bool, whether there is a logged action; elsewhere the clones act afresh.
            generator: of what the logged action leaves open.
        """
        flat = state.flatten(0, -2)
        fresh = self.policy.act(flat, generator).view(*state.shape[:-1], -1)
        if isinstance(self.clones[0].head, CategoricalHead):
            here = self._probabilities(flat).view_as(fresh)
            there = self._probabilities(logged_state)
            chosen = logged_action.argmax(-1, keepdim=True)
            width = there.gather(-1, chosen)[..., 0]
            below = there.cumsum(-1).gather(-1, chosen)[..., 0] - width
            part = torch.rand(state.shape[:-1], generator=generator, device=state.device)
            uniform = below + part * width
            index = (here.cumsum(-1) <= uniform[..., None]).sum(-1)
            index = index.clamp_max(here.shape[-1] - 1)
            like = torch.nn.functional.one_hot(index, here.shape[-1]).to(fresh.dtype)
        else:
            moved = self._mode(flat).view_as(fresh) - self._mode(logged_state)
            like = self.clones[0].execute(logged_action + moved)
        return torch.where(known[..., None], like, fresh)

    def _mode(self, state: Tensor) -> Tensor:
        """`[n, A]`, the mean of the clones' modes before clipping."""
        modes = [clone.head.propose(clone.outputs(state), None) for clone in self.clones]
        return torch.stack(modes).mean(0)

    def _probabilities(self, state: Tensor) -> Tensor:
        """`[n, A]`, of discrete actions, the mean of the clones'."""
        logits = [clone.outputs(state).value for clone in self.clones]
        return torch.stack(logits).softmax(-1).mean(0)


def fit_behaviour(
    data: Trajectories, config: BehaviourConfig, seed: int, *, progress: Progress = silent
) -> ClonedBehaviour:
    """Clone the behaviour by maximum likelihood.

    Discrete actions have a categorical distribution; continuous ones a normal distribution whose
    mean depends on the state, and σ too if so configured, fitted to what the behaviour drew where
    the log has it, and else to the executed actions with a probability on each bound that they
    were clipped to (the censored normal distribution), or, if so configured, a normal distribution
    under a tanh.

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
        DataError: if there are fewer episodes than folds, or than 3, or one stands there twice; if
            draws lie where no squashed one could.
        DivergedError: if a clone's loss stops being finite.
    """
    require_episodes(
        data, max(config.folds, 3), f"{config.folds} clones are fitted and stopped on others"
    )
    if config.squashed:
        _require_within_bounds(data)
    cloning = Cloning(data, config, seed)
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


def _require_within_bounds(data: Trajectories) -> None:
    """That a tanh could have drawn what the behaviour drew."""
    drawn = data.proposed_actions
    if drawn is None or data.action_spec.kind == "discrete":
        return
    low, high = (np.asarray(b, np.float32) for b in (data.action_spec.low, data.action_spec.high))
    beyond = float(((drawn < low) | (drawn > high)).any(1).mean())
    if beyond > 0:
        raise DataError(
            f"{beyond:.1%} of the behaviour's draws lie beyond the action bounds, where no tanh "
            "takes one: it did not squash its actions; use BehaviourConfig(squashed=False)."
        )

"""Behaviour cloning: the policy that made the log, from the log, cross-fitted by episode."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.data.split import require_episodes
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError
from lfiw_ope.nn.fit import fit
from lfiw_ope.policies.heads import CategoricalHead
from lfiw_ope.policies.mixture import Mixture
from lfiw_ope.policies.mlp import MLPPolicy
from lfiw_ope.policy_ratio.cloning import Cloning
from lfiw_ope.policy_ratio.config import BehaviourConfig, CloneReport
from lfiw_ope.seeding import torch_generator
from lfiw_ope.types import Progress, silent


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

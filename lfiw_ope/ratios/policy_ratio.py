"""log π(a | s) − log μ(a | s) of every logged transition, for any number of target policies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.core.errors import DataError, PolicyError
from lfiw_ope.core.policy_batch import PolicyGroup, group_policies
from lfiw_ope.core.protocols import Policy, Progress, ProposingPolicy, has_density, silent
from lfiw_ope.data.tensors import ROWS_AT_ONCE
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.policies.likelihood import log_likelihood, require_likelihood
from lfiw_ope.ratios.behaviour_cloning import BehaviourConfig, CloneReport, fit_behaviour

NOTICEABLE_ON_BOUNDS = 0.001
"""Share of logged actions on a bound above which an unsaid kind of likelihood there matters."""


@dataclass(frozen=True, eq=False)
class PolicyRatio:
    """The behaviour's side of the ratio; the target's is computed when it is asked for.

    Where the log carries what the behaviour drew before clipping, and the target knows the density
    of its own draws, the ratio is of those: clipped actions have point masses, draws have none.
    Else it is of executed actions, with the masses on the bounds that `DensityPolicy` speaks of.

    Attributes:
        states: `[R, S]`, float32, like all here on the device where likelihoods are computed.
        actions: `[R, A]`, executed.
        proposed: `[R, A]`, drawn; None where the log does not say, or nothing is clipped.
        log_prob: `[R]` float64, log μ of the draws.
        log_prob_of_actions: `[R]` float64, of the executed actions; None where it is not known.
        action_kind: "continuous" or "discrete".
        report: of the clones; None where likelihoods were logged.
        on_bounds: share of the transitions whose executed action lies on a bound.
        warnings: in words, what may be wrong with the behaviour's likelihoods.
    """

    states: Tensor
    actions: Tensor
    proposed: Tensor | None
    log_prob: Tensor
    log_prob_of_actions: Tensor | None
    action_kind: Literal["continuous", "discrete"]
    report: CloneReport | None
    on_bounds: float
    warnings: tuple[str, ...] = ()

    @property
    def spaces(self) -> tuple[int, int, Literal["continuous", "discrete"]]:
        """S, A and the kind of actions."""
        return self.states.shape[1], self.actions.shape[1], self.action_kind

    def require(self, policies: Sequence[Policy]) -> None:
        """That the ratio of each of these can be told.

        Raises:
            PolicyError: if one has no density, or none of its draws where the log needs it.
        """
        for policy in policies:
            if not self._of_draws(policy):
                require_likelihood(policy)
                self._executed_log_prob(policy)

    def log_ratio(self, policy: Policy) -> Tensor:
        """log π(a | s) − log μ(a | s), `[R]` float64, on the CPU; −∞ where π never does this.

        Raises:
            PolicyError: if the policy has no density, or gives NaN or an infinite one.
        """
        return self.log_ratios([policy])[0]

    def log_ratios(self, policies: Sequence[Policy]) -> Tensor:
        """Of several policies, `[P, R]`; policies of one architecture in one call.

        Raises:
            PolicyError: if a policy has no density, or gives NaN or an infinite one, or not one for
                each state.
        """
        self.require(policies)
        found = torch.empty((len(policies), len(self.actions)), dtype=torch.float64)
        for group in group_policies(policies, self.states.device, max(1, len(policies))):
            found[list(group.indices)] = self._of_group(group, policies[group.indices[0]])
        return found

    @torch.no_grad()
    def _of_group(self, group: PolicyGroup, first: Policy) -> Tensor:
        of_draws, count = self._of_draws(first), len(group.indices)
        behaviour = self.log_prob if of_draws else self._executed_log_prob(first)
        actions = self.proposed if of_draws and self.proposed is not None else self.actions
        rows = max(1, ROWS_AT_ONCE // count)
        parts = []
        for state, action in zip(
            torch.split(self.states, rows), torch.split(actions, rows), strict=True
        ):
            wide = (of.expand(count, *of.shape) for of in (state, action))
            if of_draws and isinstance(group.policy, ProposingPolicy):
                parts.append(group.policy.proposal_log_prob(*wide))
            else:
                parts.append(log_likelihood(group.policy, *wide))
            if parts[-1].shape[-1] != len(state) or parts[-1].numel() != count * len(state):
                raise PolicyError(
                    f"{type(first).__name__} gave log-probabilities of the shape "
                    f"{list(parts[-1].shape)} at states of {[count, *state.shape]}; one for each "
                    "state is expected, summed over the action's entries."
                )
        target = torch.cat(parts, -1).double()
        bad = int((target.isnan() | (target == torch.inf)).sum())
        if bad:
            raise PolicyError(
                f"{type(first).__name__} gave NaN or an infinite density for {bad} of "
                f"{target.numel()} logged actions; look for NaN in its weights, or for a "
                "distribution that is infinite on the action bounds."
            )
        return (target - behaviour).cpu()

    def _of_draws(self, policy: Policy) -> bool:
        """Whether this policy's ratio is of draws that executing them may have changed."""
        return (
            self.proposed is not None
            and isinstance(policy, ProposingPolicy)
            and has_density(policy)
        )

    def _executed_log_prob(self, policy: Policy) -> Tensor:
        if self.log_prob_of_actions is None:
            raise PolicyError(
                f"The logged likelihoods are of draws before clipping, which {self.on_bounds:.1%} "
                f"of the actions underwent, and {type(policy).__name__} has no proposal_log_prob "
                "to meet them; give it one, or estimate the behaviour with "
                "BehaviourConfig(source='cloned')."
            )
        return self.log_prob_of_actions


def fit_policy_ratio(
    data: Trajectories, config: BehaviourConfig, seed: int, *, progress: Progress = silent
) -> PolicyRatio:
    """The behaviour's likelihoods of a log: as logged, or from clones.

    Args:
        data: the log.
        config: where likelihoods come from.
        seed: of the clones.
        progress: told how far training is.

    Raises:
        DataError: if likelihoods shall be the logged ones and there are none; or there are too few
            episodes to clone from.
        DivergedError: if a clone's loss stops being finite.
    """
    logged = data.log_prob
    if config.source == "logged" and logged is None:
        raise DataError(
            "The log carries no log_prob of the behaviour; use BehaviourConfig(source='cloned'), "
            "which estimates it."
        )
    on_bounds = _share_on_bounds(data)
    proposed = _clipped_draws(data)
    warnings: list[str] = []
    report = None
    if config.source == "cloned" or logged is None:
        cloned = fit_behaviour(data, config, seed, progress=progress)
        of_draws, report = cloned.log_prob, cloned.report
        of_actions: Tensor | None = cloned.log_prob_of_actions
        warnings += _clone_warnings(report)
        if proposed is None and not config.squashed:
            warnings += _unsaid_bounds_warnings(data, on_bounds)
    else:
        of_draws = torch.from_numpy(logged.astype(np.float64)).to(config.device)
        of_actions = of_draws if proposed is None else None
        if data.proposed_actions is None and on_bounds >= NOTICEABLE_ON_BOUNDS:
            warnings.append(
                f"{on_bounds:.1%} of the logged actions lie on an action bound, and the log does "
                "not say what was drawn: if its log_prob there is a density and not a probability, "
                "the weights are wrong; log proposed_actions, or use "
                "BehaviourConfig(source='cloned')."
            )
    device = config.device
    episode = np.repeat(np.arange(data.num_episodes), data.lengths)
    return PolicyRatio(
        states=_on(data.states[np.arange(data.num_transitions) + episode], device),
        actions=_on(data.actions, device),
        proposed=None if proposed is None else _on(proposed, device),
        log_prob=of_draws,
        log_prob_of_actions=of_actions,
        action_kind=data.action_spec.kind,
        report=report,
        on_bounds=on_bounds,
        warnings=tuple(warnings),
    )


def _on(array: NDArray[np.float32], device: str) -> Tensor:
    # torch takes no array that may not be written to, such as a file mapped into memory.
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def _share_on_bounds(data: Trajectories) -> float:
    """Of transitions, those with an action entry exactly on a bound that leaves it a choice.

    Where the log does not say a bound, several actions that tie at the extreme show it: draws of a
    density do not.
    """
    if data.action_spec.kind == "discrete":
        return 0.0
    low, high = (
        np.asarray(bound, np.float32) for bound in (data.action_spec.low, data.action_spec.high)
    )
    actions = data.actions
    least, most = actions.min(0), actions.max(0)
    low = np.where(np.isneginf(low) & ((actions == least).sum(0) > 1), least, low)
    high = np.where(np.isposinf(high) & ((actions == most).sum(0) > 1), most, high)
    there = ((actions <= low) | (actions >= high)) & (low < high)
    return float(there.any(1).mean())


def _clipped_draws(data: Trajectories) -> NDArray[np.float32] | None:
    """What the behaviour drew, where executing it changed any of it."""
    proposed = data.proposed_actions
    if proposed is None or data.action_spec.kind == "discrete":
        return None
    return proposed if (proposed != data.actions).any() else None


def _unsaid_bounds_warnings(data: Trajectories, on_bounds: float) -> list[str]:
    bounds = (data.action_spec.low, data.action_spec.high)
    if on_bounds < NOTICEABLE_ON_BOUNDS or np.isfinite(bounds).all():
        return []
    return [
        f"{on_bounds:.1%} of the logged actions look clipped, and the log does not say its action "
        "bounds, so the clones take them for draws of a density and the weights are wrong; load "
        "the log with its action_space."
    ]


def _clone_warnings(report: CloneReport) -> list[str]:
    if report.log_likelihood > report.state_independent_log_likelihood:
        return []
    return [
        "The clones of the behaviour tell its actions no better than a fit that does not look at "
        f"states (held-out log-likelihood {report.log_likelihood:.3g} against "
        f"{report.state_independent_log_likelihood:.3g} a transition): either it does not look "
        "at them, or weights rest on a behaviour that was not learned; clone from more episodes."
    ]

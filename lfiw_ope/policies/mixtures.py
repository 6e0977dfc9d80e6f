"""Mixtures of policies, and ε-greedy as one of them."""

import copy
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import PolicyError
from lfiw_ope.core.protocols import Policy, ProposingPolicy, StackablePolicy, has_density
from lfiw_ope.core.validation import real
from lfiw_ope.policies.acting import alike
from lfiw_ope.policies.functions import UniformPolicy
from lfiw_ope.policies.likelihood import has_likelihood, log_likelihood


class Mixture:
    """At every step, one of several policies acts, drawn anew: π(a | s) = Σ_c w_c π_c(a | s).

    A mixture over whole episodes, where one policy acts from start to end, is another thing: its
    value is the weighted mean of the policies' values.

    Args:
        policies: C of them, of the same states and actions.
        weights: C probabilities.

    Raises:
        PolicyError: if the policies are not of the same spaces, or the weights no distribution.
    """

    def __init__(self, policies: Sequence[Policy], weights: Sequence[float]) -> None:
        self.policies = tuple(policies)
        chances = torch.tensor([float(weight) for weight in weights], dtype=torch.float64)
        if len(chances) != len(self.policies) or len(chances) == 0:
            raise PolicyError(
                f"The mixture has {len(self.policies)} policies and {len(chances)} weights; give "
                "each policy one."
            )
        if not ((chances >= 0).all() and abs(float(chances.sum()) - 1.0) < 1e-6):
            raise PolicyError(
                f"The weights are {list(weights)}; they must be 0 or more and sum to 1."
            )
        self.weights = chances[None]  # [P, C]
        self.action_spec = _common_spec(self.policies)

    @property
    def state_size(self) -> int:
        return self.policies[0].state_size

    @property
    def action_size(self) -> int:
        return self.policies[0].action_size

    @property
    def has_density(self) -> bool:
        return all(has_likelihood(policy) for policy in self.policies)

    @property
    def stack_key(self) -> Hashable:
        keys = (
            policy.stack_key if isinstance(policy, StackablePolicy) else ("alone", id(policy))
            for policy in self.policies
        )
        return "mixture", *keys

    def stack(self, others: Sequence["Mixture"]) -> "Mixture":
        """One policy of all these policies' axes P, one after the other; a copy."""
        stacked = copy.copy(self)
        stacked.weights = torch.cat([one.weights for one in (self, *others)])
        columns: Any = zip(*(one.policies for one in (self, *others)), strict=True)
        stacked.policies = tuple(
            first.stack(rest) if isinstance(first, StackablePolicy) else first
            for first, *rest in columns
        )
        return stacked

    def to(self, device: torch.device | str) -> "Mixture":
        moved = copy.copy(self)
        moved.weights = self.weights.to(device)
        moved.policies = tuple(
            policy.to(device) if isinstance(policy, StackablePolicy) else policy
            for policy in self.policies
        )
        return moved

    def propose(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """The chosen policies' own draws, before clipping; a policy without such gives actions."""
        uniform = torch.rand(
            state.shape[-2], generator=generator, device=state.device, dtype=torch.float64
        )
        levels = self.weights.cumsum(-1)  # [P, C]
        levels = levels[:, None] if state.dim() == 3 else levels
        below = (levels < uniform[:, None] * levels[..., -1:]).sum(-1, keepdim=True)
        drawn = None
        for index, policy in enumerate(self.policies):
            draw = policy.propose if isinstance(policy, ProposingPolicy) else policy.act
            own = draw(state, generator)
            drawn = own if drawn is None else torch.where(below == index, own, drawn)
        assert drawn is not None
        return drawn

    def execute(self, proposed: Tensor) -> Tensor:
        """Clipped to the action bounds, which the policies share."""
        for policy in self.policies:
            if isinstance(policy, ProposingPolicy):
                return policy.execute(proposed)
        return proposed

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        return self.execute(self.propose(state, generator))

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor:
        """log Σ_c w_c π_c(action | state) of executed actions.

        Raises:
            PolicyError: if a policy is deterministic and its actions continuous.
        """
        return self._mixed([log_likelihood(policy, state, action) for policy in self.policies])

    def proposal_log_prob(self, state: Tensor, proposed: Tensor) -> Tensor:
        """log Σ_c w_c π_c(proposed | state), before clipping.

        Raises:
            PolicyError: if a policy is deterministic and its actions continuous.
        """
        return self._mixed(
            [
                policy.proposal_log_prob(state, proposed)
                if isinstance(policy, ProposingPolicy) and has_density(policy)
                else log_likelihood(policy, state, proposed)
                for policy in self.policies
            ]
        )

    def _mixed(self, of_each: list[Tensor]) -> Tensor:
        together = torch.stack(of_each, -1)
        log_weights = self.weights.log().to(together.dtype)
        log_weights = log_weights[:, None] if together.dim() == 3 else log_weights
        return torch.logsumexp(together + log_weights, -1)


class EpsilonGreedy(Mixture):
    """With probability ε a uniform action, else the policy's own, drawn anew at every step.

    Uniform over all discrete actions, the policy's own included; or over the box of the bounds,
    which must be finite.

    Args:
        policy: any; a deterministic one of discrete actions gets a distribution by this, one of
            continuous actions does not.
        epsilon: ε.
        action_spec: what actions are, where the policy does not say; a log's `action_spec` will do.

    Raises:
        PolicyError: if neither says what actions are, or bounds are infinite.
        ConfigError: if ε is not in [0, 1].
    """

    def __init__(
        self, policy: Policy, epsilon: float, *, action_spec: ActionSpec | None = None
    ) -> None:
        epsilon = real("epsilon", epsilon, least=0.0, most=1.0)
        spec = action_spec or getattr(policy, "action_spec", None)
        if spec is None:
            raise PolicyError(
                f"{type(policy).__name__} does not say what its actions are; pass "
                "action_spec, such as a log's."
            )
        uniform = UniformPolicy(policy.state_size, spec)
        super().__init__([policy, uniform], [1.0 - epsilon, epsilon])


def _common_spec(policies: Sequence[Policy]) -> ActionSpec | None:
    sizes = {(policy.state_size, policy.action_size) for policy in policies}
    if len(sizes) != 1:
        raise PolicyError(f"The mixture's policies have (S, A) of {sorted(sizes)}; one is needed.")
    said = [spec for policy in policies if (spec := getattr(policy, "action_spec", None))]
    if not all(alike(said[0], spec, unbounded_is_unknown=False) for spec in said):
        raise PolicyError(
            f"The mixture's policies act in {', '.join(map(str, said))}; they must share one "
            "action space."
        )
    return said[0] if said else None

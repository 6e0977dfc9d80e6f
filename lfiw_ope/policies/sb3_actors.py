"""The actors of stable-baselines3's and sb3-contrib's policies, rebuilt from their tensors."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import PolicyError
from lfiw_ope.policies.heads import (
    CategoricalHead,
    DeterministicHead,
    GaussianHead,
    GreedyHead,
    Head,
    SquashedGaussianHead,
    StateDependentHead,
)
from lfiw_ope.policies.mlp import MLPPolicy, ObservationNormaliser

ACTIVATIONS = {
    "Tanh": "tanh",
    "ReLU": "relu",
    "SiLU": "silu",
    "ELU": "elu",
    "GELU": "gelu",
    "LeakyReLU": "leaky_relu",
}
"""Classes of torch.nn, made without arguments, by which stable-baselines3 names an activation."""


@dataclass(frozen=True)
class ActorFacts:
    """What a policy's tensors do not say.

    Attributes:
        policy_class: its name in stable-baselines3 or sb3-contrib.
        activation: between its layers.
        action_spec: what its actions are.
        squash_output: whether ARS, or PPO with gSDE, squashes its output by a tanh.
        use_expln: how gSDE makes its log σ positive.
        clip_mean: where SAC's and TQC's gSDE clip the mean.
    """

    policy_class: str
    activation: str
    action_spec: ActionSpec
    squash_output: bool
    use_expln: bool
    clip_mean: float


ANY_OTHER = (
    "Any other policy acts by from_function(lambda states: model.predict(states, "
    "deterministic=True)[0], ...)."
)

Layer = tuple[Tensor, Tensor]
"""Weight `[in, out]` and bias `[out]`."""


class _Tensors:
    """A policy's tensors, taken one after the other, so that none is overlooked."""

    def __init__(self, tensors: Mapping[str, Tensor], ignored: tuple[str, ...]) -> None:
        self.left = {k: v for k, v in tensors.items() if not k.startswith(ignored)}

    def take(self, name: str) -> Tensor | None:
        return self.left.pop(name, None)

    def layer(self, name: str) -> Layer:
        weight = self.take(f"{name}.weight")
        if weight is None or weight.dim() != 2:
            raise PolicyError(
                f"The policy's tensors hold no layer {name}; only the networks of 'MlpPolicy' work."
            )
        bias = self.take(f"{name}.bias")
        return weight.T, torch.zeros(len(weight)) if bias is None else bias

    def layers(self, name: str) -> list[Layer]:
        """Of a Sequential: a linear layer, an activation, a linear layer, and so on."""
        pattern = re.compile(re.escape(name) + r"\.(\d+)\.weight")
        found = sorted(int(match[1]) for key in self.left if (match := pattern.fullmatch(key)))
        if found != list(range(0, 2 * len(found), 2)):
            raise PolicyError(
                f"The layers of {name} are numbered {found}; expected 0, 2, 4, …, linear layers "
                "with nothing but an activation between them."
            )
        return [self.layer(f"{name}.{i}") for i in found]

    def finish(self) -> None:
        if self.left:
            raise PolicyError(
                f"The policy has {', '.join(sorted(self.left)[:3])}, which is none of the tensors "
                "of 'MlpPolicy'; images, Dict observations, recurrent and normalising layers do "
                "not work."
            )


def rebuild_actor(
    tensors: Mapping[str, Tensor],
    facts: ActorFacts,
    *,
    deterministic: bool,
    normaliser: ObservationNormaliser | None,
) -> MLPPolicy:
    """The actor alone, of a policy of a known class.

    Raises:
        PolicyError: if the class is not known, or the tensors are not those of its 'MlpPolicy'.
    """
    if facts.policy_class not in FAMILIES:
        raise PolicyError(
            f"The policy is a {facts.policy_class}; known are {', '.join(FAMILIES)}, that is "
            f"'MlpPolicy' of PPO, A2C, TRPO, SAC, TQC, TD3, DDPG, DQN, QRDQN and ARS. {ANY_OTHER}"
        )
    family, ignored = FAMILIES[facts.policy_class]
    taken = _Tensors({name: value.detach().cpu() for name, value in tensors.items()}, ignored)
    layers, head = family(taken, facts)
    taken.finish()
    sizes = [(weight.shape, bias.shape) for weight, bias in layers]
    fit = all(before[0][1] == after[0][0] for before, after in pairwise(sizes))
    if not fit or any(weight[1:] != bias for weight, bias in sizes):
        raise PolicyError(
            f"The policy's layers do not fit together: {[tuple(w) for w, _ in sizes]} with biases "
            f"of {[tuple(b) for _, b in sizes]}; the file is damaged."
        )
    if head.action_size(sizes[-1][0][1]) != facts.action_spec.size:
        raise PolicyError(
            f"The policy's network gives {head.action_size(sizes[-1][0][1])} actions and its "
            f"action space has {facts.action_spec.size}; the file is damaged."
        )
    return MLPPolicy.from_layers(
        [weight for weight, _ in layers],
        [bias for _, bias in layers],
        head,
        activation=facts.activation,
        deterministic=deterministic,
        normaliser=normaliser,
    )


def _bounds(facts: ActorFacts) -> tuple[Tensor, Tensor]:
    spec = facts.action_spec
    if spec.kind != "continuous":
        raise PolicyError(f"A {facts.policy_class} of discrete actions is not known.")
    low, high = (torch.tensor(bound, dtype=torch.float32)[None] for bound in (spec.low, spec.high))
    return low, high


def _actor_critic(tensors: _Tensors, facts: ActorFacts) -> tuple[list[Layer], Head]:
    """PPO, A2C and TRPO."""
    layers = [*tensors.layers("mlp_extractor.policy_net"), tensors.layer("action_net")]
    log_std = tensors.take("log_std")
    if facts.action_spec.kind == "discrete":
        return layers, CategoricalHead()
    low, high = _bounds(facts)
    if log_std is None:
        raise PolicyError("The policy has continuous actions and no log_std; the file is damaged.")
    if log_std.dim() == 1:
        return layers, GaussianHead(log_std[None], low, high)
    return layers, _state_dependent(log_std, torch.inf, facts, squashed=facts.squash_output)


def _soft_actor(tensors: _Tensors, facts: ActorFacts) -> tuple[list[Layer], Head]:
    """SAC and TQC."""
    layers = tensors.layers("actor.latent_pi")
    log_std = tensors.take("actor.log_std")
    if log_std is None:
        mean, spread = tensors.layer("actor.mu"), tensors.layer("actor.log_std")
        both = torch.cat([mean[0], spread[0]], 1), torch.cat([mean[1], spread[1]])
        return [*layers, both], SquashedGaussianHead(*_bounds(facts))
    clipped = "actor.mu.0.weight" in tensors.left
    mean = tensors.layer("actor.mu.0" if clipped else "actor.mu")
    limit = facts.clip_mean if clipped else torch.inf
    return [*layers, mean], _state_dependent(log_std, limit, facts, squashed=True)


def _state_dependent(
    log_std: Tensor, limit: float, facts: ActorFacts, *, squashed: bool
) -> StateDependentHead:
    low, high = _bounds(facts)
    std = log_std.exp()
    if facts.use_expln:  # Raffin et al. 2020: linear growth above 1
        std = torch.where(log_std > 0, torch.log1p(log_std.clamp_min(0) + 1e-6) + 1.0, std)
    std = std.expand(-1, low.shape[1])  # one column for all entries where full_std is off
    return StateDependentHead(std[None], torch.full((1, 1), limit), low, high, squashed=squashed)


def _deterministic_actor(tensors: _Tensors, facts: ActorFacts) -> tuple[list[Layer], Head]:
    """TD3 and DDPG."""
    return tensors.layers("actor.mu"), DeterministicHead(*_bounds(facts), squashed=True)


def _random_search(tensors: _Tensors, facts: ActorFacts) -> tuple[list[Layer], Head]:
    """ARS, whose linear policy old versions did not wrap in a Sequential."""
    bare = "action_net.weight" in tensors.left
    layers = [tensors.layer("action_net")] if bare else tensors.layers("action_net")
    if facts.action_spec.kind == "discrete":
        return layers, GreedyHead()
    return layers, DeterministicHead(*_bounds(facts), squashed=facts.squash_output)


def _action_values(tensors: _Tensors, facts: ActorFacts) -> tuple[list[Layer], Head]:  # noqa: ARG001
    """DQN."""
    return tensors.layers("q_net.q_net"), GreedyHead()


def _quantiles(tensors: _Tensors, facts: ActorFacts) -> tuple[list[Layer], Head]:
    """QRDQN: the mean over quantiles of a linear layer is a linear layer."""
    *layers, (weight, bias) = tensors.layers("quantile_net.quantile_net")
    actions = facts.action_spec.size
    if len(bias) % actions:
        raise PolicyError(f"The policy has {len(bias)} quantiles for {actions} actions in all.")
    weight = weight.reshape(len(weight), -1, actions).mean(1)
    return [*layers, (weight, bias.reshape(-1, actions).mean(0))], GreedyHead()


Family = Callable[[_Tensors, ActorFacts], tuple[list[Layer], Head]]

FAMILIES: dict[str, tuple[Family, tuple[str, ...]]] = {
    "ActorCriticPolicy": (_actor_critic, ("value_net.", "mlp_extractor.value_net.")),
    "SACPolicy": (_soft_actor, ("critic.", "critic_target.")),
    "TQCPolicy": (_soft_actor, ("critic.", "critic_target.")),
    "TD3Policy": (_deterministic_actor, ("critic.", "critic_target.", "actor_target.")),
    "DQNPolicy": (_action_values, ("q_net_target.",)),
    "QRDQNPolicy": (_quantiles, ("quantile_net_target.",)),
    "ARSPolicy": (_random_search, ()),
    "ARSLinearPolicy": (_random_search, ()),
}
"""By the policy's class: how its actor is rebuilt, and the tensors that do not act."""

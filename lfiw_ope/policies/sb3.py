"""Policies trained by stable-baselines3 or sb3-contrib: a model in memory, or its zip.

A zip holds pickles. By default none is executed: the plain JSON says the algorithm, the network
and the spaces, `policy.pth` gives tensors only (`weights_only=True`), and what the JSON does not
say is asked for.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import PolicyError
from lfiw_ope.policies.mlp import MLPPolicy
from lfiw_ope.policies.normaliser import ObservationNormaliser
from lfiw_ope.policies.sb3_actors import ACTIVATIONS, ANY_OTHER, ActorFacts, rebuild_actor
from lfiw_ope.policies.sb3_settings import FLATTEN
from lfiw_ope.policies.sb3_trusted import unpickle_model
from lfiw_ope.policies.sb3_zip import SB3Zip
from lfiw_ope.policies.vec_normalize import load_vec_normalize


def from_sb3(model: Any, *, deterministic: bool = False, vec_normalize: Any = None) -> MLPPolicy:
    """The policy of a stable-baselines3 or sb3-contrib model with an MLP policy.

    PPO, A2C, TRPO, SAC, TQC, TD3, DDPG, DQN, QRDQN and ARS. The result acts in the environment's
    units, squashed, rescaled or clipped to the action bounds as the model does; it holds a copy of
    the weights. TD3, DDPG, DQN, QRDQN and ARS are deterministic in any case; their exploration is
    not part of the model's policy, but `EpsilonGreedy` adds some.

    Args:
        model: the algorithm, or its policy.
        deterministic: act by the mode, as `predict(deterministic=True)` does.
        vec_normalize: the `VecNormalize`, its file or an `ObservationNormaliser`; where it is left
            out, the one that wraps the model's own environment, if any.

    Raises:
        PolicyError: if the model's policy is not of the kind that can be taken over.
    """
    policy = getattr(model, "policy", model)
    if vec_normalize is None and hasattr(model, "get_vec_normalize_env"):
        vec_normalize = model.get_vec_normalize_env()
    return rebuild_actor(
        policy.state_dict() if hasattr(policy, "state_dict") else {},
        _facts(policy),
        deterministic=deterministic,
        normaliser=_normaliser(vec_normalize),
    )


def load_sb3(
    path: str | Path,
    *,
    deterministic: bool = False,
    trust: bool = False,
    activation: str | None = None,
    action_spec: ActionSpec | None = None,
    vec_normalize: Any = None,
) -> MLPPolicy:
    """The policy in a zip that stable-baselines3 or sb3-contrib saved; see `from_sb3`.

    A zip does not say whether the model was trained behind a `VecNormalize`: its statistics are a
    file of their own, and a policy without them acts on observations it never saw.

    Args:
        path: the zip.
        deterministic: act by the mode.
        trust: load through stable-baselines3, which executes pickles in the file. Only for files
            of your own.
        activation: "tanh", "relu" or another of torch's, where the plain JSON does not say it.
        action_spec: what actions are, where the plain JSON does not say their bounds; a log's
            `action_spec` will do.
        vec_normalize: what `VecNormalize.save` wrote, or an `ObservationNormaliser`.

    Raises:
        DataError: if the file is missing or no such zip.
        UntrustedFileError: if only a pickle says what is needed; it says what to pass instead.
        PolicyError: if the policy is not of the kind that can be taken over.
    """
    archive = SB3Zip.open(Path(path))
    normaliser = _normaliser(vec_normalize)
    if trust:
        if activation is not None or action_spec is not None:
            raise PolicyError(
                "trust=True takes everything from the file; leave activation and action_spec out."
            )
        return from_sb3(
            unpickle_model(archive), deterministic=deterministic, vec_normalize=normaliser
        )
    facts = archive.facts(activation, action_spec)
    return rebuild_actor(
        archive.tensors(), facts, deterministic=deterministic, normaliser=normaliser
    )


def _normaliser(given: Any) -> ObservationNormaliser | None:
    if given is None or isinstance(given, ObservationNormaliser):
        return given
    if isinstance(given, str | Path):
        return load_vec_normalize(given)
    if hasattr(given, "obs_rms") or hasattr(given, "norm_obs"):
        return ObservationNormaliser.from_vec_normalize(given)
    raise PolicyError(
        f"vec_normalize is a {type(given).__name__}; expected a VecNormalize, the path of its file "
        "or what load_vec_normalize gives."
    )


def _facts(policy: Any) -> ActorFacts:
    """What a policy in memory says of itself."""
    kind = type(policy)
    if kind.__module__.split(".")[0] not in ("stable_baselines3", "sb3_contrib"):
        raise PolicyError(
            f"{kind.__module__}.{kind.__name__} is no policy of stable-baselines3 or sb3-contrib. "
            f"{ANY_OTHER}"
        )
    extractor = getattr(policy, "features_extractor_class", None)
    if str(extractor) != FLATTEN:
        raise PolicyError(
            f"The policy has the features extractor {extractor}; only 'MlpPolicy' with "
            "stable-baselines3's own FlattenExtractor works."
        )
    if len(policy.observation_space.shape or ()) > 1 and policy.observation_space.dtype == np.uint8:
        raise PolicyError(
            "The policy takes images, which stable-baselines3 rescales; only vectors work."
        )
    actor = getattr(policy, "actor", policy)
    activation = getattr(policy.activation_fn, "__name__", str(policy.activation_fn))
    if not getattr(policy.activation_fn, "__module__", "").startswith("torch.nn"):
        activation = f"{activation} of your own"
    if activation not in ACTIVATIONS:
        raise PolicyError(
            f"The policy's activation is {activation}; only {', '.join(ACTIVATIONS)} are known."
        )
    return ActorFacts(
        policy_class=kind.__name__,
        activation=ACTIVATIONS[activation],
        action_spec=_action_spec(policy.action_space),
        squash_output=bool(policy.squash_output),
        use_expln=bool(getattr(getattr(actor, "action_dist", None), "use_expln", False)),
        clip_mean=float(getattr(actor, "clip_mean", 2.0)),
    )


def _action_spec(space: Any) -> ActionSpec:
    kind = type(space).__name__
    if kind == "Discrete":
        return ActionSpec.discrete(int(space.n))
    if kind == "Box":
        return ActionSpec.continuous(space.low, space.high)
    raise PolicyError(f"The policy's action space is {kind}; Box and Discrete work.")

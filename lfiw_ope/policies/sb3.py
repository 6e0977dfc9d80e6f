"""Policies trained by stable-baselines3 or sb3-contrib: a model in memory, or its zip.

A zip holds pickles. By default none is executed: the plain JSON says the algorithm, the network
and the spaces, `policy.pth` gives tensors only (`weights_only=True`), and what the JSON does not
say is asked for.
"""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import DataError, PolicyError
from lfiw_ope.core.runtime import needed
from lfiw_ope.policies.mlp import MLPPolicy, ObservationNormaliser
from lfiw_ope.policies.sb3_actors import ACTIVATIONS, ANY_OTHER, ActorFacts, rebuild_actor
from lfiw_ope.policies.sb3_zip import FLATTEN, PICKLED, SB3Zip
from lfiw_ope.policies.vec_normalize import load_vec_normalize

_ALGORITHMS = {
    "top_quantiles_to_drop_per_net": ("sb3_contrib", "TQC"),
    "n_delta": ("sb3_contrib", "ARS"),
    "cg_max_steps": ("sb3_contrib", "TRPO"),
    "n_quantiles": ("sb3_contrib", "QRDQN"),
    "clip_range": ("stable_baselines3", "PPO"),
    "policy_delay": ("stable_baselines3", "TD3"),  # DDPG is TD3 with other settings
    "target_entropy": ("stable_baselines3", "SAC"),
    "exploration_rate": ("stable_baselines3", "DQN"),
    "gae_lambda": ("stable_baselines3", "A2C"),
}
"""By a setting that those before it in the list do not have."""

_EXTRAS = {"stable_baselines3": "sb3", "sb3_contrib": "sb3-contrib"}

_NEEDED = {
    *("policy_class", "policy_kwargs", "observation_space", "action_space"),
    *("train_freq", "target_entropy", "rollout_buffer_class", "replay_buffer_class"),
}
"""What a model is set up from. The other pickles are left unread even in a trusted file: schedules
hold byte code, which another version of Python cannot run."""


def unpickle_model(archive: SB3Zip) -> Any:
    """The model, by its own algorithm's `load`.

    Raises:
        MissingDependencyError: if its algorithm is not installed.
        DataError: if stable-baselines3 cannot load it.
    """
    path, said = archive.path, archive.said
    found = next((algorithm for key, algorithm in _ALGORITHMS.items() if key in said), None)
    if found is None:
        raise DataError(
            f"{path} is of none of the algorithms {', '.join(n for _, n in _ALGORITHMS.values())}."
        )
    package, name = found
    with needed(f"trust=True needs {package} for {name}", extra=_EXTRAS[package]):
        algorithm = getattr(importlib.import_module(package), name)
    try:
        return algorithm.load(path, device="cpu", custom_objects=_replacements(archive))
    except Exception as error:  # whatever the file's own code raises
        raise DataError(
            f"{package} cannot load {path} as {name} ({type(error).__name__}: {error})."
        ) from error


def _replacements(archive: SB3Zip) -> dict[str, Any]:
    """For what is not needed, would not fit, or names packages that are no longer there."""
    replaced: dict[str, Any] = {
        key: 0.0 if re.search(r"schedule|learning_rate|clip_range$", key) else None
        for key, value in archive.said.items()
        if key not in _NEEDED and isinstance(value, dict) and PICKLED in value
    }
    if "buffer_size" in archive.said:
        replaced["buffer_size"] = 1  # a replay buffer of the training's size could fill the memory
    for key in ("observation_space", "action_space"):
        if "'gym." in str(archive.said[key].get(":type:")):
            replaced[key] = archive.gymnasium_space(key)  # Gym is not installed beside Gymnasium
    return replaced


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

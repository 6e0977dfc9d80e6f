"""Policies trained by stable-baselines3's PPO: a model in memory, or its zip.

A zip holds pickles. By default none is executed: the plain JSON says the algorithm, the network
and the spaces, `policy.pth` gives tensors only (`weights_only=True`), and what the JSON does not
say is asked for.
"""

import io
import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lfiw_ope.errors import DataError, MissingDependencyError, PolicyError, UntrustedFileError
from lfiw_ope.policies.heads import CategoricalHead, GaussianHead
from lfiw_ope.policies.mlp import MLPPolicy

_ACTIVATIONS = {"Tanh": "tanh", "ReLU": "relu", "SiLU": "silu"}


def from_sb3(model: Any, *, deterministic: bool = False) -> MLPPolicy:
    """The policy of a stable-baselines3 PPO model with an MLP policy.

    The result acts in the environment's units and clips to the action bounds, as the model does
    when it collects; it holds a copy of the weights.

    Raises:
        PolicyError: if the model's policy is not of the kind that can be taken over.
    """
    policy = getattr(model, "policy", model)
    if not hasattr(policy, "mlp_extractor") or not hasattr(policy, "action_net"):
        raise PolicyError(
            f"{type(model).__name__} has no actor-critic MLP policy; PPO with 'MlpPolicy' works."
        )
    extractor = type(getattr(policy, "features_extractor", None)).__name__
    if extractor != "FlattenExtractor":
        raise PolicyError(
            f"The policy has a {extractor}; only 'MlpPolicy', which flattens observations, works."
        )
    if len(policy.observation_space.shape) > 1 and policy.observation_space.dtype == "uint8":
        raise PolicyError(
            "The policy takes images, which stable-baselines3 rescales; only vectors work."
        )
    activation = policy.activation_fn.__name__
    space = policy.action_space
    kind = _space_kind(type(space).__name__)
    bounds = None if kind == "Discrete" else (space.low, space.high)
    return _rebuild(
        policy.state_dict(),
        activation=_known_activation(activation),
        bounds=bounds,
        use_sde=bool(getattr(policy, "use_sde", False)),
        squashed=bool(getattr(policy, "squash_output", False)),
        discrete=kind == "Discrete",
        deterministic=deterministic,
    )


def _space_kind(name: str) -> str:
    if name not in ("Box", "Discrete"):
        raise PolicyError(f"The policy's action space is {name}; Box and Discrete work.")
    return name


def load_sb3(
    path: str | Path,
    *,
    deterministic: bool = False,
    trust: bool = False,
    activation: str | None = None,
) -> MLPPolicy:
    """The policy in a zip that stable-baselines3's PPO saved.

    Args:
        path: the zip.
        deterministic: act by the mode.
        trust: load through stable-baselines3, which executes pickles in the file. Only for files
            of your own.
        activation: "tanh", "relu" or "silu", where the plain JSON does not say it.

    Raises:
        DataError: if the file is missing or no such zip.
        UntrustedFileError: if only a pickle says what is needed; it says what to pass instead.
        PolicyError: if the policy is not of the kind that can be taken over.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no policy file {path}.")
    if trust:
        try:
            from stable_baselines3 import PPO
        except ImportError as error:
            raise MissingDependencyError(
                "trust=True needs stable-baselines3: pip install 'lfiw-ope[sb3]'."
            ) from error
        return from_sb3(PPO.load(path, device="cpu"), deterministic=deterministic)
    said, tensors = _read_zip(path)
    kwargs = said.get("policy_kwargs") or {}
    if ":serialized:" in kwargs:
        if activation is None:
            raise UntrustedFileError(
                f"{path} keeps its policy_kwargs in a pickle, so its activation function is not "
                "known; pass activation='tanh', 'relu' or 'silu', or trust=True if the file is "
                "yours."
            )
    elif activation not in (None, "tanh"):
        raise PolicyError(
            f"activation is {activation!r}, but {path} says that the policy was built with "
            "stable-baselines3's default, tanh; leave the argument out."
        )
    else:
        activation = "tanh"
    space = said["action_space"]
    kind = re.sub(r".*\.(\w+)'>$", r"\1", str(space.get(":type:", "")))
    discrete = _space_kind(kind) == "Discrete"
    return _rebuild(
        tensors,
        activation=activation,
        bounds=None if discrete else (_numbers(space, "low", path), _numbers(space, "high", path)),
        use_sde=bool(said.get("use_sde", False)),
        squashed=bool(kwargs.get("squash_output", False)),
        discrete=discrete,
        deterministic=deterministic,
    )


def _read_zip(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The plain JSON and the tensors; nothing is unpickled but tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            said = json.loads(archive.read("data"))
            stream = io.BytesIO(archive.read("policy.pth"))
        tensors = torch.load(stream, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, EOFError) as error:
        raise DataError(
            f"{path} is not a zip that stable-baselines3 saved ({error}); expected one with "
            "'data' and 'policy.pth' inside."
        ) from error
    except pickle.UnpicklingError as error:  # what torch raises for anything but tensors
        raise UntrustedFileError(
            f"{path} holds more than tensors in policy.pth ({error}); pass trust=True if the "
            "file is yours."
        ) from error
    if not isinstance(said, dict) or not isinstance(said.get("action_space"), dict):
        raise DataError(f"{path} does not say its action space; expected a stable-baselines3 zip.")
    return said, tensors


def _known_activation(name: str) -> str:
    if name not in _ACTIVATIONS:
        raise PolicyError(
            f"The policy's activation is {name}; only {', '.join(_ACTIVATIONS)} are known."
        )
    return _ACTIVATIONS[name]


def _numbers(space: Mapping[str, Any], name: str, path: Path) -> list[float]:
    """A bound from the JSON's printed array, such as '[-1. -1.]'."""
    printed = str(space.get(name, ""))
    found = re.findall(r"-?inf|-?\d+\.?\d*(?:e[+-]?\d+)?", printed)
    shape = space.get("_shape", space.get("shape")) or [len(found)]
    if "..." in printed or not found or len(found) != int(torch.tensor(shape).prod()):
        raise UntrustedFileError(
            f"{path} does not say its action bounds in plain text ({name} is {printed!r}); pass "
            "trust=True if the file is yours."
        )
    return [float(number) for number in found]


def _rebuild(
    tensors: Mapping[str, Tensor],
    *,
    activation: str,
    bounds: Sequence[Any] | None,
    use_sde: bool,
    squashed: bool,
    discrete: bool,
    deterministic: bool,
) -> MLPPolicy:
    """PPO's actor from the tensors of its policy."""
    if use_sde or squashed:
        raise PolicyError(
            "The policy uses state-dependent exploration (gSDE) or a squashed output; "
            "only PPO's default Gaussian and categorical policies are known."
        )
    layers = sorted(
        int(match.group(1))
        for name in tensors
        if (match := re.fullmatch(r"mlp_extractor\.policy_net\.(\d+)\.weight", name))
    )
    names = [f"mlp_extractor.policy_net.{i}" for i in layers] + ["action_net"]
    missing = [name for name in names if f"{name}.weight" not in tensors]
    if missing or any(name.startswith("features_extractor.") for name in tensors):
        raise PolicyError(
            "The tensors are not those of PPO's MLP policy (mlp_extractor.policy_net, action_net); "
            "only 'MlpPolicy' works."
        )
    head: GaussianHead | CategoricalHead
    if discrete:
        head = CategoricalHead()
    elif bounds is None or "log_std" not in tensors:
        raise PolicyError(
            "The policy has no Gaussian noise and is not discrete; Box and Discrete action spaces "
            "work."
        )
    else:
        low, high = (torch.as_tensor(bound, dtype=torch.float32).view(1, -1) for bound in bounds)
        head = GaussianHead(tensors["log_std"][None], low, high)
    return MLPPolicy.from_layers(
        [tensors[f"{name}.weight"].T for name in names],
        [tensors[f"{name}.bias"] for name in names],
        head,
        activation=activation,
        deterministic=deterministic,
    )

"""Policies as safetensors files: layers, noise, bounds and normaliser, and nothing executable."""

import hashlib
import json
from pathlib import Path

from torch import Tensor

from lfiw_ope.errors import DataError, PolicyError
from lfiw_ope.policies.mlp import MLPPolicy
from lfiw_ope.policies.noise import HEADS
from lfiw_ope.policies.normaliser import ObservationNormaliser

FORMAT = "lfiw-ope actor 2"
FORMATS = ("lfiw-ope actor 1", FORMAT)
"""The first knew Gaussian and categorical heads alone, which the second writes alike."""


def save_actor(policy: MLPPolicy, path: str | Path) -> Path:
    """Write a single policy; whether it acts deterministically is the reader's choice.

    Raises:
        PolicyError: if the policy is a stack of several, or no network.
    """
    from safetensors.torch import save_file

    if not isinstance(policy, MLPPolicy):
        raise PolicyError(
            f"{type(policy).__name__} is no MLPPolicy, which alone can be saved as layers."
        )
    if policy.network.members != 1:
        raise PolicyError(f"This is a stack of {policy.network.members} policies; save each alone.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    metadata = {
        "format": FORMAT,
        "activation": policy.network.activation,
        "head": policy.head.name,
        "squashed": str(policy.head.arguments().get("squashed", "")),  # of heads that can do both
    }
    tensors = {name: value.contiguous() for name, value in policy.state_dict().items()}
    save_file(tensors, partial, metadata=metadata)
    return partial.replace(path)


def actor_digest(path: str | Path) -> str:
    """Of what an actor's file holds: the same of two files of one policy, whenever written.

    Two files of one policy may differ in their bytes, for safetensors orders its words at random.

    Raises:
        DataError: if there is no such file, or it is no safetensors file.
    """
    metadata, state = _contents(Path(path))
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, values in sorted(state.items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def load_actor(path: str | Path, *, deterministic: bool = False) -> MLPPolicy:
    """Read a policy that `save_actor` wrote.

    Raises:
        DataError: if there is no such file, or it is no actor.
    """
    path = Path(path)
    metadata, state = _contents(path)
    if metadata.get("format") not in FORMATS:
        raise DataError(
            f"{path} says its format is {metadata.get('format')!r}; expected {FORMAT!r}, as "
            "save_actor writes it."
        )
    normaliser = _under("normaliser", state)
    layers = sum(name.startswith("network.weights.") for name in state)
    try:
        return MLPPolicy.from_layers(
            [state[f"network.weights.{i}"][0] for i in range(layers)],
            [state[f"network.biases.{i}"][0, 0] for i in range(layers)],
            HEADS[metadata["head"]](**_under("head", state), **_flags(metadata)),
            activation=metadata["activation"],
            deterministic=deterministic,
            normaliser=ObservationNormaliser(**normaliser) if normaliser else None,
        )
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{path} lacks the tensors of an actor; write it with save_actor."
        ) from error


def _contents(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Words and tensors."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"There is no policy file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{path} is not a safetensors file ({error}).") from error


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix + "."): value
        for name, value in state.items()
        if name.startswith(prefix + ".")
    }


def _flags(metadata: dict[str, str]) -> dict[str, bool]:
    said = metadata.get("squashed", "")
    return {"squashed": said == "True"} if said else {}

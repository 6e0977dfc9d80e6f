"""Policies from files of any known kind, and safetensors files of actors."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import ConfigError, DataError, PolicyError
from lfiw_ope.core.protocols import Policy
from lfiw_ope.policies.acting import check_environment
from lfiw_ope.policies.heads import HEADS
from lfiw_ope.policies.mlp import MLPPolicy, ObservationNormaliser
from lfiw_ope.policies.modules import Gives, load_onnx, load_torchscript
from lfiw_ope.policies.sb3 import load_sb3

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


_TORCHSCRIPT = (load_torchscript, ("trust", "gives"), ("state_size", "action_spec"))

_READERS: dict[str, tuple[Callable[..., Policy], tuple[str, ...], tuple[str, ...]]] = {
    ".safetensors": (load_actor, (), ()),
    ".zip": (load_sb3, ("trust", "activation", "vec_normalize"), ()),
    ".onnx": (load_onnx, ("gives", "output"), ("action_spec",)),
    ".pt": _TORCHSCRIPT,
    ".ts": _TORCHSCRIPT,
}
"""By the file's ending: what reads it, the options that it takes, and what the file does not say
of its environment."""


def options_of(path: str | Path) -> tuple[str, ...]:
    """The options of `load_policy` that a file of this ending takes, besides `deterministic`.

    Raises:
        ConfigError: if the ending is not known.
    """
    ending = Path(path).suffix.lower()
    if ending not in _READERS:
        raise ConfigError(
            f"{path} ends in {ending or 'nothing'}; a policy is a .safetensors file of save_actor, "
            "a stable-baselines3 .zip, an .onnx graph, or a TorchScript archive (.pt, .ts)."
        )
    return _READERS[ending][1]


def load_policy(
    path: str | Path,
    *,
    deterministic: bool = False,
    trust: bool = False,
    activation: str | None = None,
    vec_normalize: Any = None,
    gives: Gives | None = None,
    output: str | None = None,
    state_size: int | None = None,
    action_spec: ActionSpec | None = None,
) -> Policy:
    """The policy in a file, by its ending.

    `.safetensors` is read by `load_actor`, `.zip` by `load_sb3`, `.onnx` by `load_onnx`, `.pt` and
    `.ts` by `load_torchscript`, where the options are said in full.

    Args:
        path: the file.
        deterministic: act by the mode.
        trust: execute what is in the file, where it cannot be read otherwise; .zip, .pt and .ts.
        activation: of a .zip that does not say it.
        vec_normalize: the statistics that a .zip was trained with.
        gives: what the network of an .onnx, .pt or .ts file gives.
        output: which of an .onnx file's outputs.
        state_size: S, of the environment; for files that do not say it, and held against what the
            others say.
        action_spec: of the environment, likewise. A log's will do.

    Raises:
        ConfigError: if the ending is not known, an option does not apply to such a file, or the
            file does not say what is needed of its environment.
        DataError: if the file is missing or not what its ending says.
        UntrustedFileError: if it could only be read by executing code in it.
        PolicyError: if it holds no policy that can be taken over.
    """
    known, ending = options_of(path), Path(path).suffix.lower()
    reader, _, unsaid = _READERS[ending]
    options = {
        "trust": trust or None,
        "activation": activation,
        "vec_normalize": vec_normalize,
        "gives": gives,
        "output": output,
    }
    given = {name: value for name, value in options.items() if value is not None}
    stray = [name for name in given if name not in known]
    if stray:
        raise ConfigError(
            f"{', '.join(stray)} does not apply to a {ending} file, which takes "
            f"{', '.join(('deterministic', *known))}."
        )
    environment = {"state_size": state_size, "action_spec": action_spec}
    missing = [name for name in unsaid if environment[name] is None]
    if missing:
        raise ConfigError(f"A {ending} file does not say its {', '.join(missing)}; give them.")
    if ending == ".zip" and not trust:
        unsaid = ("action_spec",)  # not needed, but it may have digits that the file lacks
    said = {name: environment[name] for name in unsaid}
    policy = reader(path, deterministic=deterministic, **given, **said)
    check_environment(policy, state_size, action_spec, path)
    return policy

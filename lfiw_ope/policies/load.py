"""A policy from a file of any known kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import ConfigError
from lfiw_ope.policies.actions import check_environment
from lfiw_ope.policies.actor_file import load_actor
from lfiw_ope.policies.module import Gives, load_torchscript
from lfiw_ope.policies.onnx import load_onnx
from lfiw_ope.policies.sb3 import load_sb3
from lfiw_ope.types import Policy

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

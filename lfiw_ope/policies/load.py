"""A policy from a file of any known kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lfiw_ope.errors import ConfigError
from lfiw_ope.policies.actor_file import load_actor
from lfiw_ope.policies.module import load_torchscript
from lfiw_ope.policies.onnx import load_onnx
from lfiw_ope.policies.sb3 import load_sb3
from lfiw_ope.types import Policy

_READERS: dict[str, tuple[Callable[..., Policy], frozenset[str]]] = {
    ".safetensors": (load_actor, frozenset({"deterministic"})),
    ".zip": (
        load_sb3,
        frozenset({"deterministic", "trust", "activation", "action_spec", "vec_normalize"}),
    ),
    ".onnx": (load_onnx, frozenset({"deterministic", "action_spec", "gives", "output"})),
    **dict.fromkeys(
        (".pt", ".ts"),
        (
            load_torchscript,
            frozenset({"deterministic", "trust", "state_size", "action_spec", "gives"}),
        ),
    ),
}
"""By the file's ending: what reads it, and the options that it takes."""

_NEEDED = {".onnx": ("action_spec",), ".pt": ("state_size", "action_spec")}
_NEEDED[".ts"] = _NEEDED[".pt"]


def load_policy(path: str | Path, **options: Any) -> Policy:
    """The policy in a file, by its ending.

    `.safetensors` is read by `load_actor`, `.zip` by `load_sb3`, `.onnx` by `load_onnx`, `.pt` and
    `.ts` by `load_torchscript`.

    Args:
        path: the file.
        options: for that reader. One that is None counts as left out.

    Raises:
        ConfigError: if the ending is not known, or an option does not apply to such a file.
        DataError: if the file is missing or not what its ending says.
        UntrustedFileError: if it could only be read by executing code in it.
        PolicyError: if it holds no policy that can be taken over.
    """
    ending = Path(path).suffix.lower()
    if ending not in _READERS:
        raise ConfigError(
            f"{path} ends in {ending or 'nothing'}; a policy is a .safetensors file of save_actor, "
            "a stable-baselines3 .zip, an .onnx graph, or a TorchScript archive (.pt, .ts)."
        )
    reader, known = _READERS[ending]
    given = {name: value for name, value in options.items() if value is not None}
    # False is how a flag says that it was left out.
    stray = [name for name, value in given.items() if name not in known and value is not False]
    if stray:
        raise ConfigError(
            f"{', '.join(stray)} does not apply to a {ending} file, which takes "
            f"{', '.join(sorted(known))}."
        )
    missing = [name for name in _NEEDED.get(ending, ()) if name not in given]
    if missing:
        raise ConfigError(f"A {ending} file does not say its {', '.join(missing)}; give them.")
    return reader(path, **{name: value for name, value in given.items() if name in known})

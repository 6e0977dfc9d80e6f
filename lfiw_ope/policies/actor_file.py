"""Policies as safetensors files: layers, noise and bounds, and nothing executable."""

from pathlib import Path

from lfiw_ope.errors import DataError, PolicyError
from lfiw_ope.policies.heads import CategoricalHead, GaussianHead
from lfiw_ope.policies.mlp import MLPPolicy

FORMAT = "lfiw-ope actor 1"


def save_actor(policy: MLPPolicy, path: str | Path) -> Path:
    """Write a single policy; whether it acts deterministically is the reader's choice.

    Raises:
        PolicyError: if the policy is a stack of several.
    """
    from safetensors.torch import save_file

    if policy.network.members != 1:
        raise PolicyError(f"This is a stack of {policy.network.members} policies; save each alone.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    metadata = {
        "format": FORMAT,
        "activation": policy.network.activation,
        "head": policy.head.name,
    }
    tensors = {name: value.contiguous() for name, value in policy.state_dict().items()}
    save_file(tensors, partial, metadata=metadata)
    return partial.replace(path)


def load_actor(path: str | Path, *, deterministic: bool = False) -> MLPPolicy:
    """Read a policy that `save_actor` wrote.

    Raises:
        DataError: if there is no such file, or it is no actor.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no policy file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{path} is not a safetensors file ({error}).") from error
    if metadata.get("format") != FORMAT:
        raise DataError(
            f"{path} says its format is {metadata.get('format')!r}; expected {FORMAT!r}, as "
            "save_actor writes it."
        )
    expected = {f"head.{name}" for name in ("log_std", "low", "high")}
    if metadata.get("head") not in ("gaussian", "categorical") or (
        metadata["head"] == "gaussian" and not expected <= state.keys()
    ):
        raise DataError(f"{path} lacks the tensors of an actor; write it with save_actor.")
    layers = sum(name.startswith("network.weights.") for name in state)
    head: GaussianHead | CategoricalHead = CategoricalHead()
    if metadata["head"] == GaussianHead.name:
        head = GaussianHead(*(state[f"head.{name}"] for name in ("log_std", "low", "high")))
    return MLPPolicy.from_layers(
        [state[f"network.weights.{i}"][0] for i in range(layers)],
        [state[f"network.biases.{i}"][0, 0] for i in range(layers)],
        head,
        activation=metadata["activation"],
        deterministic=deterministic,
    )

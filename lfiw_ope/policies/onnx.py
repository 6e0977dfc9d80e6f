"""Policies in ONNX files, run by onnxruntime on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import DataError, PolicyError
from lfiw_ope.extras import needed
from lfiw_ope.policies.module import Gives, ModulePolicy


class _Session(nn.Module):
    """An ONNX graph as a torch module; on the CPU, wherever the states are."""

    def __init__(self, session: Any, output: str) -> None:
        super().__init__()
        self.session = session
        self.output = output
        self.input = session.get_inputs()[0].name

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Session":
        return self  # a session holds no state, and cannot be copied

    def forward(self, state: Tensor) -> Tensor:
        rows = np.ascontiguousarray(state.detach().cpu().numpy())
        (found,) = self.session.run([self.output], {self.input: rows})
        return torch.from_numpy(np.array(found)).to(state.device)


def load_onnx(
    path: str | Path,
    *,
    action_spec: ActionSpec,
    gives: Gives = "actions",
    output: str | None = None,
    deterministic: bool = False,
) -> ModulePolicy:
    """A network in an ONNX file as a policy; see `from_module` for what it may give.

    The file's one input takes float32 states `[B, S]`, B of any size. An ONNX graph computes and
    does nothing else, so no trust is asked for.

    Args:
        path: the file.
        action_spec: what actions are; a log's `action_spec` will do.
        gives: "actions", "scaled actions" or "logits".
        output: which of the graph's outputs, where it has several.
        deterministic: act by the mode of the logits.

    Raises:
        DataError: if the file is missing or no ONNX graph.
        PolicyError: if its inputs or outputs are not those of a policy.
        MissingDependencyError: if onnxruntime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no policy file {path}.")
    with needed("ONNX files need onnxruntime", extra="onnx"):
        import onnxruntime
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises types of its own, one for each kind of damage
        raise DataError(f"{path} is not an ONNX graph that onnxruntime runs ({error}).") from error
    return ModulePolicy(
        _Session(session, _output(session, output, path)),
        state_size=_state_size(session, path),
        action_spec=action_spec,
        gives=gives,
        deterministic=deterministic,
    )


def _state_size(session: Any, path: Path) -> int:
    inputs = session.get_inputs()
    shapes = [tuple(one.shape) for one in inputs]
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(shapes[0]) != 2:
        found = ", ".join(f"{one.name}: {one.type} {one.shape}" for one in inputs)
        raise PolicyError(f"{path} takes {found}; expected one float32 input of states [B, S].")
    batch, size = shapes[0]
    if isinstance(batch, int) or not isinstance(size, int):
        raise PolicyError(
            f"{path} takes an input of shape {list(shapes[0])}; export it with a dynamic first "
            "axis, the batch, and a fixed second one, the state."
        )
    return size


def _output(session: Any, wanted: str | None, path: Path) -> str:
    names: list[str] = [one.name for one in session.get_outputs()]
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted is None or wanted not in names:
        raise PolicyError(
            f"{path} has the outputs {', '.join(names)}; say which is the policy's by output=."
        )
    return wanted

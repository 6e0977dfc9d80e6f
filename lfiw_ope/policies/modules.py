"""Policies that are torch modules, TorchScript archives or ONNX files."""

import copy
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import DataError, PolicyError, UntrustedFileError
from lfiw_ope.core.runtime import needed
from lfiw_ope.core.validation import choice, whole
from lfiw_ope.policies.acting import HeadPolicy, action_rows, check_rows
from lfiw_ope.policies.densities import DistributionPolicy
from lfiw_ope.policies.heads import CategoricalHead, DeterministicHead, GreedyHead, Head, Output

Gives = Literal["actions", "scaled actions", "logits"]
"""What a network's outputs are: actions in the environment's units (or the index of a discrete
action), actions in [-1, 1] that span the bounds, as the actors of SAC and TD3 give them, or logits
of a discrete action."""


class ModulePolicy(HeadPolicy):
    """A torch module `[B, S] -> [B, A]` that gives actions or logits; see `from_module`."""

    def __init__(
        self,
        module: nn.Module,
        *,
        state_size: int,
        action_spec: ActionSpec,
        gives: Gives,
        deterministic: bool = False,
    ) -> None:
        choice("gives", gives, get_args(Gives))
        super().__init__(_head(action_spec, gives), deterministic=deterministic)
        self.module = module
        self.state_size = whole("state_size", state_size, least=1)
        self.action_spec = action_spec
        self.gives = gives

    @property
    def action_size(self) -> int:
        return self.action_spec.size

    @property
    def stack_key(self) -> Hashable:
        return "module", id(self)

    def stack(self, others: Sequence["ModulePolicy"]) -> "ModulePolicy":  # noqa: ARG002
        """A copy, which serves as many policies as are this one; stack_key tells others apart."""
        return copy.deepcopy(self)

    def outputs(self, state: Tensor) -> Output:
        value = self.module(state.reshape(-1, state.shape[-1]))
        if self.gives == "logits":
            check_rows(value, state.shape[:-1].numel(), self.action_size)
            rows = value.to(state.dtype)
        else:
            rows = action_rows(value, state.shape[:-1].numel(), self.action_spec).to(state.dtype)
        rows = rows.reshape(*state.shape[:-1], self.action_size)
        if self.gives == "scaled actions":
            low, high = self.head.arguments()["low"], self.head.arguments()["high"]
            rows = low[0] + 0.5 * (rows + 1.0) * (high[0] - low[0])
        return Output(rows)


def _head(spec: ActionSpec, gives: Gives) -> Head:
    if spec.kind == "discrete":
        if gives == "scaled actions":
            raise PolicyError("Discrete actions have no bounds to scale to; they give 'logits'.")
        return CategoricalHead() if gives == "logits" else GreedyHead()
    if gives == "logits":
        raise PolicyError("Logits are of discrete actions, and the action_spec is continuous.")
    low, high = (torch.tensor(bound, dtype=torch.float32)[None] for bound in (spec.low, spec.high))
    if gives == "scaled actions" and not (low.isfinite().all() and high.isfinite().all()):
        raise PolicyError("gives is 'scaled actions', but the action_spec has infinite bounds.")
    return DeterministicHead(low, high, squashed=False)


def from_module(
    module: nn.Module,
    *,
    state_size: int,
    action_spec: ActionSpec,
    gives: Gives | Literal["distribution"] = "actions",
    deterministic: bool = False,
) -> ModulePolicy | DistributionPolicy:
    """A torch module as a policy; a copy of it, in evaluation mode.

    Args:
        module: of states `[B, S]`, float32.
        state_size: S.
        action_spec: what actions are; a log's `action_spec` will do. Actions are clipped to its
            bounds on execution.
        gives: what the module gives: "actions" `[B, A]` in the environment's units (or indices
            `[B]` of discrete ones), which is a deterministic policy; "scaled actions" in [-1, 1],
            rescaled to the bounds; "logits" `[B, A]` of discrete actions; or a "distribution" of
            torch.distributions, over actions in the environment's units.
        deterministic: act by the mode of the logits or of the distribution.

    Raises:
        PolicyError: if what it gives does not go with its actions.
    """
    own = copy.deepcopy(module).eval().requires_grad_(False)
    if gives == "distribution":
        return DistributionPolicy(
            own, state_size=state_size, action_spec=action_spec, deterministic=deterministic
        )
    return ModulePolicy(
        own,
        state_size=state_size,
        action_spec=action_spec,
        gives=gives,
        deterministic=deterministic,
    )


def load_torchscript(
    path: str | Path,
    *,
    state_size: int,
    action_spec: ActionSpec,
    gives: Gives = "actions",
    deterministic: bool = False,
    trust: bool = False,
) -> ModulePolicy:
    """A TorchScript archive as a policy; see `from_module`.

    An archive is a program that torch runs as it is, files and all: so it is loaded only with
    `trust=True`. ONNX (`load_onnx`) and `save_actor` are formats without a program's powers.

    Raises:
        DataError: if the file is missing or no such archive.
        UntrustedFileError: unless `trust` is given.
        PolicyError: if what it gives does not go with its actions.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no policy file {path}.")
    if not trust:
        raise UntrustedFileError(
            f"{path} would be run as a program, for that is what TorchScript is; pass trust=True "
            "if the file is yours, or use ONNX."
        )
    try:
        module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} is not a TorchScript archive, as torch.jit.save writes it; a state_dict holds "
            "no network: build the module, load its weights and use from_module."
        ) from error
    return ModulePolicy(
        module.eval(),
        state_size=state_size,
        action_spec=action_spec,
        gives=gives,
        deterministic=deterministic,
    )


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

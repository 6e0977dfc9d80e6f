"""Policies that are torch modules, from memory or from a TorchScript archive."""

import copy
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lfiw_ope.checks import choice, whole
from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import DataError, PolicyError, UntrustedFileError
from lfiw_ope.policies.acting import HeadPolicy
from lfiw_ope.policies.actions import action_rows, check_rows
from lfiw_ope.policies.distribution import DistributionPolicy
from lfiw_ope.policies.heads import CategoricalHead, GreedyHead, Head, Output
from lfiw_ope.policies.noise import DeterministicHead

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

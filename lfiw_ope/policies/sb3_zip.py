"""What a stable-baselines3 zip says in plain text, read without unpickling anything.

`data` is JSON: where a value is no JSON, the zip holds a pickle of it, which is not read, and
beside it the printed form of each of its parts, which is. `policy.pth` is read as tensors alone.
"""

import io
import json
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.checks import choice
from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import DataError, OPEError, PolicyError, UntrustedFileError
from lfiw_ope.nn.ensemble import ACTIVATIONS as KNOWN_ACTIVATIONS
from lfiw_ope.policies.sb3_actors import ACTIVATIONS, ActorFacts

PICKLED = ":serialized:"
TRUST = "or trust=True if the file is yours"


@dataclass(frozen=True)
class SB3Zip:
    """A zip's plain text.

    Attributes:
        path: where it lies.
        said: the JSON.
    """

    path: Path
    said: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> "SB3Zip":
        """Read the JSON.

        Raises:
            DataError: if the file is missing or no such zip.
        """
        if not path.is_file():
            raise DataError(f"There is no policy file {path}.")
        try:
            with zipfile.ZipFile(path) as archive:
                said = json.loads(archive.read("data"))
        except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError) as error:
            raise _not_a_zip(path, error) from error
        if not isinstance(said, dict) or not isinstance(said.get("action_space"), dict):
            raise DataError(
                f"{path} does not say its action space; expected a stable-baselines3 zip."
            )
        return cls(path, said)

    def tensors(self) -> dict[str, Tensor]:
        """The policy's tensors.

        Raises:
            DataError: if there are none.
            UntrustedFileError: if `policy.pth` holds anything else.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                stream = io.BytesIO(archive.read("policy.pth"))
            found = torch.load(stream, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # what torch raises for anything but tensors
            raise UntrustedFileError(
                f"{self.path} holds more than tensors in policy.pth ({error}); pass trust=True if "
                "the file is yours."
            ) from error
        except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, EOFError) as error:
            raise _not_a_zip(self.path, error) from error
        if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
            raise DataError(f"{self.path} holds no tensors by name in policy.pth.")
        return found

    def facts(self, activation: str | None, action_spec: ActionSpec | None) -> ActorFacts:
        """What the tensors do not say; what the JSON does not say is taken from the arguments.

        Raises:
            UntrustedFileError: if neither says it; the message names the argument.
            PolicyError: if an argument contradicts the JSON, or the policy is of no known kind.
            DataError: if the JSON is not as stable-baselines3 writes it.
        """
        try:
            return self._facts(activation, action_spec)
        except OPEError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{self.path} is no JSON that stable-baselines3 wrote ({type(error).__name__}: "
                f"{error})."
            ) from error

    def _facts(self, activation: str | None, action_spec: ActionSpec | None) -> ActorFacts:
        self._check_observations()
        kwargs = self.said.get("policy_kwargs") or {}
        policy_class = self._policy_class()
        return ActorFacts(
            policy_class=policy_class,
            activation=self._activation(kwargs, policy_class, activation),
            action_spec=self._action_spec(action_spec),
            squash_output=bool(kwargs.get("squash_output", policy_class == "ARSPolicy")),
            use_expln=bool(kwargs.get("use_expln", False)),
            clip_mean=float(kwargs.get("clip_mean", 2.0)),
        )

    def gymnasium_space(self, key: str) -> Any:
        """A Box or Discrete space of Gym, as Gymnasium's.

        Raises:
            UntrustedFileError: if its bounds are not said in plain text.
        """
        from gymnasium import spaces

        space = self.said[key]
        if _kind(space) == "Discrete":
            return spaces.Discrete(int(space["n"]))
        low, high = _numbers(space, "low"), _numbers(space, "high")
        if _kind(space) != "Box" or low is None or high is None:
            raise UntrustedFileError(
                f"{self.path} does not say its {key} in plain text, and Gym, which its pickle "
                "needs, is not supported; leave trust out, and pass action_spec."
            )
        dtype: Any = np.dtype(space["dtype"])
        first, last = (np.array(bound, dtype).reshape(_shape(space)) for bound in (low, high))
        return spaces.Box(first, last, dtype=dtype.type)

    def _policy_class(self) -> str:
        """Its class, from the printed form of its `__init__`, if it is one of the library's own."""
        said = self.said.get("policy_class")
        said = said if isinstance(said, dict) else {}
        module = str(said.get("__module__", ""))
        name = re.match(r"<function (\w+)\.__init__ at", str(said.get("__init__", "")))
        if name is None or module.split(".")[0] not in ("stable_baselines3", "sb3_contrib"):
            raise PolicyError(
                f"{self.path} holds a policy of a class of its own, from the module {module!r}; "
                "only stable-baselines3's and sb3-contrib's policies are known."
            )
        return name[1]

    def _check_observations(self) -> None:
        space = self.said.get("observation_space")
        space = space if isinstance(space, dict) else {}
        shape = _shape(space)
        if (len(shape) > 1 and space.get("dtype") == "uint8") or _kind(space) == "Dict":
            raise PolicyError(
                f"The policy in {self.path} takes images or Dict observations; only vectors work."
            )

    def _activation(self, kwargs: Mapping[str, Any], policy_class: str, given: str | None) -> str:
        if given is not None:
            choice("activation", given, tuple(KNOWN_ACTIVATIONS))
        default = "tanh" if policy_class == "ActorCriticPolicy" else "relu"
        # Every key of policy_kwargs is printed, so a missing one has its default.
        printed = str(kwargs.get("activation_fn", ""))
        named = re.fullmatch(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>", printed)
        said = ACTIVATIONS.get(named[1]) if named else None if printed else default
        if said is None and given is None:
            raise UntrustedFileError(
                f"{self.path} does not say its activation function in plain text (policy_kwargs "
                f"prints it as {printed!r}); pass activation='tanh', 'relu' or another of "
                f"{', '.join(KNOWN_ACTIVATIONS)}, {TRUST}."
            )
        if said is not None and given not in (None, said):
            raise PolicyError(
                f"activation is {given!r}, but {self.path} says that the policy was built with "
                f"{said!r}; leave the argument out."
            )
        return said or given or default

    def _action_spec(self, given: ActionSpec | None) -> ActionSpec:
        space = self.said["action_space"]
        kind = _kind(space)
        if kind not in ("Box", "Discrete"):
            raise PolicyError(f"The policy's action space is {kind}; Box and Discrete work.")
        said = None
        if kind == "Discrete":
            said = ActionSpec.discrete(int(space["n"]))
        else:
            low, high = _numbers(space, "low"), _numbers(space, "high")
            if low is not None and high is not None:
                said = ActionSpec.continuous(low, high)
        known = given is not None and all(map(math.isfinite, (*given.low, *given.high)))
        if said is None and not known:
            raise UntrustedFileError(
                f"{self.path} does not say its action bounds in plain text (it prints "
                f"{space.get('low')!r} and {space.get('high')!r}); pass "
                f"action_spec=ActionSpec.continuous(low, high), {TRUST}."
            )
        if said is not None and given is not None and not _alike(said, given):
            raise PolicyError(
                f"action_spec is {given}, but {self.path} says {said}; it is a policy of another "
                "environment."
            )
        found = said or given
        assert found is not None
        return found


def _not_a_zip(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is not a zip that stable-baselines3 saved ({error}); expected one with 'data' and "
        "'policy.pth' inside."
    )


def _kind(space: Mapping[str, Any]) -> str:
    return re.sub(r".*\.(\w+)'>$", r"\1", str(space.get(":type:", "")))


def _shape(space: Mapping[str, Any]) -> list[int]:
    shape = space.get("_shape", space.get("shape"))
    return [int(size) for size in shape] if isinstance(shape, list) else []


def _numbers(space: Mapping[str, Any], name: str) -> list[float] | None:
    """A bound from the JSON's printed array, such as '[-1. -1.]'; None where it is cut or rounded.

    NumPy prints 8 digits after the point, which tell one float32 from the next only above 1/8.
    """
    printed = str(space.get(name, ""))
    found = re.findall(r"-?inf|-?\d+\.?\d*(?:e[+-]?\d+)?", printed)
    rounded = any(re.fullmatch(r"-?0?\.\d{8,}", n) and abs(float(n)) < 0.125 for n in found)
    if "..." in printed or rounded or not found or len(found) != math.prod(_shape(space)):
        return None
    return [float(number) for number in found]


def _alike(one: ActionSpec, other: ActionSpec) -> bool:
    """The same kind and size, and finite bounds that agree to what NumPy prints of them.

    A log that does not know its bounds has infinite ones, which contradict nothing.
    """
    near = all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-8) or not math.isfinite(a - b)
        for a, b in zip((*one.low, *one.high), (*other.low, *other.high), strict=False)
    )
    return (one.kind, one.size) == (other.kind, other.size) and near

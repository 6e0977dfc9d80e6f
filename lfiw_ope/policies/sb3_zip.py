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

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import DataError, OPEError, PolicyError, UntrustedFileError
from lfiw_ope.policies.actions import alike
from lfiw_ope.policies.printed_bounds import PrintedBounds, box_shape
from lfiw_ope.policies.sb3_actors import ActorFacts
from lfiw_ope.policies.sb3_settings import TRUST, check_settings, find_activation


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
                f"{self.path} holds more than tensors in policy.pth, or none; pass trust=True if "
                "the file is yours."
            ) from error
        except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, EOFError) as error:
            raise _not_a_zip(self.path, error) from error
        if not isinstance(found, dict) or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
        ):
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
        if not isinstance(kwargs, dict):
            raise TypeError("policy_kwargs is no dictionary")
        check_settings(kwargs, self.path)
        return ActorFacts(
            policy_class=policy_class,
            activation=find_activation(kwargs, policy_class, activation, self.path),
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
        printed = PrintedBounds.of(space) if _kind(space) == "Box" else PrintedBounds()
        # Bounds of observations decide nothing, so their last digits do not matter.
        bounds = printed.exact if key == "action_space" or not printed.complete else printed.rounded
        if bounds is None:
            raise UntrustedFileError(
                f"{self.path} does not say its {key} in plain text, and Gym, which its pickle "
                "needs, is not supported; leave trust out, and pass action_spec."
            )
        dtype: Any = np.dtype(space["dtype"])
        first, last = (
            np.array(bound, dtype).reshape(box_shape(space)) for bound in (bounds.low, bounds.high)
        )
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
        shape = box_shape(space)
        if (len(shape) > 1 and space.get("dtype") == "uint8") or _kind(space) == "Dict":
            raise PolicyError(
                f"The policy in {self.path} takes images or Dict observations; only vectors work."
            )

    def _action_spec(self, given: ActionSpec | None) -> ActionSpec:
        space = self.said["action_space"]
        kind = _kind(space)
        if kind not in ("Box", "Discrete"):
            raise PolicyError(f"The policy's action space is {kind}; Box and Discrete work.")
        if kind == "Discrete":
            said = ActionSpec.discrete(int(space["n"]))
            if given is not None and given != said:
                raise self._another_environment(given, said)
            return said
        printed = PrintedBounds.of(space)
        if given is not None and all(map(math.isfinite, (*given.low, *given.high))):
            # The log's own digits, of which the zip may print but the first.
            shape = box_shape(space)
            if (given.kind, given.size) != ("continuous", math.prod(shape)):
                raise self._another_environment(given, f"a Box of shape {shape}")
            if printed.complete and not printed.allow(given):
                raise self._another_environment(given, printed.rounded)
            return given
        exact = printed.exact
        if exact is None:
            raise UntrustedFileError(
                f"{self.path} does not say all digits of its action bounds in plain text (it "
                f"prints {space.get('low')!r} and {space.get('high')!r}); pass "
                f"action_spec=ActionSpec.continuous(low, high), {TRUST}."
            )
        if given is not None and not alike(exact, given, unbounded_is_unknown=True):
            raise self._another_environment(given, exact)
        return exact

    def _another_environment(self, given: ActionSpec, said: object) -> PolicyError:
        return PolicyError(
            f"action_spec is {given}, but {self.path} says {said}; it is a policy of another "
            "environment."
        )


def _not_a_zip(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is not a zip that stable-baselines3 saved ({error}); expected one with 'data' and "
        "'policy.pth' inside."
    )


def _kind(space: Mapping[str, Any]) -> str:
    return re.sub(r".*\.(\w+)'>$", r"\1", str(space.get(":type:", "")))

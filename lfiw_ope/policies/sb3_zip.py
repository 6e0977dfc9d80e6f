"""Read a stable-baselines3 zip's settings without unpickling anything.

An array is printed with as many digits as `np.set_printoptions` said when the file was written,
8 after the point by default, and nothing in the text says how many that were.

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
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import DataError, OPEError, PolicyError, UntrustedFileError
from lfiw_ope.core.validation import choice
from lfiw_ope.nn.batched_mlp import ACTIVATIONS as KNOWN_ACTIVATIONS
from lfiw_ope.policies.acting import alike
from lfiw_ope.policies.sb3_actors import ACTIVATIONS, ANY_OTHER, ActorFacts

NUMBER = r"-?inf|-?\d+\.?\d*(?:e[+-]?\d+)?"
EXACT_DIGITS = 8
"""Significant digits that leave a rounding error below one step of float32."""


class PrintedBounds(NamedTuple):
    """The numbers of a Box's lower and upper bounds, as text.

    Attributes:
        low: A numbers; empty where NumPy cut the array, or there is none.
        high: A numbers, likewise.
        decimals: the most that a number of the two arrays has, so all were allowed that many.
    """

    low: tuple[str, ...] = ()
    high: tuple[str, ...] = ()
    decimals: int = 0

    @classmethod
    def of(cls, space: Mapping[str, Any]) -> "PrintedBounds":
        """From a Box's printed parts."""
        arrays = _numbers(f"{space.get('low', '')} {space.get('high', '')}")
        decimals = max(map(_decimals, arrays), default=0)
        return cls(_texts(space, "low"), _texts(space, "high"), decimals)

    @property
    def complete(self) -> bool:
        return bool(self.low) and bool(self.high)

    @property
    def rounded(self) -> ActionSpec:
        """The bounds to the digits that are printed."""
        return ActionSpec.continuous(list(map(float, self.low)), list(map(float, self.high)))

    @property
    def exact(self) -> ActionSpec | None:
        """The bounds, if no digit can be missing; None otherwise.

        A number with fewer decimals than were allowed ends in zeros. A whole number counts as
        itself; but not -0, nor a lower and an upper bound that are printed alike, which only
        rounding gives.
        """
        pairs = list(zip(self.low, self.high, strict=True)) if self.complete else []
        plain = all(_is_exact(text, self.decimals) for pair in pairs for text in pair)
        if not pairs or not plain or any(float(low) == float(high) for low, high in pairs):
            return None
        return self.rounded

    def allow(self, spec: ActionSpec) -> bool:
        """Whether bounds of this many entries would be printed so, with some number of digits."""
        texts, values = (*self.low, *self.high), (*spec.low, *spec.high)
        alike = [float(low) == float(high) for low, high in zip(self.low, self.high, strict=True)]
        return len(texts) == len(values) and all(
            float(text) == value
            or abs(float(text) - value) <= _tolerance(text, rounded, self.decimals)
            for text, value, rounded in zip(texts, values, alike + alike, strict=True)
        )


def box_shape(space: Mapping[str, Any]) -> list[int]:
    shape = space.get("_shape", space.get("shape"))
    return [int(size) for size in shape] if isinstance(shape, list) else []


def _numbers(printed: str) -> list[str]:
    return re.findall(NUMBER, printed)


def _texts(space: Mapping[str, Any], name: str) -> tuple[str, ...]:
    size = math.prod(box_shape(space))
    # One number for bounds that are all alike, which NumPy prints in full whatever the settings.
    short = str(space.get(f"{name}_repr", ""))
    if re.fullmatch(NUMBER, short):
        # With an exponent, since its decimals say nothing of how many the arrays were given.
        return (short if _is_whole(short) else f"{float(short):.16e}",) * size
    printed = str(space.get(name, ""))
    found = _numbers(printed)
    return tuple(found) if "..." not in printed and len(found) == size else ()


def _is_exact(text: str, decimals: int = 0) -> bool:
    """Whether a number is printed in full where so many decimals were allowed, or more."""
    if "inf" in text or _is_whole(text):
        return True
    mantissa, exponent, _ = text.partition("e")
    zeros = 0 if exponent else max(0, decimals - _decimals(text))
    return len(re.sub(r"\D", "", mantissa).lstrip("0")) + zeros >= EXACT_DIGITS


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.0?)?", text) is not None and not text.startswith("-0")


def _decimals(text: str) -> int:
    """Digits after the point, of a number without an exponent."""
    return 0 if "e" in text else len(text.partition(".")[2])


def _tolerance(text: str, rounded: bool, decimals: int) -> float:
    """Half a unit of the last digit allowed; of an exact number, what float32 does to it."""
    if "inf" in text:
        return 0.0
    if _is_exact(text, decimals) and not rounded:
        return 1e-6 * abs(float(text)) + 1e-8
    mantissa, _, exponent = text.partition("e")
    last = _decimals(mantissa) - int(exponent) if exponent else max(decimals, _decimals(mantissa))
    return 0.5 * 10.0**-last * (1.0 + 1e-6)


PICKLED = ":serialized:"
FLATTEN = "<class 'stable_baselines3.common.torch_layers.FlattenExtractor'>"
TRUST = "or trust=True if the file is yours"

_READ = {"activation_fn", "squash_output", "use_expln", "clip_mean", "features_extractor_class"}
_UNREAD = {
    # What JSON says of the dictionary itself.
    *(":type:", PICKLED),
    # The names and shapes of the tensors say it too.
    *("net_arch", "use_sde", "full_std", "with_bias", "n_quantiles"),
    # Where weights start from, how they are trained, and what the actor has no part in.
    *("ortho_init", "log_std_init", "optimizer_class", "optimizer_kwargs", "n_critics", "device"),
    "share_features_extractor",
    "normalize_images",  # images are refused
    "features_extractor_kwargs",  # a FlattenExtractor takes none
}


def check_settings(kwargs: Mapping[str, Any], path: Path) -> None:
    """Raise unless the effect of every setting on the actor is known.

    Raises:
        PolicyError: otherwise.
    """
    unknown = sorted(set(kwargs) - _READ - _UNREAD)
    if unknown:
        raise PolicyError(
            f"{path} holds a policy made with {', '.join(unknown)}, whose effect on its actions is "
            f"not known. {ANY_OTHER}"
        )
    extractor = kwargs.get("features_extractor_class", FLATTEN)
    if extractor != FLATTEN:
        raise PolicyError(
            f"{path} holds a policy with the features extractor {extractor}; only "
            f"stable-baselines3's own FlattenExtractor is known. {ANY_OTHER}"
        )


def find_activation(
    kwargs: Mapping[str, Any], policy_class: str, given: str | None, path: Path
) -> str:
    """The activation between layers: what is printed, or else what the user says.

    Raises:
        UntrustedFileError: if neither says it.
        PolicyError: if it is a class of torch's that is not known, or the two contradict each
            other.
    """
    if given is not None:
        choice("activation", given, tuple(KNOWN_ACTIVATIONS))
    default = "tanh" if policy_class == "ActorCriticPolicy" else "relu"
    # Every key of policy_kwargs is printed, so a missing one has its default.
    printed = str(kwargs.get("activation_fn", ""))
    named = re.fullmatch(r"<class 'torch\.nn\.(?:\w+\.)*(\w+)'>", printed)
    said = ACTIVATIONS.get(named[1]) if named else None if printed else default
    if named and said is None:
        raise PolicyError(
            f"{path} says that the policy was built with {named[1]}; only "
            f"{', '.join(ACTIVATIONS)} are known. {ANY_OTHER}"
        )
    if said is None and given is None:
        raise UntrustedFileError(
            f"{path} does not say its activation function in plain text (policy_kwargs prints it "
            f"as {printed!r}); pass activation='tanh', 'relu' or another of "
            f"{', '.join(KNOWN_ACTIVATIONS)}, {TRUST}."
        )
    if said is not None and given not in (None, said):
        raise PolicyError(
            f"activation is {given!r}, but {path} says that the policy was built with {said!r}; "
            "leave the argument out."
        )
    return said or given or default


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

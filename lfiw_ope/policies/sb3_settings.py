"""The `policy_kwargs` of a stable-baselines3 zip: what each of them means for the actor."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfiw_ope.checks import choice
from lfiw_ope.errors import PolicyError, UntrustedFileError
from lfiw_ope.nn.ensemble import ACTIVATIONS as KNOWN_ACTIVATIONS
from lfiw_ope.policies.sb3_actors import ACTIVATIONS, ANY_OTHER

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

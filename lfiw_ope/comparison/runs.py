"""What a run is on, by which one tells whether another can go on with its cells."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lfiw_ope.comparison.identity import data_digest, describe, policy_actions
from lfiw_ope.comparison.tasks import Inputs
from lfiw_ope.errors import ConfigError
from lfiw_ope.version import __version__

ACTIONS_AGREE = 1e-3
"""Relative to the largest action: within it, actions are those of the same policy."""


def run_of(inputs: Inputs) -> dict[str, Any]:
    """What tells one run from another: version, log, policies by what they do, refusals."""
    return {
        "version": __version__,
        "data": data_digest(inputs.data),
        "log": repr(inputs.data),
        "policies": {
            name: policy_actions(policy, inputs.data) for name, policy in inputs.policies.items()
        },
        "thresholds": describe(inputs.thresholds),
        "keep_refused": inputs.keep_refused,
    }


def require_same(
    folder: Path, there: dict[str, Any], run: dict[str, Any], changed: Iterable[str]
) -> None:
    """That a run can go on with the cells of another.

    Args:
        folder: of the cells, for the message.
        there: what they are of.
        run: what is to go on.
        changed: estimators that have cells and are no longer what they were.

    Raises:
        ConfigError: if something differs; it names all that does.
    """
    differing = []
    if there.get("version") != run["version"]:
        differing.append(f"the version of lfiw_ope ({there.get('version')}, now {run['version']})")
    if there.get("data") != run["data"]:
        differing.append(_other_data(there, run))
    if list(there["policies"]) != list(run["policies"]):
        differing.append(f"the policies' names (they were {', '.join(there['policies'])})")
    elif there.get("data") == run["data"]:  # at other states they would act otherwise
        pairs = [(name, there["policies"][name], of) for name, of in run["policies"].items()]
        others = [name for name, one, other in pairs if not _agree(one, other)]
        differing += [f"what the policy {name!r} does" for name in others]
    if there.get("thresholds") != run["thresholds"]:
        differing.append("when estimates are refused")
    if there.get("keep_refused", False) != run["keep_refused"]:
        differing.append("whether refused rows keep their numbers")
    differing += [f"the settings of {name!r}" for name in changed]
    if differing:
        raise ConfigError(
            f"{folder} holds another run: {'; '.join(differing)} differ. Give what it was started "
            "with, or name another folder."
        )


def _other_data(there: dict[str, Any], run: dict[str, Any]) -> str:
    """What is said of a log that is another one, though it may be called the same."""
    if there.get("log") != run["log"]:
        return f"the data (it was {there.get('log')})"
    before, now = there.get("made_with", {}), run.get("made_with", {})
    other = [
        f"{name} {of}, now {now.get(name)}" for name, of in before.items() if of != now.get(name)
    ]
    told = f"with {', '.join(other)}" if other else "by other policies, packages or numbers"
    return f"the data (called {run['log']} too, and made {told})"


def _agree(one: list[float] | str | None, other: list[float] | str | None) -> bool:
    """Of actions, or of digests where a policy is known by its file."""
    if not isinstance(one, list) or not isinstance(other, list):
        return one == other
    if len(one) != len(other):
        return False
    scale = max(1e-12, float(np.abs(one).max(initial=0.0)))
    return bool(np.allclose(one, other, rtol=0.0, atol=ACTIONS_AGREE * scale))

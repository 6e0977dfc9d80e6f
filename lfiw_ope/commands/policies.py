"""How a command reads many policies: patterns of file names, a name for each, options for all."""

import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import ConfigError, DataError, OPEError
from lfiw_ope.policies.load import load_policy, options_of
from lfiw_ope.types import Policy


def policy_files(patterns: Sequence[str]) -> dict[str, Path]:
    """The files that match, in order of their paths, by the shortest names that differ.

    A file is named by its stem; where files share one, by as many of their folders as it takes
    ("ppo_1/best_model"), and with its ending where only that tells them apart.

    Args:
        patterns: names of files, or patterns as a shell knows them; `**` for any folders.

    Raises:
        DataError: if a pattern matches no file.
    """
    found: set[Path] = set()
    for pattern in patterns:
        matches = [pattern] if Path(pattern).is_file() else glob.glob(pattern, recursive=True)
        files = {Path(match) for match in matches if Path(match).is_file()}
        if not files:
            raise DataError(f"There is no policy file {pattern}.")
        found |= files
    paths = sorted({path.resolve(): path for path in sorted(found)}.values())
    return dict(zip(_names(paths), paths, strict=True))


def _names(paths: Sequence[Path]) -> list[str]:
    places = Counter(path.resolve().with_suffix("") for path in paths)
    named = {place: place.name for place in places}
    for depth in range(2, max((len(place.parts) for place in places), default=0) + 1):
        shared = Counter(named.values())
        named = {
            place: "/".join(place.parts[-depth:]) if shared[name] > 1 else name
            for place, name in named.items()
        }
    found = []
    for path in paths:
        place = path.resolve().with_suffix("")
        found.append(named[place] + (path.suffix if places[place] > 1 else ""))
    # A name that holds a dot may look like another's with its ending.
    return found if len(set(found)) == len(found) else [str(path) for path in paths]


def load_policies(
    files: Mapping[str, Path],
    data: Trajectories,
    *,
    deterministic: bool,
    trust: bool,
    activation: str | None,
    vec_normalize: str | None,
) -> dict[str, Policy]:
    """Each file's policy; an option is given to the files that take it.

    Args:
        files: by name.
        data: the log, whose spaces the policies must share.
        deterministic, trust, activation: see `lfiw_ope.load_policy`.
        vec_normalize: the statistics' file; `{stem}` in it stands for a policy file's stem and
            `{folder}` for its folder.

    Raises:
        ConfigError: if an option is given that none of the files takes, or an ending is not known.
        DataError, PolicyError, UntrustedFileError: if a file holds no policy for these data; the
            message names it.
    """
    wanted = {"trust": trust or None, "activation": activation, "vec_normalize": vec_normalize}
    given = {name: value for name, value in wanted.items() if value is not None}
    taken = {name: options_of(path) for name, path in files.items()}
    for option in given:
        if not any(option in of for of in taken.values()):
            raise ConfigError(
                f"{option} does not apply to any of the {len(files)} policy files; leave it out."
            )
    found = {}
    for name, path in files.items():
        options: dict[str, Any] = {key: of for key, of in given.items() if key in taken[name]}
        if "vec_normalize" in options:
            options["vec_normalize"] = _statistics(options["vec_normalize"], path)
        try:
            found[name] = load_policy(
                path,
                deterministic=deterministic,
                state_size=data.state_size,
                action_spec=data.action_spec,
                **options,
            )
        except OPEError as error:
            # Among many, which one it is must be said.
            if str(path) in str(error):
                raise
            raise type(error)(f"{path}: {error}") from error
    return found


def _statistics(pattern: str, policy: Path) -> str:
    return pattern.replace("{stem}", policy.stem).replace("{folder}", str(policy.parent))

"""What studies of cells share: a cell is stored as soon as it is finished and is never repeated."""

import json
import subprocess
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from lfiw_envs import Ladder
from numpy.typing import NDArray

import lfiw_ope as ope
from lfiw_ope.benchmark import dataset
from lfiw_ope.core import write_text

TRANSITIONS = 100_000
PRECISION = "bfloat16"
"""Pinned: on a processor without matrix units for it a cell takes about ten times as long."""

Worker = Annotated[int | None, typer.Option(help="0 or 1: every other cell")]
Threads = Annotated[int, typer.Option(help="of PyTorch; 1 where other work runs")]
ReportOnly = Annotated[bool, typer.Option(help="run nothing")]


class Asked(NamedTuple):
    """What is estimated, and the truth.

    Attributes:
        estimand: horizon and discount.
        log: the data.
        policies: all targets of the ladder.
        truth: `[P]`, their measured values.
        range: of these, the unit of errors.
        known: what is known of reward and termination, as an estimator takes it.
    """

    estimand: ope.Estimand
    log: ope.Trajectories
    policies: list[ope.core.Policy]
    truth: NDArray[np.float64]
    range: float
    known: dict[str, Any]

    def errors(self, values: Sequence[float]) -> list[float]:
        """Of one value a policy, in ranges, to the digits that are stored."""
        return [round(float(e), 5) for e in (np.array(values) - self.truth) / self.range]


def asked(ladder: Ladder, data: str, question: str, seed: int) -> Asked:
    """One data set of a ladder, and one question."""
    truth = np.array([ladder.value(policy, question).mean for policy in ladder.targets])
    return Asked(
        estimand=ope.Estimand(*ladder.question(question)),
        log=dataset(ladder, data, TRANSITIONS, seed),
        policies=[ope.load_actor(ladder.policy_path(policy)) for policy in ladder.targets],
        truth=truth,
        range=float(np.ptp(truth)),
        known=rules(ladder),
    )


def shortest(ladder: Ladder) -> str:
    """The ladder's question of the shortest horizon."""
    return min(ladder.questions, key=lambda name: ladder.questions[name].horizon)


def rules(ladder: Ladder) -> dict[str, Any]:
    """What is known of the environment, as an estimator takes it."""
    try:
        known = ladder.rules()
    except ValueError:
        return {}
    return {"reward": known.reward, "termination": known.termination}


def pinned(fit: ope.FitConfig) -> ope.FitConfig:
    """The same training in the pinned precision."""
    return ope.FitConfig(**{**vars(fit), "precision": PRECISION})


def default_settings() -> tuple[ope.DynamicsConfig, ope.RatioConfig]:
    """The defaults, in the pinned precision."""
    dynamics, ratio = ope.DynamicsConfig(), ope.RatioConfig()
    return (
        ope.DynamicsConfig(fit=pinned(dynamics.fit)),
        ope.RatioConfig(fit=pinned(ratio.fit)),
    )


def commit() -> str:
    """Of this tree; "+" where the package differs from it."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True).stdout

    changed = git("status", "--porcelain", "--untracked-files=no", "../lfiw_ope").strip()
    return git("rev-parse", "--short", "HEAD").strip() + "+" * bool(changed)


def finished(
    folder: Path,
    keys: Sequence[tuple[Hashable, ...]],
    run: Callable[..., dict[str, Any]],
    *,
    worker: int | None = None,
    threads: int = 2,
    report_only: bool = False,
) -> list[dict[str, Any]]:
    """All stored cells in the order of their keys, after those were run that have no file yet.

    Args:
        folder: a file for each cell.
        keys: of cells; their parts, joined by hyphens, name the files.
        run: makes a cell of its key's parts.
        worker: 0 or 1, with two processes at once; each takes every other key.
        threads: of PyTorch.
        report_only: whether only what is stored is read.
    """
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {key: folder / ("-".join(map(str, key)) + ".json") for key in keys}
    for place, (key, path) in enumerate(paths.items()):
        if path.exists() or report_only or worker not in (None, place % 2):
            continue
        cell = run(*key)
        write_text(path, json.dumps(cell, indent=1, allow_nan=False) + "\n")
        typer.echo(f"{path.stem}: {cell.get('chosen', 'done')}")
    return [json.loads(path.read_text("utf-8")) for path in paths.values() if path.exists()]

"""Measure the true values of the ladders' policies by playing them in the real environments.

    python experiments/measure_ladders.py                     # what is missing, two at a time
    python experiments/measure_ladders.py --task hopper --jobs 1

Each policy plays in both ways, stochastic and deterministic, whole episodes of up to the ladder's
steps; every question is answered by the same episodes. A policy's values are stored in
`envs/lfiw_envs/policies/<task>/<ladder>_values.json` as soon as they are known, so that a killed
run goes on where it was. Policies that are not exported yet are left out, and named.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from lfiw_envs import LADDERS, PAPER, Ladder, get_ladder
from lfiw_envs.ladder import Play
from lfiw_envs.making import is_vectorised
from lfiw_envs.tasks import POLICIES

from lfiw_ope.benchmark import COPIES, PLAYS, measure_ladder

EPISODES = {
    "ant": 300,
    "humanoid_standup": 300,
    "pushed_half_cheetah": 300,
    "inverted_double_pendulum": 300,
    "pusher": 300,
    "ledge": 200_000,
    "dropout_pendulum": 4000,
    "delayed_pendulum": 4000,
}
"""Fewer where an episode takes a third of a second and more, and more where many are played in one
array; else 1000, and 2000 of the paper's tasks, which are short."""

ARRAY = 1000
"""Copies in one array."""


def episodes_of(ladder: Ladder) -> int:
    return EPISODES.get(ladder.name, 2000 if ladder.name.startswith("paper_") else 1000)


def in_folder(ladder: Ladder, folder: Path) -> Ladder:
    """The ladder, with its policies and values in a folder of this one."""
    return replace(ladder, folder=folder / ladder.folder.name)


def measure(ladder: Ladder, episodes: int | None, plays: list[Play], seed: int, jobs: int) -> None:
    name = ladder.name
    there = [policy for policy in ladder.targets if ladder.policy_path(policy).exists()]
    for policy in [one for one in ladder.targets if one not in there]:
        typer.echo(f"{name}/{policy}: not exported yet")
    if not there:
        return
    played = episodes or episodes_of(ladder)
    command = f"python experiments/measure_ladders.py --task {name} --episodes {played}"
    path = measure_ladder(
        ladder,
        episodes=played,
        seed=seed,
        policies=there,
        plays=plays,
        jobs=jobs,
        num_envs=ARRAY if is_vectorised(ladder.env_id) else COPIES,
        command=f"{command} --seed {seed}",
        progress=lambda _, done, total, note="": typer.echo(f"{name}: {done} of {total} {note}"),
    )
    for policy, question in product(there, ladder.questions):
        value = ladder.value(policy, question, plays[0])
        typer.echo(f"{name}/{policy}, {question}: {value.mean:.2f} ± {value.standard_error:.2f}")
    typer.echo(f"Wrote {path}")


def main(
    task: Annotated[str | None, typer.Option(help="one ladder, by name")] = None,
    episodes: Annotated[int | None, typer.Option(help="else by the table in this file")] = None,
    play: Annotated[Play | None, typer.Option(help="one kind; else both")] = None,
    seed: int = 2_000_003,
    jobs: Annotated[int, typer.Option(help="policies at a time")] = 2,
    folder: Annotated[Path, typer.Option(help="of the policies, a folder a task")] = POLICIES,
) -> None:
    shipped = [*LADDERS, *(ladder.name for ladder in PAPER.values())]
    for name in [task] if task else shipped:
        ladder = in_folder(get_ladder(name), folder)
        measure(ladder, episodes, [play] if play else list(PLAYS), seed, jobs)


if __name__ == "__main__":
    typer.run(main)

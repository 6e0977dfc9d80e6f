"""True values of a ladder's policies, by playing them in the real environment."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from lfiw_envs.ladder import Ladder, LadderValue, Play
from numpy.typing import NDArray

from lfiw_ope.bench.playing import COPIES, play_returns
from lfiw_ope.bench.value_file import PLAYS, ValueFile
from lfiw_ope.checks import choice, whole
from lfiw_ope.extras import joblib_modules
from lfiw_ope.policies.actor_file import load_actor
from lfiw_ope.seeding import derive
from lfiw_ope.threads import one_thread
from lfiw_ope.types import Progress, silent

QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")
"""Of the returns, that are kept."""

Values = dict[str, LadderValue]
"""What one policy is worth, by question."""


def measure_values(
    ladder: Ladder,
    policy: str,
    *,
    play: Play = "stochastic",
    episodes: int,
    seed: int,
    num_envs: int = COPIES,
    progress: Progress = silent,
) -> Values:
    """What one of a ladder's policies is worth in its environment, question by question.

        v(π; T, γ) = E_π[ Σ_{t<T} γ^t r_t ]

    is estimated by the mean of N returns, all questions from the same episodes. A reward after the
    episode's end counts 0, and the ladder truncates its episodes. Nothing is written; see
    `measure_ladder`.

    Args:
        ladder: one that is shipped, or one of your own.
        policy: by its name in the ladder's folder.
        play: "stochastic", as the policy draws its actions, or "deterministic", by their mode.
        episodes: N.
        seed: of the episodes' resets and the policy's draws; no two policies share either.
        num_envs: copies of the environment that are played at a time. The same seed with another
            number of them gives other draws.
        progress: told how many episodes have ended.

    Raises:
        ValueError: if the ladder has no such policy.
        ConfigError: if a number is out of range.
        DataError: if the policy's file is missing or none, or the environment's rewards are not
            finite.
        PolicyError: if the policy is for other spaces.
    """
    choice("play", play, PLAYS)
    whole("episodes", episodes, least=2)  # one has no standard error
    actor = load_actor(ladder.policy_path(policy), deterministic=play == "deterministic")
    returns = play_returns(
        ladder,
        actor,
        episodes=episodes,
        seed=derive(seed, "values", ladder.name, policy, play),
        num_envs=num_envs,
        progress=progress,
    )
    return {name: summarise(of) for name, of in returns.items()}


def summarise(returns: NDArray[np.float64]) -> LadderValue:
    """The value that N returns `[N]` tell."""
    spread = float(returns.std(ddof=1))
    points = np.quantile(returns, [float(point) for point in QUANTILES]).tolist()
    return LadderValue(
        mean=float(returns.mean()),
        standard_error=spread / len(returns) ** 0.5,
        spread=spread,
        quantiles=dict(zip(QUANTILES, points, strict=True)),
        episodes=len(returns),
    )


def measure_ladder(
    ladder: Ladder,
    *,
    episodes: int,
    seed: int,
    policies: Sequence[str] | None = None,
    plays: Sequence[Play] = PLAYS,
    jobs: int = 1,
    num_envs: int = COPIES,
    command: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Measure a ladder's policies, and store what they are worth at `ladder.values_path`.

    A policy's values are stored as soon as they are known. What the file holds already, of the
    same policy file and by as many episodes, is not measured again.

    Args:
        ladder: whose folder holds the policies' files.
        episodes: of each policy in each kind of play.
        seed: see `measure_values`.
        policies: all targets where none are named.
        plays: "stochastic" for all policies first, then "deterministic"; or one of them.
        jobs: processes; each of them makes the environment by its id.
        num_envs: see `measure_values`.
        command: said in the file to have made it; else this call.
        progress: told how many pairs of policy and play are done.

    Returns:
        The file.

    Raises:
        ConfigError: if a number is out of range, or the file was measured otherwise.
        DataError: if a policy's file is missing or none.
        PolicyError: if a policy is for other spaces.
        MissingDependencyError: if `jobs` is above 1 and joblib is not installed.
    """
    whole("jobs", jobs, least=1)
    for play in plays:
        choice("a play", play, PLAYS)
    names = ladder.targets if policies is None else tuple(policies)
    call = f"lfiw_ope.bench.values.measure_ladder({ladder.name}, {episodes=}, {seed=})"
    file = ValueFile.open(ladder, command=command or call, seed=seed, num_envs=num_envs)
    every = [(name, play) for play in plays for name in names]
    left = [(name, play) for name, play in every if not file.knows(name, play, episodes)]
    done = len(every) - len(left)
    progress("values", done, len(every))
    one = partial(_measured_alone, ladder, episodes=episodes, seed=seed, num_envs=num_envs)
    for policy, play, values in _each(one, left, jobs):
        file.add(policy, play, values)
        done += 1
        progress("values", done, len(every), f"{policy}, {play}")
    return ladder.values_path


Answer = tuple[str, Play, Values]


def _measured_alone(
    ladder: Ladder, policy: str, play: Play, *, episodes: int, seed: int, num_envs: int
) -> Answer:
    with one_thread():
        values = measure_values(
            ladder, policy, play=play, episodes=episodes, seed=seed, num_envs=num_envs
        )
    return policy, play, values


def _each(
    one: Callable[[str, Play], Answer], pairs: Sequence[tuple[str, Play]], jobs: int
) -> Iterator[Answer]:
    """In this process or in `jobs` others, as they are known."""
    if jobs == 1 or len(pairs) < 2:
        yield from (one(*pair) for pair in pairs)
        return
    joblib, _ = joblib_modules()
    parallel = joblib.Parallel(
        jobs,
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        pre_dispatch=jobs,
        inner_max_num_threads=1,
    )
    yield from parallel(joblib.delayed(one)(*pair) for pair in pairs)

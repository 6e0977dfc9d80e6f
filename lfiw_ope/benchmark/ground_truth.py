"""True values of a ladder's policies, by playing them in the real environment."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from lfiw_envs.ladder import Ladder, LadderValue, Play, Question
from lfiw_envs.making import is_vectorised
from numpy.typing import NDArray

from lfiw_ope.benchmark.provenance import digest, gone_on_with, made_by
from lfiw_ope.core.errors import DataError
from lfiw_ope.core.policy_batch import check_policy, probe
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.core.runtime import joblib_modules, one_thread
from lfiw_ope.core.seeding import derive, torch_generator
from lfiw_ope.core.serialization import write_text
from lfiw_ope.core.validation import choice, whole
from lfiw_ope.data.spaces import action_spec, decode_actions, flatten_states, gymnasium, state_size
from lfiw_ope.data.trajectories import FloatArray
from lfiw_ope.policies.files import load_actor

PLAYS: tuple[Play, ...] = get_args(Play)


@dataclass(frozen=True)
class ValueFile:
    """Values by policy, kind of play and question, and what they were measured with.

    Attributes:
        ladder: where it belongs, at `ladder.values_path`.
        head: what measures now: command, settings, versions.
        files: digest of each policy that has values.
        values: by policy, play and question.
    """

    ladder: Ladder
    head: Mapping[str, Any]
    files: dict[str, str]
    values: dict[str, dict[str, dict[str, Any]]]

    @classmethod
    def open(cls, ladder: Ladder, *, command: str, seed: int, num_envs: int) -> "ValueFile":
        """What is stored already, or nothing.

        Raises:
            ConfigError: if it was measured with other settings.
            DataError: if the file is of another kind.
        """
        head = made_by(ladder, command, seed=seed, num_envs=num_envs)
        stored = gone_on_with(ladder.values_path, head, ("files", "values"))
        return cls(ladder, head, stored["files"], stored["values"])

    def knows(self, policy: str, play: Play, episodes: int) -> bool:
        """Whether a policy's file was measured as it is now, by so many episodes or more.

        Raises:
            DataError: if the policy's file is missing or none.
        """
        known = self.files.get(policy) == digest(self.ladder.policy_path(policy))
        values = self.values.get(policy, {}).get(play, {})
        return known and bool(values) and all(of["episodes"] >= episodes for of in values.values())

    def add(self, policy: str, play: Play, values: Mapping[str, LadderValue]) -> None:
        """Keep a policy's values, and write the file, whole or not at all."""
        file = digest(self.ladder.policy_path(policy))
        if self.files.get(policy) != file:
            self.values[policy] = {}  # those of another policy of this name
        self.files[policy] = file
        plain = {question: asdict(value) for question, value in values.items()}
        self.values.setdefault(policy, {})[play] = plain
        # In the ladder's order, whichever was measured first.
        order = [name for name in self.ladder.targets if name in self.values]
        order += [name for name in self.values if name not in order]
        said = {
            **self.head,
            "files": {name: self.files[name] for name in order},
            "values": {
                name: {play: self.values[name][play] for play in PLAYS if play in self.values[name]}
                for name in order
            },
        }
        text = json.dumps(said, indent=1, allow_nan=False) + "\n"
        write_text(self.ladder.values_path, text)


COPIES = 100
"""Of the environment that are played at a time: so many that the policy's share of the time is
small even where a step of the environment takes ten microseconds."""


def play_returns(
    ladder: Ladder,
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    num_envs: int = COPIES,
    progress: Progress = silent,
) -> dict[str, NDArray[np.float64]]:
    """Returns Σ_{t<T} γ^t r_t `[N]` of a policy's episodes, by the ladder's questions.

    The N episodes that are played are the N that are begun: a copy of the environment that ends
    one begins the next that nobody plays, or rests where there is none. So a short episode counts
    no more than a long one. No trajectory is kept, so that memory does not grow with the episodes.

    An environment with a vector environment of its own is played by that: one episode in each copy,
    round after round.

    Args:
        ladder: whose environment is played.
        policy: any policy, on the CPU.
        episodes: N.
        seed: of the episodes' resets and the policy's draws.
        num_envs: copies of the environment at a time.
        progress: told how many episodes have ended.

    Raises:
        ConfigError: if a number is out of range.
        PolicyError: if the policy is for other spaces.
        DataError: if an action lies outside the action space, or a reward is not finite.
    """
    whole("episodes", episodes, least=1)
    copies = min(whole("num_envs", num_envs, least=1), episodes)
    factors = _factors(ladder.questions)
    returns = np.zeros((len(factors), episodes))
    if is_vectorised(ladder.env_id):
        _play_rounds(ladder, policy, factors, returns, copies, seed, progress)
        return dict(zip(ladder.questions, returns, strict=True))
    table = _Table(ladder, copies, episodes, seed)
    try:
        table.check(policy)
        generator = torch_generator(seed, "actions")
        while table.playing:
            actions = table.act(policy, generator)
            numbers, steps = table.places()
            rewards = table.step(actions, last=factors.shape[1])
            _require_finite(ladder, rewards, steps[0])
            returns[:, numbers] += factors[:, steps] * rewards
            progress("play", table.begun - len(table.playing), episodes)
    finally:
        table.close()
    return dict(zip(ladder.questions, returns, strict=True))


def _play_rounds(
    ladder: Ladder,
    policy: Policy,
    factors: NDArray[np.float64],
    returns: NDArray[np.float64],
    copies: int,
    seed: int,
    progress: Progress,
) -> None:
    """Add each episode's return to `returns` `[questions, N]`, `copies` episodes at a time."""
    env = ladder.make_vector(copies)
    observations, actions = env.single_observation_space, env.single_action_space
    generator = torch_generator(seed, "actions")
    try:
        for first in range(0, returns.shape[1], copies):
            part = returns[:, first : first + copies]
            observed, _ = env.reset(seed=derive(seed, "reset", str(first)) % 2**31)
            playing = np.arange(copies) < part.shape[1]
            for step in range(factors.shape[1]):
                states = flatten_states(observations, observed)
                if first == step == 0:
                    _check(policy, observations, actions, states)
                with torch.inference_mode():
                    drawn = policy.act(torch.from_numpy(states), generator)
                observed, rewards, terminated, truncated, _ = env.step(
                    decode_actions(actions, drawn.numpy())
                )
                rewards = np.where(playing, rewards, 0.0)  # an ended episode's copy plays on
                _require_finite(ladder, rewards, step)
                part += factors[:, step, None] * rewards[: part.shape[1]]
                playing &= ~(terminated | truncated)
                if not playing.any():
                    break
            progress("play", first + part.shape[1], returns.shape[1])
    finally:
        env.close()


def _require_finite(ladder: Ladder, rewards: NDArray[np.float64], step: int) -> None:
    if not np.isfinite(rewards).all():
        raise DataError(
            f"{ladder.env_id} gave a reward that is not finite in step {step + 1} of "
            f"an episode; a value needs every one of them."
        )


def _check(policy: Policy, observations: Any, actions: Any, states: FloatArray) -> None:
    """That a policy is for an environment of these spaces."""
    spec = action_spec(actions)
    size = state_size(observations)
    check_policy(policy, state_size=size, action_size=spec.size, action_kind=spec.kind)
    probe(policy, torch.from_numpy(states))


def _factors(questions: Mapping[str, Question]) -> NDArray[np.float64]:
    """γ^t `[questions, T]` up to the longest horizon, and 0 from each question's own on."""
    steps = np.arange(max(question.horizon for question in questions.values()))
    return np.stack(
        [np.where(steps < of.horizon, of.discount**steps, 0.0) for of in questions.values()]
    )


class _Copy:
    """One copy of the environment, and the episode that it plays."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.number = self.steps = 0
        self.observation: Any = None

    def begin(self, number: int, seed: int) -> None:
        self.number, self.steps = number, 0
        self.observation, _ = self.env.reset(seed=seed)

    def step(self, action: Any) -> tuple[float, bool]:
        """The reward, and whether the episode has ended."""
        self.observation, reward, terminated, truncated, _ = self.env.step(action)
        self.steps += 1
        return float(reward), bool(terminated or truncated)


class _Table:
    """Copies of an environment that play numbered episodes, each to its end.

    Attributes:
        playing: copies that are in an episode.
        begun: episodes so far.
    """

    def __init__(self, ladder: Ladder, copies: int, episodes: int, seed: int) -> None:
        self.episodes, self.seed, self.begun = episodes, seed, 0
        self.every = [_Copy(ladder.make()) for _ in range(copies)]
        self.playing = list(self.every)
        self.observations = self.every[0].env.observation_space
        self.actions = self.every[0].env.action_space
        for copy in self.every:
            self._begin(copy)

    def _begin(self, copy: _Copy) -> None:
        number = self.begun
        copy.begin(number, derive(self.seed, "reset", str(number)) % 2**31)
        self.begun += 1

    def check(self, policy: Policy) -> None:
        """That the policy is for this environment."""
        _check(policy, self.observations, self.actions, self.states())

    def states(self) -> FloatArray:
        """Of the copies that play, `[n, S]`."""
        batch = gymnasium().vector.utils
        every = [copy.observation for copy in self.playing]
        empty = batch.create_empty_array(self.observations, n=len(every))
        return flatten_states(self.observations, batch.concatenate(self.observations, every, empty))

    @torch.inference_mode()
    def act(self, policy: Policy, generator: torch.Generator) -> NDArray[Any]:
        drawn = policy.act(torch.from_numpy(self.states()), generator)
        return decode_actions(self.actions, drawn.numpy())

    def places(self) -> tuple[list[int], list[int]]:
        """Number and step of each episode that is being played."""
        return [copy.number for copy in self.playing], [copy.steps for copy in self.playing]

    def step(self, actions: NDArray[Any], *, last: int) -> NDArray[np.float64]:
        """Rewards `[n]` of the copies that play; the next episodes begin where one has ended.

        An episode of which no question asks more, after `last` steps, is left there.
        """
        rewards = np.empty(len(self.playing))
        still = []
        for place, copy in enumerate(self.playing):
            rewards[place], ended = copy.step(actions[place])
            if not ended and copy.steps < last:
                still.append(copy)
            elif self.begun < self.episodes:
                self._begin(copy)
                still.append(copy)
        self.playing = still
        return rewards

    def close(self) -> None:
        for copy in self.every:
            copy.env.close()


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
    call = f"lfiw_ope.benchmark.ground_truth.measure_ladder({ladder.name}, {episodes=}, {seed=})"
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

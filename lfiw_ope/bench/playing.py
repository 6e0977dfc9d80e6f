"""Whole episodes in the real environment, of which the returns alone are kept."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lfiw_envs.ladder import Ladder, Question
from lfiw_envs.making import is_vectorised
from numpy.typing import NDArray

from lfiw_ope.checks import whole
from lfiw_ope.data.log import FloatArray
from lfiw_ope.data.spaces import (
    action_spec,
    decode_actions,
    flatten_states,
    gymnasium,
    state_size,
)
from lfiw_ope.errors import DataError
from lfiw_ope.policies.stacking import check_policy, probe
from lfiw_ope.seeding import derive, torch_generator
from lfiw_ope.types import Policy, Progress, silent

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

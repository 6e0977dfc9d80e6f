"""How far a data set supports a policy: the share of what it really does that the data hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from lfiw_envs.ladder import Ladder, Question
from numpy.typing import NDArray

from lfiw_ope.bench.datasets import copies_for
from lfiw_ope.bench.region import Pairs, Region, pairs_at
from lfiw_ope.checks import whole
from lfiw_ope.data.collect import collect
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import DataError
from lfiw_ope.policies.actor_file import load_actor
from lfiw_ope.seeding import derive, numpy_generator

SUPPORTED = 0.8
"""A data set supports a policy of which it supports this share or more.

Of the policy that made the data, 95 % lies inside by construction and one step in twenty outside.
Up to one in five, four times as many, what is asked of a policy is still in the main what the data
tell of. The number was fixed before any suite was run, by this reason alone: no estimate was looked
at."""

PLAYED = 20_000
"""Steps that a policy is played for: twenty whole episodes of 1000."""

REFERENCE = 20_000
"""Transitions of either half of a data set, at most, that neighbours are looked for among."""

DRAWN = 2_000
"""Steps of the policy, and of either half of a data set, whose neighbours are looked for."""

LEAST = 10
"""Episodes of a data set: five in either half."""


def measure_support(
    ladder: Ladder, policy: str, data: Trajectories, *, seed: int, played: int = PLAYED
) -> float:
    """Share of what a policy does in the real environment that a data set holds, 0 to 1.

        support(π; D) = E_{(s, a) ~ d^π}[ (s, a) ∈ region(D) ]

    d^π is where the policy, as it draws its actions, spends its time as the ladder's questions
    count it: step t of an episode weighs γ^t / Σ_{u<T} γ^u up to the horizon T, on the mean over
    the questions, and nothing weighs after the episode's end. region(D) is the smallest region of
    states and actions that holds 95 % of what the data's policies do, whose steps weigh likewise:
    by the distance to the third nearest transition, as `region.Region` has it, with whole episodes
    held out, one half of the data for the other and both ways. So it is about 0.95 for the policy
    that made the data, whatever its states and actions are.

    Nothing is learned or estimated of the policy's value, and the true value is not looked at. It
    is the coverage of pairs, which models, action values and occupancy ratios learn from: a policy
    that chooses among logged pairs unlike the data's is supported, though importance weights of
    its whole trajectories may be worth few episodes. Nor does it tell whether the data are many
    enough: it is nearly the same for more of the same.

    Args:
        ladder: one that is shipped, or one of your own.
        policy: by its name in the ladder's folder.
        data: a log of the ladder's environment.
        seed: of the policy's play and of what is drawn of it and of the data.
        played: steps of the policy.

    Raises:
        ValueError: if the ladder has no such policy.
        ConfigError: if a number is out of range.
        DataError: if the policy's file is missing or none, the data are of fewer than ten
            episodes, or not of the ladder's environment.
        PolicyError: if the policy is for other spaces.
    """
    pairs = play_pairs(ladder, policy, seed=seed, played=played)
    return DataSupport.of(data, ladder.questions, seed=seed).share(pairs)


def play_pairs(ladder: Ladder, policy: str, *, seed: int, played: int = PLAYED) -> Pairs:
    """What a policy does in the real environment: pairs drawn as the ladder's questions weigh.

    Raises:
        ValueError: if the ladder has no such policy.
        ConfigError: if a number is out of range.
        DataError: if the policy's file is missing or none.
        PolicyError: if it is for other spaces.
    """
    whole("played", played, least=1)
    actor = load_actor(ladder.policy_path(policy))
    own = derive(seed, "support", ladder.name, policy)
    env = ladder.make_vector(copies_for(played, ladder.episode))
    try:
        log = collect(env, actor, transitions=played, seed=own)
    finally:
        env.close()
    rng = numpy_generator(own, "drawn")
    return pairs_at(log, _drawn(step_weights(ladder.questions, log), DRAWN, rng))


def step_weights(questions: Mapping[str, Question], log: Trajectories) -> NDArray[np.float64]:
    """How much each transition `[R]` of a log counts in what is asked, on the mean of questions."""
    step = np.arange(log.num_transitions) - np.repeat(log.offsets[:-1], log.lengths)
    found = np.zeros(log.num_transitions)
    for horizon, discount in questions.values():
        weight = np.power(discount, np.arange(horizon), dtype=np.float64)
        asked = step < horizon
        found[asked] += weight[step[asked]] / weight.sum()
    return found / len(questions)


@dataclass(frozen=True)
class DataSupport:
    """Where a data set is: one region by each half of its episodes, of which the mean is taken."""

    regions: tuple[Region, Region]

    @classmethod
    def of(cls, data: Trajectories, questions: Mapping[str, Question], *, seed: int) -> Self:
        """Of a log, its steps weighed as the questions do; the seed decides the halves.

        Raises:
            DataError: if there are fewer than ten episodes.
        """
        if data.num_episodes < LEAST:
            raise DataError(
                f"The data are of {data.num_episodes} episodes; support needs {LEAST} or more, so "
                "that some can be held against the others."
            )
        rng = numpy_generator(seed, "support", "data")
        of_one = np.isin(
            np.repeat(np.arange(data.num_episodes), data.lengths),
            rng.permutation(data.num_episodes)[: data.num_episodes // 2],
        )
        weights = step_weights(questions, data)
        regions = []
        for inside in (of_one, ~of_one):
            rows = np.flatnonzero(inside)
            reference = pairs_at(data, rng.permutation(rows)[:REFERENCE])
            held_out = pairs_at(data, _drawn(np.where(inside, 0.0, weights), DRAWN, rng))
            regions.append(Region.of(reference, held_out, data.action_spec.kind))
        return cls((regions[0], regions[1]))

    def share(self, pairs: Pairs) -> float:
        """Of these pairs, that lie inside.

        Raises:
            DataError: if they are of other spaces.
        """
        return float(np.mean([region.holds(pairs).mean() for region in self.regions]))


def _drawn(weights: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows `[count]`, drawn with replacement in proportion to their weights `[R]`."""
    return rng.choice(len(weights), count, p=weights / weights.sum())

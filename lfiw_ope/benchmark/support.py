"""How far a data set supports a policy, and the file that says so."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from lfiw_envs.ladder import Ladder, Question
from numpy.typing import NDArray
from torch import Tensor

from lfiw_ope.benchmark.datasets import copies_for, dataset
from lfiw_ope.benchmark.provenance import digest, gone_on_with, made_by
from lfiw_ope.core.errors import DataError
from lfiw_ope.core.protocols import Progress, silent
from lfiw_ope.core.seeding import derive, numpy_generator
from lfiw_ope.core.serialization import write_text
from lfiw_ope.core.validation import whole
from lfiw_ope.data.collect import collect
from lfiw_ope.data.trajectories import FloatArray, Trajectories
from lfiw_ope.diagnostics.support import NEAREST, Array, Coordinates
from lfiw_ope.nn.batched_mlp import Standardiser
from lfiw_ope.policies.files import load_actor

INSIDE = 0.95
"""Share of what other episodes of the log do that a region holds."""

BLOCK = 256
"""Pairs whose distances to all the reference are in memory at a time."""


class Pairs(NamedTuple):
    """States and what was done there."""

    state: FloatArray  # [n, S]
    action: FloatArray  # [n, A]


def pairs_at(log: Trajectories, rows: NDArray[np.int64]) -> Pairs:
    """Those of a log's transitions `[n]`, by their number."""
    episode = np.searchsorted(log.offsets, rows, side="right") - 1
    return Pairs(log.states[rows + episode], log.actions[rows])


class Nearest:
    """How far (s, a) is from the third nearest of a reference.

    Continuous actions: in standardised entries of states and actions together. Discrete ones: in
    those of states, among the reference's where the same action was done. Of many state entries the
    leading principal components are looked at, as everywhere in `diagnosis.support`.

    Every distance is computed: from ten entries on, that is quicker than a tree.

    Args:
        reference: the pairs.
        kind: of actions.
    """

    def __init__(self, reference: Pairs, kind: Literal["continuous", "discrete"]) -> None:
        self.place = Coordinates(torch.from_numpy(reference.state))
        self.unit = Standardiser.of_chunks((torch.from_numpy(reference.action),))
        self.discrete = kind == "discrete"
        self.sizes = reference.state.shape[1], reference.action.shape[1]
        self.reference = self._groups(reference)

    def _groups(self, pairs: Pairs) -> dict[int, tuple[NDArray[np.int64], Tensor]]:
        """Rows and coordinates of the pairs that can be near each other, by their action."""
        found = self.place(torch.from_numpy(pairs.state))
        if not self.discrete:
            units = self.unit(torch.from_numpy(pairs.action)).double().numpy()
            both = np.concatenate((found, units), 1)
            return {0: (np.arange(len(both)), torch.from_numpy(both))}
        done = pairs.action.argmax(1)
        every = ((int(one), np.flatnonzero(done == one)) for one in np.unique(done))
        return {one: (rows, torch.from_numpy(found[rows])) for one, rows in every}

    def distance(self, pairs: Pairs) -> Array:
        """`[n]`; infinite where fewer than three of the reference have that discrete action.

        Raises:
            DataError: if the pairs are of other spaces.
        """
        sizes = pairs.state.shape[1], pairs.action.shape[1]
        if sizes != self.sizes:
            raise DataError(
                f"States and actions have {sizes} entries where the data's have {self.sizes}; both "
                "must be of one environment."
            )
        found = np.full(len(pairs.state), np.inf)
        for one, (rows, points) in self._groups(pairs).items():
            _, others = self.reference.get(one, (None, points[:0]))
            if len(others) >= NEAREST:
                found[rows] = _third_nearest(points, others)
        return found


def _third_nearest(points: Tensor, others: Tensor) -> Array:
    """Distance `[n]` of points `[n, D]` to the third nearest of others `[m, D]`."""
    lengths, found = others.square().sum(1), []
    for block in torch.split(points, BLOCK):
        # |x - y|² - |x|², which orders the others as the distance does.
        apart = torch.addmm(lengths, block, others.T, alpha=-2.0)
        third = apart.topk(NEAREST, largest=False).values[:, -1]
        found.append((third + block.square().sum(1)).clamp_min(0.0).sqrt())
    return np.asarray(torch.cat(found).numpy(), np.float64)


@dataclass(frozen=True)
class Region:
    """The states and actions that are no farther from a reference than most of a log's own are.

    The distance to the k-th nearest of a sample tells the density there (Loftsgaarden and
    Quesenberry, 1965), so this estimates the log's region of highest density: the smallest that
    holds 95 % of what is done in it.

    Attributes:
        near: some of the log's episodes.
        radius: the distance that 95 % of what its other episodes do does not exceed.
    """

    near: Nearest
    radius: float

    @classmethod
    def of(cls, reference: Pairs, held_out: Pairs, kind: Literal["continuous", "discrete"]) -> Self:
        """By pairs of some episodes, and of others: neighbours in time are no measure."""
        near = Nearest(reference, kind)
        radius = float(np.quantile(near.distance(held_out), INSIDE, method="higher"))
        return cls(near, radius + 1e-6)  # where states repeat, distances are 0 but for rounding

    def holds(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Of each pair, `[n]`.

        Raises:
            DataError: if the pairs are of other spaces.
        """
        distance = self.near.distance(pairs)
        return np.isfinite(distance) & (distance <= self.radius)


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


SEED = 4_000_037
"""Of what is played and drawn: no suite's data have it, whose support is thus that of their
distribution and not of themselves."""

TRANSITIONS = 100_000
"""Of each data set."""


def write_support(
    ladder: Ladder,
    *,
    data: Sequence[str] | None = None,
    transitions: int = TRANSITIONS,
    played: int = PLAYED,
    seed: int = SEED,
    cache: bool | str | Path | None = None,
    command: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Measure how data sets support a ladder's targets, and store it at `ladder.support_path`.

    See `measure_support` for what is measured. What a data set supports is stored as soon as it is
    known; what the file holds already, of the same policies' files, is not measured again.

    Args:
        ladder: one that is shipped, or one of your own, whose folder holds the policies' files.
        data: names of data sets; all of the ladder's where none are named.
        transitions: of each data set.
        played: steps of each target.
        seed: of all that is played and drawn.
        cache: where the data sets are kept, as `dataset` takes it; they are not where it is None.
        command: said in the file to have made it; else this call.
        progress: told how many pairs of data set and target are done.

    Returns:
        The file.

    Raises:
        ValueError: if the ladder has no such data set.
        ConfigError: if a number is out of range, or the file was measured otherwise.
        DataError: if a policy's file is missing or none, or a data set is of too few episodes.
        PolicyError: if a policy is for other spaces.
    """
    names = tuple(ladder.recipes) if data is None else tuple(data)
    head = made_by(
        ladder,
        command or f"lfiw_ope.benchmark.support.write_support({ladder.name}, {seed=})",
        seed=seed,
        transitions=transitions,
        played=played,
        inside=INSIDE,
        supported=SUPPORTED,
    )
    path = ladder.support_path
    stored = _of_these_files(
        ladder, gone_on_with(path, head, ("files", "recipes", "support")), names
    )
    shares = stored["support"]
    todo = {
        name: [one for one in ladder.targets if one not in shares.get(name, {})] for name in names
    }
    total = len(names) * len(ladder.targets)
    done = total - sum(map(len, todo.values()))
    progress("support", done, total)
    needed = [one for one in ladder.targets if any(one in targets for targets in todo.values())]
    pairs: dict[str, Pairs] = {
        one: play_pairs(ladder, one, seed=seed, played=played) for one in needed
    }
    for name, targets in todo.items():
        if not targets:
            continue
        log = dataset(ladder, name, transitions, seed, cache=cache)
        support = DataSupport.of(log, ladder.questions, seed=seed)
        shares.setdefault(name, {}).update({one: support.share(pairs[one]) for one in targets})
        _write(ladder, stored)
        done += len(targets)
        progress("support", done, total, name)
    return path


def _of_these_files(ladder: Ladder, stored: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Without what is of other policies, or other recipes, than have their names now."""
    needed = [*ladder.targets, *(one for name in names for one in ladder.recipe(name))]
    files = {one: digest(ladder.policy_path(one)) for one in dict.fromkeys(needed)}
    changed = {one for one, was in stored["files"].items() if files.get(one, was) != was}
    support = {
        name: {one: share for one, share in shares.items() if one not in changed}
        for name, shares in stored["support"].items()
        if list(ladder.recipes.get(name, ())) == stored["recipes"].get(name)
        and changed.isdisjoint(ladder.recipe(name))
    }
    recipes = {name: list(of) for name, of in ladder.recipes.items()}
    files = {**stored["files"], **files}
    files = {one: was for one, was in files.items() if one in ladder.policies}
    return {**stored, "files": files, "recipes": recipes, "support": support}


def _write(ladder: Ladder, stored: dict[str, Any]) -> None:
    """In the ladder's order."""
    support = {
        name: {
            one: round(stored["support"][name][one], 4)
            for one in ladder.targets
            if one in stored["support"][name]
        }
        for name in ladder.recipes
        if name in stored["support"]
    }
    text = json.dumps({**stored, "support": support}, indent=1, allow_nan=False)
    write_text(ladder.support_path, text + "\n")

"""Trajectories from a Gymnasium vector environment, under any policy."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.policy_batch import check_policy, probe
from lfiw_ope.core.protocols import (
    DensityPolicy,
    Policy,
    Progress,
    ProposingPolicy,
    has_density,
    silent,
)
from lfiw_ope.core.seeding import derive, torch_generator
from lfiw_ope.core.validation import whole
from lfiw_ope.data.memory import check_room
from lfiw_ope.data.spaces import action_spec, decode_actions, flatten_states, gymnasium
from lfiw_ope.data.trajectories import FloatArray, Trajectories

BLOCK = 2**26
"""Bytes of a block of rows, of which memory is taken as it fills. So large because an allocator
gives back at once what it took from the system in one piece, and glibc does that above 32 MiB."""

NOBODY = -1
"""The episode of a copy that plays none that is kept."""


class Recorder:
    """Episodes of the copies of an environment, in the order in which they started.

    Transitions are kept as they come, in blocks, and put where they belong when all are there; the
    blocks go as their rows are put, so that memory holds the log once and not twice.

    Attributes:
        playing: `[copies]` int64, the number of the episode that each copy plays, or `NOBODY`.

    Args:
        copies: of the environment.
        episodes: how many are kept, the first to start; all where None.
        transitions: how many are kept, as many of each copy as of every other, and one more of the
            first ones where they do not divide; all where None.
    """

    def __init__(self, copies: int, *, episodes: int | None, transitions: int | None) -> None:
        self.wanted = episodes or transitions or 0
        self.by_episode = episodes is not None
        if transitions is None:
            self._left = np.full(copies, np.iinfo(np.int64).max)
        else:
            self._left = transitions // copies + (np.arange(copies) < transitions % copies)
        self.playing = np.full(copies, NOBODY)
        self._step = np.zeros(copies, np.int64)  # of the episode that each copy plays
        self._lengths: list[int] = []  # of each episode so far, by its number, as all below
        self._last: list[FloatArray] = []
        self._ends: list[tuple[bool, bool]] = []
        self._over = self._rows = 0
        self._blocks: list[dict[str, NDArray[Any]]] = []
        self._filled = 0  # rows of the last block

    @property
    def done(self) -> int:
        """Episodes or transitions of those `wanted`."""
        return self._over if self.by_episode else self._rows

    @property
    def complete(self) -> bool:
        return self.done == self.wanted

    def start(self, copies: NDArray[np.int64]) -> None:
        """The next step of these copies begins an episode; which is kept if it is wanted."""
        for copy in copies:
            started = len(self._lengths)
            full = self.by_episode and started == self.wanted
            self.playing[copy] = NOBODY if full or not self._left[copy] else started
            if self.playing[copy] != NOBODY:
                self._step[copy] = 0
                self._lengths.append(0)
                self._last.append(np.empty(0, np.float32))
                self._ends.append((False, False))

    def step(
        self,
        columns: Mapping[str, NDArray[Any]],
        reached: FloatArray,
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> None:
        """One step of every copy.

        Args:
            columns: "states" `[copies, S]` that were acted on, "actions", "rewards", and "log_prob"
                and "proposed_actions" where they are known; of copies that play nothing, anything.
            reached: `[copies, S]`
            terminated, truncated: `[copies]`
        """
        kept = np.flatnonzero(self.playing != NOBODY)
        if kept.size == 0:
            return
        episode = self.playing[kept]
        self._keep(
            {name: of[kept] for name, of in columns.items()}
            | {"episode": episode, "step": self._step[kept]}
        )
        self._step[kept] += 1
        self._left[kept] -= 1
        over = (terminated | truncated)[kept] | (self._left[kept] == 0)
        for copy, number in zip(kept[over], episode[over], strict=True):
            self._lengths[number] = int(self._step[copy])
            self._last[number] = reached[copy].copy()
            # One that is cut because its copy has played enough is truncated, too.
            fell = bool(terminated[copy])
            self._ends[number] = fell, bool(truncated[copy]) or not fell
            self.playing[copy] = NOBODY
        self._over += int(over.sum())

    def _keep(self, rows: dict[str, NDArray[Any]]) -> None:
        count = len(rows["episode"])
        if not self._blocks or self._filled + count > len(self._blocks[-1]["episode"]):
            self._add_block(rows)
        for name, values in rows.items():
            self._blocks[-1][name][self._filled : self._filled + count] = values
        self._filled += count
        self._rows += count

    def _add_block(self, rows: dict[str, NDArray[Any]]) -> None:
        row_bytes = sum(_typed(of).itemsize * of[:1].size for of in rows.values())
        if not self._blocks:
            check_room(0 if self.by_episode else self.wanted * row_bytes, f"{self.wanted} rows")
        else:
            self._blocks[-1] = {name: of[: self._filled] for name, of in self._blocks[-1].items()}
        most = max(len(self.playing), BLOCK // row_bytes)
        self._blocks.append(
            {name: np.empty((most, *of.shape[1:]), _typed(of)) for name, of in rows.items()}
        )
        self._filled = 0

    def trajectories(
        self, spec: ActionSpec, env_id: str | None, env_kwargs: Mapping[str, Any]
    ) -> Trajectories:
        """What was recorded; the recorder is empty thereafter.

        Raises:
            NonFiniteError: if a number is not finite.
        """
        lengths = np.array(self._lengths)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        self._blocks[-1] = {name: of[: self._filled] for name, of in self._blocks[-1].items()}
        arrays = {
            name: np.empty(
                (self._rows + len(lengths) * (name == "states"), *of.shape[1:]), of.dtype
            )
            for name, of in self._blocks[0].items()
            if name not in ("episode", "step")
        }
        self._blocks.reverse()
        while self._blocks:
            block = self._blocks.pop()
            to = offsets[block["episode"]] + block["step"]
            for name, array in arrays.items():
                array[to + block["episode"] * (name == "states")] = block[name]
        # Not before: in pages of megabytes, these alone would take the memory of the whole array.
        arrays["states"][offsets[1:] + np.arange(len(lengths))] = self._last
        terminated, truncated = np.array(self._ends).T
        return Trajectories(
            **arrays,
            lengths=lengths,
            terminated=terminated,
            truncated=truncated,
            action_spec=spec,
            env_id=env_id,
            env_kwargs=env_kwargs,
        )


def _typed(values: NDArray[Any]) -> np.dtype[Any]:
    """What a log keeps of numbers, and what counts rows as it is."""
    return values.dtype if values.dtype.kind == "i" else np.dtype(np.float32)


def collect(
    env: Any,
    policy: Policy,
    *,
    episodes: int | None = None,
    transitions: int | None = None,
    seed: int,
    progress: Progress = silent,
) -> Trajectories:
    """Play `policy` in a Gymnasium vector environment, for whole episodes or for transitions.

    Episodes are numbered as they start. Of `episodes`, the first so many are kept, however long
    each takes: keeping those that *end* first would favour short ones. For `transitions`, each copy
    of the environment plays as many as every other (the first ones play one more where they do not
    divide), episode after episode, and the episode that it is in when it has played them is
    truncated there: the clock ends it, whatever it is like, and so favours none.

    Where the policy has a density, its log-probability is carried: of the executed action, or,
    where the policy knows its own draw before the environment's bounds clip it, of that draw, which
    is carried too.

    Args:
        env: a `gymnasium.vector.VectorEnv` that resets itself (NEXT_STEP or SAME_STEP).
        policy: what acts; on the CPU.
        episodes: N; or else
        transitions: R, exactly.
        seed: of the environment's resets and the policy's draws.
        progress: told how many episodes have ended, or transitions have been played.

    Raises:
        ConfigError: if not exactly one of `episodes` and `transitions` is given, or it is below 1,
            or the environment does not reset itself.
        PolicyError: if the policy is for other spaces.
        DataError: if the policy's actions lie outside the action space.
        InsufficientMemoryError: if so many transitions would not fit into memory.
    """
    _check_count(episodes, transitions)
    same_step = _resets_in_the_same_step(env)
    spec = action_spec(env.single_action_space)
    recorder = Recorder(env.num_envs, episodes=episodes, transitions=transitions)
    states = _reset(env, seed)
    check_policy(policy, state_size=states.shape[1], action_size=spec.size, action_kind=spec.kind)
    probe(policy, torch.from_numpy(states))
    draw, generator = _drawer(policy), torch_generator(seed, "collect", "actions")
    starting = np.ones(env.num_envs, bool)  # the next step of these begins an episode
    resetting = np.zeros(env.num_envs, bool)  # NEXT_STEP: that of these is a reset, no transition
    while not recorder.complete:
        recorder.start(np.flatnonzero(starting))
        with torch.inference_mode():
            drawn = draw(states, generator)
        observations, rewards, terminated, truncated, infos = env.step(
            decode_actions(env.single_action_space, drawn.action)
        )
        reached = flatten_states(env.single_observation_space, observations)
        ended = terminated | truncated
        last = reached
        if same_step and ended.any():
            last = reached.copy()  # `reached` holds the next episodes' first states already
            final = [infos["final_obs"][i] for i in np.flatnonzero(ended)]
            last[ended] = flatten_states(*_batched(env.single_observation_space, final))
        columns = {"states": states, "rewards": rewards, **drawn.columns()}
        recorder.step(columns, last, terminated, truncated)
        states = reached
        starting, resetting = (ended, resetting) if same_step else (resetting, ended)
        progress("collect", recorder.done, recorder.wanted)
    return recorder.trajectories(spec, *_made_with(env))


def _check_count(episodes: int | None, transitions: int | None) -> None:
    if (episodes is None) == (transitions is None):
        raise ConfigError(
            f"episodes is {episodes} and transitions is {transitions}; give exactly one of them."
        )
    if episodes is not None:
        whole("episodes", episodes, least=1)
    if transitions is not None:
        whole("transitions", transitions, least=1)


def _resets_in_the_same_step(env: Any) -> bool:
    """Whether a copy's reset comes with the end of its episode, and not in the step thereafter."""
    if not isinstance(env, gymnasium().vector.VectorEnv):
        raise ConfigError(
            f"{type(env).__name__} is no vector environment; wrap it, for one copy with "
            "gymnasium.vector.SyncVectorEnv([lambda: env])."
        )
    modes = gymnasium().vector.AutoresetMode
    mode = modes(env.metadata.get("autoreset_mode", modes.NEXT_STEP))
    if mode not in (modes.NEXT_STEP, modes.SAME_STEP):
        raise ConfigError(
            f"The vector environment's autoreset mode is {mode}; make it with NEXT_STEP or "
            "SAME_STEP."
        )
    return bool(mode == modes.SAME_STEP)


class _Draw(NamedTuple):
    """What the policy did at one step, for each environment."""

    action: FloatArray
    proposed: FloatArray | None
    log_prob: FloatArray | None

    def columns(self) -> dict[str, FloatArray]:
        """What of it is known, by the names of a log."""
        known = {
            "actions": self.action,
            "proposed_actions": self.proposed,
            "log_prob": self.log_prob,
        }
        return {name: of for name, of in known.items() if of is not None}


def _reset(env: Any, seed: int) -> FloatArray:
    seeds = [derive(seed, "collect", "reset", str(i)) % 2**31 for i in range(env.num_envs)]
    try:
        observations, _ = env.reset(seed=seeds)
    except (gymnasium().error.Error, TypeError):
        # A vector class of an environment's own, such as CartPole's, draws all from one seed.
        observations, _ = env.reset(seed=seeds[0])
    return flatten_states(env.single_observation_space, observations)


def _drawer(policy: Policy) -> Callable[[FloatArray, torch.Generator], _Draw]:
    """What the policy does at states; which kind it is, is asked once and not at every step."""
    if not has_density(policy):
        return lambda states, generator: _Draw(
            policy.act(torch.from_numpy(states), generator).numpy(), None, None
        )
    assert isinstance(policy, DensityPolicy)
    return _drawn_by_proposal(policy) if isinstance(policy, ProposingPolicy) else _drawn(policy)


def _drawn(policy: DensityPolicy) -> Callable[[FloatArray, torch.Generator], _Draw]:
    def draw(states: FloatArray, generator: torch.Generator) -> _Draw:
        state = torch.from_numpy(states)
        action = policy.act(state, generator)
        return _Draw(action.numpy(), None, policy.log_prob(state, action).numpy())

    return draw


def _drawn_by_proposal(
    policy: ProposingPolicy,
) -> Callable[[FloatArray, torch.Generator], _Draw]:
    def draw(states: FloatArray, generator: torch.Generator) -> _Draw:
        state = torch.from_numpy(states)
        proposed = policy.propose(state, generator)
        log_prob = policy.proposal_log_prob(state, proposed)
        return _Draw(policy.execute(proposed).numpy(), proposed.numpy(), log_prob.numpy())

    return draw


def _made_with(env: Any) -> tuple[str | None, dict[str, Any]]:
    """The environment's id, where it has one, and what it was made with."""
    first = getattr(env, "envs", [None])[0]
    spec = getattr(first, "spec", None) or getattr(env, "spec", None)
    if spec is None:
        return None, {}
    # gymnasium.make_vec adds to the keywords what concerns the vector alone.
    of_vector = ("num_envs", "vectorization_mode", "vector_kwargs", "wrappers")
    return str(spec.id), {k: v for k, v in spec.kwargs.items() if k not in of_vector}


def _batched(space: Any, observations: list[Any]) -> tuple[Any, Any]:
    """The space, and some of its observations as one batch."""
    batch = gymnasium().vector.utils
    empty = batch.create_empty_array(space, n=len(observations))
    return space, batch.concatenate(space, observations, empty)

"""Trajectories from a Gymnasium vector environment, under any policy."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lfiw_ope.checks import whole
from lfiw_ope.data.log import FloatArray
from lfiw_ope.data.spaces import action_spec, decode_actions, flatten_states, gymnasium
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.errors import ConfigError
from lfiw_ope.policies.stacking import check_policy, probe
from lfiw_ope.seeding import derive, torch_generator
from lfiw_ope.types import (
    DensityPolicy,
    Policy,
    Progress,
    ProposingPolicy,
    has_density,
    silent,
)


def collect(
    env: Any,
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    progress: Progress = silent,
) -> Trajectories:
    """Play `episodes` whole episodes of `policy` in a Gymnasium vector environment.

    Episodes are numbered as they start, and the first `episodes` of them are kept, however long
    each takes: keeping those that *end* first would favour short ones. Where the policy has a
    density, its log-probability is carried: of the executed action, or, where the policy knows its
    own draw before the environment's bounds clip it, of that draw, which is carried too.

    Args:
        env: a `gymnasium.vector.VectorEnv` that resets itself (NEXT_STEP or SAME_STEP).
        policy: what acts; on the CPU.
        episodes: N.
        seed: of the environment's resets and the policy's draws.
        progress: told how many episodes have ended.

    Raises:
        ConfigError: if `episodes` is below 1, or the environment does not reset itself.
        PolicyError: if the policy is for other spaces.
        DataError: if the policy's actions lie outside the action space.
    """
    whole("episodes", episodes, least=1)
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
    spec = action_spec(env.single_action_space)
    recorder = _Recorder(env.num_envs, episodes)
    states = _reset(env, seed)
    check_policy(policy, state_size=states.shape[1], action_size=spec.size, action_kind=spec.kind)
    probe(policy, torch.from_numpy(states))
    generator = torch_generator(seed, "collect", "actions")
    starting = np.ones(env.num_envs, bool)  # the next step of these begins an episode
    resetting = np.zeros(env.num_envs, bool)  # NEXT_STEP: that of these is a reset, no transition
    while not recorder.complete:
        recorder.start(np.flatnonzero(starting), states)
        draw = _act(policy, states, generator)
        observations, rewards, terminated, truncated, infos = env.step(
            decode_actions(env.single_action_space, draw.action)
        )
        reached = flatten_states(env.single_observation_space, observations)
        ended = terminated | truncated
        last = reached
        if mode == modes.SAME_STEP and ended.any():
            last = reached.copy()  # `reached` holds the next episodes' first states already
            final = [infos["final_obs"][i] for i in np.flatnonzero(ended)]
            last[ended] = flatten_states(*_batched(env.single_observation_space, final))
        recorder.step(draw, rewards, last, terminated, truncated)
        states = reached
        starting, resetting = (ended, resetting) if mode == modes.SAME_STEP else (resetting, ended)
        progress("collect", recorder.finished, episodes)
    return recorder.trajectories(spec, *_made_with(env))


class _Draw(NamedTuple):
    """What the policy did at one step, for each environment."""

    action: FloatArray
    proposed: FloatArray | None
    log_prob: FloatArray | None


def _reset(env: Any, seed: int) -> FloatArray:
    seeds = [derive(seed, "collect", "reset", str(i)) % 2**31 for i in range(env.num_envs)]
    try:
        observations, _ = env.reset(seed=seeds)
    except (gymnasium().error.Error, TypeError):
        # A vector class of an environment's own, such as CartPole's, draws all from one seed.
        observations, _ = env.reset(seed=seeds[0])
    return flatten_states(env.single_observation_space, observations)


@torch.inference_mode()
def _act(policy: Policy, states: FloatArray, generator: torch.Generator) -> _Draw:
    state = torch.from_numpy(states)
    if not has_density(policy):
        return _Draw(policy.act(state, generator).numpy(), None, None)
    assert isinstance(policy, DensityPolicy)
    if not isinstance(policy, ProposingPolicy):
        action = policy.act(state, generator)
        return _Draw(action.numpy(), None, policy.log_prob(state, action).numpy())
    proposed = policy.propose(state, generator)
    log_prob = policy.proposal_log_prob(state, proposed)
    return _Draw(policy.execute(proposed).numpy(), proposed.numpy(), log_prob.numpy())


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


class _Episode:
    """One episode while it is being played."""

    def __init__(self, number: int, state: FloatArray) -> None:
        self.number = number
        self.states = [state]
        self.actions: list[FloatArray] = []
        self.rewards: list[float] = []
        self.proposed: list[FloatArray] = []
        self.log_prob: list[np.float32] = []
        self.terminated = self.truncated = False


class _Recorder:
    """Episodes in the order in which they started."""

    def __init__(self, num_envs: int, wanted: int) -> None:
        self.wanted = wanted
        self.started = 0
        self.playing: list[_Episode | None] = [None] * num_envs
        self.done: list[_Episode] = []

    @property
    def finished(self) -> int:
        return len(self.done)

    @property
    def complete(self) -> bool:
        return len(self.done) == self.wanted

    def start(self, which: NDArray[np.int64], states: FloatArray) -> None:
        for i in which:
            self.playing[i] = None
            if self.started < self.wanted:
                self.playing[i] = _Episode(self.started, states[i])
                self.started += 1

    def step(
        self,
        draw: _Draw,
        rewards: NDArray[np.float64],
        reached: FloatArray,
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> None:
        for i, episode in enumerate(self.playing):
            if episode is None:
                continue
            episode.actions.append(draw.action[i])
            episode.rewards.append(float(rewards[i]))
            episode.states.append(reached[i])
            if draw.proposed is not None:
                episode.proposed.append(draw.proposed[i])
            if draw.log_prob is not None:
                episode.log_prob.append(draw.log_prob[i])
            if terminated[i] or truncated[i]:
                episode.terminated, episode.truncated = bool(terminated[i]), bool(truncated[i])
                self.done.append(episode)
                self.playing[i] = None

    def trajectories(
        self, spec: Any, env_id: str | None, env_kwargs: dict[str, Any]
    ) -> Trajectories:
        episodes = sorted(self.done, key=lambda episode: episode.number)
        scored, proposed = bool(episodes[0].log_prob), bool(episodes[0].proposed)
        return Trajectories(
            states=np.concatenate([np.stack(e.states) for e in episodes]),
            actions=np.concatenate([np.stack(e.actions) for e in episodes]),
            rewards=np.concatenate([np.asarray(e.rewards, np.float32) for e in episodes]),
            lengths=np.array([len(e.rewards) for e in episodes]),
            terminated=np.array([e.terminated for e in episodes]),
            truncated=np.array([e.truncated for e in episodes]),
            action_spec=spec,
            log_prob=np.concatenate([e.log_prob for e in episodes]) if scored else None,
            proposed_actions=(
                np.concatenate([np.stack(e.proposed) for e in episodes]) if proposed else None
            ),
            env_id=env_id,
            env_kwargs=env_kwargs,
        )

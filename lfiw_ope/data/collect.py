"""Trajectories from a Gymnasium vector environment, under any policy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from lfiw_ope.checks import whole
from lfiw_ope.data.log import FloatArray
from lfiw_ope.data.recording import Recorder
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

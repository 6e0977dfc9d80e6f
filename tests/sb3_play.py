"""Environments that note what they play, and stable-baselines3 algorithms that train on them."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

LIMIT = 12


class Seen(gym.Wrapper):
    """Notes each episode that an environment plays: states, actions, rewards, how it ended."""

    def __init__(self, env, episodes):
        super().__init__(env)
        self.episodes = episodes

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        self.episode = {"states": [flat(self, observation)], "actions": [], "rewards": []}
        self.episode |= {"terminated": False, "truncated": False}
        self.episodes.append(self.episode)
        return observation, info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.episode["states"].append(flat(self, observation))
        self.episode["actions"].append(np.array(action))
        self.episode["rewards"].append(reward)
        self.episode |= {"terminated": terminated, "truncated": truncated}
        return observation, reward, terminated, truncated, info


def flat(env, observation):
    return spaces.flatten(env.observation_space, observation).astype(np.float32)


class Leaky(gym.ActionWrapper):
    """Pendulum with bounds that are not symmetric, so that a wrong scale shows."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = spaces.Box(np.float32([-0.5]), np.float32([1.5]))

    def action(self, action):
        return action


class Parts(gym.ObservationWrapper):
    """CartPole's observation in two parts."""

    def __init__(self, env):
        super().__init__(env)
        box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = spaces.Dict({"pole": box, "cart": box})

    def observation(self, observation):
        return {"cart": observation[:2], "pole": observation[2:]}


def played(env_id, *wrappers, envs=2, limit=LIMIT):
    """A vector of environments, and what each of them will have seen."""
    seen = [[] for _ in range(envs)]

    def make(i):
        env = gym.make(env_id, max_episode_steps=limit)
        for wrap in wrappers:
            env = wrap(env)
        return Seen(env, seen[i])

    return DummyVecEnv([lambda i=i: make(i) for i in range(envs)]), seen


def off_policy(algorithm, env, steps, *, policy="MlpPolicy", buffer=10_000, **kwargs):
    """Trained for real, but a little: `steps` of each environment, learning from the tenth on."""
    model = algorithm(
        policy, env, buffer_size=buffer, learning_starts=10 * env.num_envs, train_freq=4,
        batch_size=8, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu", **kwargs,
    )  # fmt: skip
    return model.learn(steps * env.num_envs)


def assert_episode(data, i, seen, *, first=0, last=None, scale=1e-6):
    """Episode `i` is steps [first, last) of what was seen; the actions to rounding."""
    last = len(seen["rewards"]) if last is None else last
    rows = slice(data.offsets[i], data.offsets[i + 1])
    states = data.states[data.state_offsets[i] : data.state_offsets[i + 1]]
    np.testing.assert_array_equal(states, np.stack(seen["states"][first : last + 1]))
    np.testing.assert_allclose(
        data.rewards[rows], np.float32(seen["rewards"][first:last]), rtol=1e-6
    )
    actions = np.stack(seen["actions"][first:last])
    if data.action_spec.kind == "discrete":
        actions = np.eye(data.action_size)[actions]
    np.testing.assert_allclose(data.actions[rows], actions, rtol=scale, atol=scale)


def assert_all(data, kept):
    assert data.num_episodes == len(kept)
    for i, seen in enumerate(kept):
        assert_episode(data, i, seen)
        assert data.terminated[i] == seen["terminated"]
        # stable-baselines3 notes the time limit only where the state was not terminal too.
        assert data.truncated[i] == (not seen["terminated"])


def started(seen):
    """Episodes, environment after environment, that had a step: the last reset may have none."""
    return [episode for env in seen for episode in env if episode["rewards"]]

"""A real log, one row a transition, under the names that D4RL gives its columns."""

import functools

import gymnasium as gym
import numpy as np

LIMIT = 9


@functools.cache
def recorded():
    """Random play on CartPole: some episodes fall and some reach the limit; the last is cut."""
    env = gym.make("CartPole-v1", max_episode_steps=LIMIT)
    rng = np.random.default_rng(0)
    rows = []
    for episode in range(30):
        observation, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            push = rng.normal() if episode % 3 else 1.0
            reached, reward, terminated, truncated, _ = env.step(int(push > 0))
            rows.append((observation, push, reward, reached, terminated, truncated, -(push**2)))
            observation, ended = reached, terminated or truncated
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    columns = map(np.array, zip(*rows[:-2], strict=True))  # the log stops within an episode
    columns = dict(zip((*names, "log_prob"), columns, strict=True))
    columns["actions"] = columns["actions"][:, None]  # the push is the action, unbounded
    assert columns["terminals"].any()
    assert (columns["timeouts"] & ~columns["terminals"]).any()
    assert not columns["terminals"][-1]
    assert not columns["timeouts"][-1]
    return columns


ROWS = len(recorded()["rewards"])

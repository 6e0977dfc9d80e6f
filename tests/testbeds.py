"""Test-beds with a wrong model whose ratio to the truth is known exactly."""

from dataclasses import dataclass

import numpy as np
import torch
from lfiw_envs import LinearGaussianMDP, LinearGaussianPolicy, TabularMDP, TabularPolicy

from lfiw_ope import ActionSpec, Trajectories


@dataclass(frozen=True)
class ExactRatio:
    """log p / p_θ from the two densities: the ratio that a perfect classifier would give."""

    truth: LinearGaussianMDP | TabularMDP
    model: LinearGaussianMDP | TabularMDP

    def log_ratio(self, state, action, transition):
        there = self.truth.log_density(state, action, transition)
        return there - self.model.log_density(state, action, transition)


class Placed:
    """A test-bed's model where an ensemble is wanted: it samples, has a mean, and lives somewhere.

    The model is linear-Gaussian or tabular.
    """

    def __init__(self, model):
        self.model, self.sample = model, model.sample
        self.low = torch.zeros(1)

    def mean(self, state, action):
        """`[..., S + 1]`, the expected next state and reward."""
        if isinstance(self.model, TabularMDP):
            chances = torch.as_tensor(self.model.transition, dtype=state.dtype)
            rewards = torch.as_tensor(self.model.reward, dtype=state.dtype) * chances
            both = torch.cat((chances, rewards.sum(-1, keepdim=True)), -1)
            return torch.einsum("...s,...a,sad->...d", state, action, both)
        a, b, offset = (
            torch.as_tensor(values, dtype=state.dtype)
            for values in (self.model.a, self.model.b, self.model.offset)
        )
        moved = state @ a.T + action @ b.T + offset
        return torch.cat((moved, self.model.reward(state, action)[..., None]), -1)


def linear_gaussian():
    """(truth, model, policy): drift and gain are wrong, the model's noise is wider.

    Divergence over 15 steps: 15 · KL ≈ 15 · ½ (3 · 0.03² / 0.05 + 3 · (0.8 − 1 − log 0.8)) ≈ 1.
    """
    rng = np.random.default_rng(0)
    a = 0.9 * np.eye(3) + 0.05 * rng.normal(size=(3, 3))
    b = 0.3 * rng.normal(size=(3, 2))
    shared = {
        "initial_mean": np.zeros(3),
        "initial_cov": 0.1 * np.eye(3),
        "linear": np.array([1.0, 0.5, -0.5]),
        "state_cost": 0.1 * np.eye(3),
        "action_cost": 0.1 * np.eye(2),
    }
    drift = np.array([0.1, 0.0, -0.1])
    truth = LinearGaussianMDP(a=a, b=b, offset=drift, noise=0.04 * np.eye(3), **shared)
    model = LinearGaussianMDP(
        a=a, b=1.02 * b, offset=drift + 0.03, noise=0.05 * np.eye(3), **shared
    )
    policy = LinearGaussianPolicy(
        gain=0.3 * rng.normal(size=(2, 3)), bias=np.array([0.2, -0.1]), scale=np.array([0.3, 0.3])
    )
    return truth, model, policy


def tabular(terminal=1):
    """(truth, model, policy): a random MDP, and a mixture of it with another."""
    truth = TabularMDP.random(states=6, actions=3, seed=1, terminal=terminal)
    model = truth.perturbed(seed=2, amount=0.25)
    table = np.random.default_rng(3).dirichlet(np.ones(3), 6)
    return truth, model, TabularPolicy(table)


def standings(lengths, terminated, horizon):
    """`[N, T]`, what episodes count at each step, by Efron's redistribution to the right.

    Every episode begins with a mass of 1. That of one which is cut short is dealt out evenly among
    those which go on.
    """
    mass, found = np.ones(len(lengths)), np.zeros((len(lengths), horizon))
    for t in range(horizon):
        heirs = [i for i, length in enumerate(lengths) if length > t]
        for i, length in enumerate(lengths):
            if length == t and not terminated[i]:
                for heir in heirs:
                    mass[heir] += mass[i] / len(heirs)
                mass[i] = 0.0
        found[:, t] = mass
    return found


def log_of(mdp, policy, episodes, horizon, seed, cut=None):
    """Episodes of `policy` in a test-bed, as a user would have logged them.

    With `cut`, a share of the episodes is cut short at a step drawn at random.
    """
    generator = torch.Generator().manual_seed(seed)
    observe = getattr(mdp, "observe", lambda state: state)
    state = mdp.initial_states(episodes, generator)
    states, actions, rewards, log_prob = [observe(state)], [], [], []
    alive, ended = [], torch.zeros(episodes, dtype=torch.bool)
    for _ in range(horizon):
        action = policy.act(observe(state), generator)
        step = mdp.sample(state, action, generator)
        alive.append(~ended)
        log_prob.append(policy.log_prob(observe(state), action))
        actions.append(action)
        rewards.append(step.reward)
        state = step.next_state
        states.append(observe(state))
        ended = ended | step.terminated
    alive = torch.stack(alive, 1).numpy()
    ended = ended.numpy()
    if cut is not None:
        rng = np.random.default_rng(seed)
        last = np.where(rng.random(episodes) < cut, rng.integers(1, horizon, episodes), horizon)
        ended &= alive.sum(1) <= last
        alive &= np.arange(horizon) < last[:, None]
    kept = np.concatenate((np.ones((episodes, 1), bool), alive), 1)
    spec = ActionSpec.discrete(policy.action_size)
    if isinstance(mdp, LinearGaussianMDP):
        unbounded = np.full(policy.action_size, np.inf)
        spec = ActionSpec.continuous(-unbounded, unbounded)
    return Trajectories(
        states=torch.stack(states, 1).numpy()[kept],
        actions=torch.stack(actions, 1).numpy()[alive],
        rewards=torch.stack(rewards, 1).numpy()[alive],
        lengths=alive.sum(1),
        terminated=ended,
        truncated=~ended,
        action_spec=spec,
        log_prob=torch.stack(log_prob, 1).numpy()[alive],
    )


def unsaid(data):
    """The log without the behaviour's likelihoods."""
    return Trajectories(
        states=data.states,
        actions=data.actions,
        rewards=data.rewards,
        lengths=data.lengths,
        terminated=data.terminated,
        truncated=data.truncated,
        action_spec=data.action_spec,
    )

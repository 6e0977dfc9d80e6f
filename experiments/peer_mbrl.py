"""mbrl-lib on the network of `benchmark_throughput.py`; runs in a venv that has mbrl 0.2.0.

    peers/bin/python experiments/peer_mbrl.py '{"n": 1000, "sizes": [23, 256, 256, 256, 18]}'

The same ensemble (its `GaussianMLP`, SiLU, a uniformly drawn member at each step), trained through
its own `update`, rolled out through its own `ModelEnv`, under a policy of the same size.
"""

import json
import statistics
import sys
import time
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import torch
from mbrl.models import GaussianMLP, ModelEnv, OneDTransitionRewardModel
from mbrl.types import TransitionBatch

REPEATS, UPDATES, STEPS, MEMBERS, BATCH = 9, 30, 10, 5, 256


def median_seconds(work):
    work()
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main(n, sizes):
    states, actions = sizes[-1] - 1, sizes[0] - sizes[-1] + 1
    network = GaussianMLP(
        sizes[0],
        sizes[-1],
        "cpu",
        num_layers=len(sizes) - 2,
        ensemble_size=MEMBERS,
        hid_size=sizes[1],
        propagation_method="random_model",
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )
    model = OneDTransitionRewardModel(network, target_is_delta=True, normalize=True)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20_000, states)).astype(np.float32)
    batch = TransitionBatch(
        rows,
        rng.uniform(-1, 1, (20_000, actions)).astype(np.float32),
        rows + 0.1 * rng.normal(size=rows.shape).astype(np.float32),
        rows[:, 0],
        np.zeros(20_000, bool),
        np.zeros(20_000, bool),
    )
    model.update_normalizer(batch)

    def train():
        for _ in range(UPDATES):
            chosen = rng.integers(len(rows), size=(MEMBERS, BATCH))
            model.update(batch[chosen], optimiser)

    actor = torch.nn.Sequential(
        torch.nn.Linear(states, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, actions),
    )
    spaces = SimpleNamespace(
        observation_space=gym.spaces.Box(-np.inf, np.inf, (states,)),
        action_space=gym.spaces.Box(-1, 1, (actions,)),
    )

    def never(action, observation):  # noqa: ARG001
        return torch.zeros((len(observation), 1), dtype=torch.bool)

    env = ModelEnv(spaces, model, never, generator=torch.Generator().manual_seed(0))
    starts = rows[rng.integers(len(rows), size=n)]

    @torch.no_grad()
    def roll():
        # return_as_np=False keeps everything a tensor, its quickest way.
        now = env.reset(starts, return_as_np=False)
        observation = now["obs"]
        for _ in range(STEPS):
            mean = actor(observation)
            action = (mean + 0.6 * torch.randn_like(mean)).clamp(-1, 1)
            observation, _, _, now = env.step(action, now, sample=True)

    found = {
        "ms_per_update": 1e3 * median_seconds(train) / UPDATES,
        "steps_per_second": n * STEPS / median_seconds(roll),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))

"""d3rlpy's FQE on the log of `peer_fqe.py`; runs in a venv that has d3rlpy 2.8.1.

    peers/bin/python experiments/peer_d3rlpy.py '{"log": "log.npz", "width": 256, ...}'

Its own `FQE.update` on batches of its own replay buffer, without the logging of its `fit`.
"""

import json
import statistics
import sys
import time
from types import SimpleNamespace

import d3rlpy
import numpy as np
import torch
from d3rlpy.dataset import Episode, create_infinite_replay_buffer
from d3rlpy.models import VectorEncoderFactory
from d3rlpy.ope import FQE, FQEConfig

BATCH, CHUNK = 256, 25


def replay_buffer(log):
    """d3rlpy drops a truncated episode's last transition: a row that it may drop is added."""
    length = log["states"].shape[1] - 1
    episodes = []
    for states, actions, rewards in zip(log["states"], log["actions"], log["rewards"], strict=True):
        actions = np.concatenate((actions, actions[-1:]))
        rewards = np.concatenate((rewards, [0.0]))[:, None].astype(np.float32)
        assert len(states) == len(actions) == len(rewards) == length + 1
        episodes.append(Episode(states, actions, rewards, terminated=False))
    return create_infinite_replay_buffer(episodes)


def main(log, width, updates, seed, threads, discount):
    torch.set_num_threads(threads)
    d3rlpy.seed(seed)
    held = dict(np.load(log))
    seen = held["states"][:, :-1].reshape(-1, held["states"].shape[-1])
    mean, std = seen.mean(0), seen.std(0)
    held["states"] = (held["states"] - mean) / std
    mean, std = torch.from_numpy(mean), torch.from_numpy(std)
    layers = [torch.from_numpy(held[f"layer{i}"]) for i in range(2)]

    @torch.no_grad()
    def act(states):
        hidden = torch.tanh((states * std + mean) @ layers[0])
        return (hidden @ layers[1]).clamp(-2.0, 2.0)

    buffer = replay_buffer(held)
    # What FQE asks of an algorithm is its action; this one computes it with nothing around it.
    algo = SimpleNamespace(impl=SimpleNamespace(predict_best_action=act))
    config = FQEConfig(
        batch_size=BATCH,
        learning_rate=3e-4,
        gamma=discount,
        encoder_factory=VectorEncoderFactory([width, width]),
    )
    fqe = FQE(algo=algo, config=config, device="cpu:0")
    fqe.build_with_dataset(buffer)
    taken = []
    for _ in range(updates // CHUNK):
        started = time.perf_counter()
        for _ in range(CHUNK):
            fqe.update(buffer.sample_transition_batch(BATCH))
        taken.append(time.perf_counter() - started)
    starts = held["states"][:, 0]
    values = fqe.predict_value(starts, act(torch.from_numpy(starts)).numpy())
    print(
        json.dumps({"value": float(np.mean(values)), "ms": 1e3 * statistics.median(taken) / CHUNK})
    )


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))

"""How fast are training and rollouts, against what the machine can do and against peers?

    python experiments/benchmark_throughput.py [--device cuda] [--peer-python PEER/bin/python]

Every cell runs in a process of its own, so that its peak memory is its own, and alternates between
the work and the bare matrix products of the same shapes and precision, so that a busy machine slows
both; a share is the median over the alternations. A cell is stored when it is finished; a stopped
run goes on, and `--fresh` begins again. The peer (mbrl-lib) needs a venv of its own:

    python3 -m venv peers && peers/bin/pip install torch==2.13.0 mbrl==0.2.0
    peers/bin/pip install hydra-core==1.3.2  # the release that mbrl pins cannot be imported

The shapes are HalfCheetah's (17 state and 6 action entries), the networks the defaults: 5 members
of 3 x 256 SiLU, batches of 256. Nothing here is asserted: `results/throughput_cpu.json` says what
was reached.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

import lfiw_ope as ope
from lfiw_ope.core import torch_generator, write_text
from lfiw_ope.dynamics import simulate
from lfiw_ope.policies import GaussianHead

HERE = Path(__file__).parent
S, A, MEMBERS, HIDDEN, BATCH = 17, 6, 5, (256, 256, 256), 256
SIZES = (S + A, *HIDDEN, S + 1)
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
REPEATS = 9
Cell = dict[str, Any]


# ------------------------------------------------------------------ the work


def log(transitions: int, steps: int = 100) -> ope.Trajectories:
    """Episodes of a stable linear system under random actions, made in place."""
    episodes = transitions // steps
    rng = np.random.default_rng(0)
    pull = rng.normal(size=(S + A, S)).astype(np.float32) / 10
    states = np.empty((episodes, steps + 1, S), np.float32)
    actions = rng.random((episodes, steps, A), np.float32) * 2 - 1
    states[:, 0] = rng.random((episodes, S), np.float32)
    for t in range(steps):
        noise = 0.05 * rng.standard_normal((episodes, S), np.float32)
        moved = np.tanh(np.concatenate((states[:, t], actions[:, t]), 1) @ pull)
        states[:, t + 1] = 0.9 * states[:, t] + 0.3 * moved + noise
    return ope.Trajectories(
        states=states.reshape(-1, S),
        actions=actions.reshape(-1, A),
        rewards=states[:, 1:, 0].reshape(-1),
        lengths=np.full(episodes, steps),
        terminated=np.zeros(episodes, bool),
        truncated=np.ones(episodes, bool),
        action_spec=ope.ActionSpec.continuous(-np.ones(A), np.ones(A)),
    )


def policy(seed: int) -> ope.MLPPolicy:
    """2 x 64 tanh, as PPO has it."""
    generator = torch_generator(seed, "policy")
    weights = [torch.randn(shape, generator=generator) / 8 for shape in pairwise((S, 64, 64, A))]
    limit = torch.ones((1, A))
    head = GaussianHead(torch.full_like(limit, -0.5), -limit, limit)
    biases = [torch.zeros(weight.shape[1]) for weight in weights]
    return ope.MLPPolicy.from_layers(weights, biases, head, activation="tanh")


def fit_model(
    data: ope.Trajectories, updates: int, precision: str, device: str
) -> ope.EnsembleDynamics:
    how = ope.FitConfig(updates=updates, evaluate_every=10_000, precision=precision)  # type: ignore[arg-type]
    config = ope.DynamicsConfig(
        member_episodes="all", members=MEMBERS, hidden=HIDDEN, device=device, fit=how
    )
    held_out = max(1, data.num_episodes // 20)
    parts = np.split(np.arange(data.num_episodes), [data.num_episodes - held_out])
    return ope.fit_dynamics(data, config, 0, train=parts[0].tolist(), held_out=parts[1].tolist())


def sequential() -> list[nn.Sequential]:
    """The ensemble as most code has it: separate networks, one after the other."""
    return [
        nn.Sequential(*[m for a, b in pairwise(SIZES) for m in (nn.Linear(a, b), nn.SiLU())][:-1])
        for _ in range(MEMBERS)
    ]


# ------------------------------------------------------------------ the measure


def seconds(work: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def paired(
    work: Callable[[], object], bare: Callable[[], object], device: str
) -> tuple[float, float, float]:
    """Median seconds of the work, of the bare products, and of their ratio pair by pair."""
    work(), bare()
    pairs = [(seconds(work, device), seconds(bare, device)) for _ in range(REPEATS)]
    mine, products = zip(*pairs, strict=True)
    shares = [p / m for m, p in pairs]
    return statistics.median(mine), statistics.median(products), statistics.median(shares)


def shapes(rows: int, backward: bool) -> Iterator[tuple[int, int, int, bool]]:
    """(m, k, n, whether it is the last layer) of every product of one pass."""
    for i, (a, b) in enumerate(pairwise(SIZES)):
        last = i == len(SIZES) - 2
        yield rows, a, b, last
        if backward:
            yield a, rows, b, last
        if backward and i > 0:
            yield rows, b, a, last


def flops(rows: int, backward: bool = False) -> float:
    return float(sum(2 * MEMBERS * m * k * n for m, k, n, _ in shapes(rows, backward)))


def products(rows: int, backward: bool, precision: str, device: str) -> Callable[[], None]:
    """The bare products, the quickest way there is: batched, or a loop over members.

    More rows than 256 are taken in cache-sized pieces, on a CPU.
    """
    piece = min(rows, 256) if device == "cpu" else rows
    pairs: list[tuple[Tensor, Tensor]] = []
    for m, k, n, last in shapes(piece, backward):
        how = {"dtype": torch.float32 if last else TYPES[precision], "device": device}
        pairs.append((torch.randn(MEMBERS, m, k, **how), torch.randn(MEMBERS, k, n, **how)))  # type: ignore[arg-type]

    def batched() -> None:
        for left, right in pairs:
            torch.bmm(left, right)

    def looped() -> None:
        for left, right in pairs:
            for one in range(MEMBERS):
                torch.mm(left[one], right[one])

    def median(way: Callable[[], None]) -> float:
        way()
        return statistics.median(seconds(way, device) for _ in range(25))

    quickest = min(batched, looped, key=median)

    def run() -> None:
        for _ in range(round(rows / piece)):
            quickest()

    return run


def peak_memory(device: str) -> float:
    """MiB, of this process or of the device."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


# ------------------------------------------------------------------ the cells


def train_cell(precision: str, device: str, updates: int = 40) -> Cell:
    data = log(20_000)
    elapsed: list[float] = []

    def work() -> None:
        report = fit_model(data, updates, precision, device).report
        assert report is not None
        elapsed.append(report.seconds)

    bare = products(BATCH, True, precision, device)
    work()
    shares, rates = [], []
    for _ in range(REPEATS):
        work()
        alone = seconds(lambda: [bare() for _ in range(updates)], device)
        shares.append(alone / elapsed[-1])
        rates.append(updates * flops(BATCH, True) / alone)
    each = statistics.median(elapsed[1:]) / updates
    return {
        "ms_per_update": 1e3 * each,
        "gflops": flops(BATCH, True) / each / 1e9,
        "matrix_gflops": statistics.median(rates) / 1e9,
        "share_of_matrix_rate": statistics.median(shares),
    }


def rollout_cell(n: int, precision: str, device: str) -> Cell:
    model = fit_model(log(20_000), 2, precision, device)
    starts = torch.from_numpy(log(20_000).initial_states).to(device)
    actor = policy(0).to(device)
    steps = max(2, min(50, 200_000 // n))
    before = peak_memory(device)

    def work() -> None:
        simulate(actor, model, starts, horizon=steps, rollouts=n, seed=0)

    hand = -(-n // MEMBERS)
    bare = products(hand, False, precision, device)
    work()
    grew = peak_memory(device) - before
    mine, alone, share = paired(work, lambda: [bare() for _ in range(steps)], device)
    stream = torch.empty(1 << 26, device=device)
    copied = min(seconds(lambda: stream.clone(), device) for _ in range(5))
    # What must be read and written if every intermediate stayed in cache: weights and rows.
    row_bytes = 4 * (S + A + 2 * (S + 1) + S + 3)
    weight_bytes = 4 * MEMBERS * sum(a * b for a, b in pairwise(SIZES))
    return {
        "ms_per_step": 1e3 * mine / steps,
        "steps_per_second": n * steps / mine,
        "gflops": steps * flops(hand) / mine / 1e9,
        "matrix_gflops": steps * flops(hand) / alone / 1e9,
        "share_of_matrix_rate": share,
        "floor_ms_by_flops": 1e3 * alone / steps,
        "floor_ms_by_bytes": 1e3 * (n * row_bytes + weight_bytes) / (8 * (1 << 26) / copied),
        "peak_memory_grew_mib": grew,
    }


def sequential_cell(n: int, device: str, updates: int = 30, steps: int = 10) -> Cell:
    """The same ensemble as separate networks: training, and rollouts by equal hands."""
    networks = [network.to(device) for network in sequential()]
    optimisers = [torch.optim.Adam(network.parameters(), 1e-3) for network in networks]
    data = log(20_000).transitions()
    state, action = (
        torch.from_numpy(data.state).to(device),
        torch.from_numpy(data.action).to(device),
    )
    moved = np.concatenate((data.next_state - data.state, data.reward[:, None]), 1)
    target = torch.from_numpy(moved).to(device)
    inputs = torch.cat((state, action), 1)

    def train() -> None:
        for _ in range(updates):
            for network, optimiser in zip(networks, optimisers, strict=True):
                rows = torch.randint(len(inputs), (BATCH,), device=device)
                loss = (network(inputs[rows]) - target[rows]).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    actor, generator = policy(0).to(device), torch_generator(0, "actions", device=device)
    starts = state[torch.randint(len(state), (n,), device=device)]

    @torch.no_grad()
    def roll() -> None:
        now, total = starts, torch.zeros(n, device=device)
        for _ in range(steps):
            acted = actor.act(now, generator)
            order = torch.randperm(n, device=device)
            drawn = torch.empty((n, S + 1), device=device)
            for network, rows in zip(networks, order.chunk(MEMBERS), strict=True):
                drawn[rows] = network(torch.cat((now[rows], acted[rows]), 1))
            drawn = drawn + 0.05 * torch.randn_like(drawn)
            total += drawn[:, -1]
            now = now + drawn[:, :-1]

    train(), roll()
    trained = statistics.median(seconds(train, device) for _ in range(REPEATS)) / updates
    rolled = statistics.median(seconds(roll, device) for _ in range(REPEATS)) / steps
    return {"ms_per_update": 1e3 * trained, "steps_per_second": n / rolled}


def policies_cell(estimator: str, count: int, precision: str, device: str) -> Cell:
    """Policies from one fit at the default settings, T = 100, 1000 rollouts of each."""
    how = ope.FitConfig(precision=precision, patience=None)  # type: ignore[arg-type]
    dynamics = ope.DynamicsConfig(member_episodes="all", device=device, fit=how)
    make: dict[str, Any] = {
        "model": (ope.ModelBased, ope.ModelBasedConfig(dynamics=dynamics)),
        "LFIW": (ope.LFIW, ope.LFIWConfig(dynamics=dynamics)),
    }
    kind, config = make[estimator]
    data = log(100_000)
    started = time.perf_counter()
    fit = kind(ope.Estimand(100), config).fit(data, 0)
    fitted = time.perf_counter() - started
    estimates = fit.estimate([policy(i) for i in range(count)])
    whole = time.perf_counter() - started
    assert len({estimate.value for estimate in estimates}) == count
    return {"fit_s": fitted, "rollout_s": whole - fitted, "whole_s": whole}


def transitions_cell(count: int, device: str) -> Cell:
    """The default fit of the plain model; 4000 updates whatever the data."""
    data = log(count)
    before = peak_memory(device)
    config = ope.ModelBasedConfig(
        dynamics=ope.DynamicsConfig(
            member_episodes="all", device=device, fit=ope.FitConfig(patience=None)
        )
    )
    started = time.perf_counter()
    ope.ModelBased(ope.Estimand(100), config).fit(data, 0)
    kept = sum(a.nbytes for a in (data.states, data.actions, data.rewards))
    return {
        "fit_s": time.perf_counter() - started,
        "data_mib": kept / 2**20,
        "peak_memory_grew_mib": peak_memory(device) - before,
    }


def import_cell() -> Cell:
    """A fresh process each: importing the package, over importing torch."""

    def take(module: str) -> float:
        code = (
            f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        )
        return float(subprocess.check_output([sys.executable, "-c", code], text=True))

    pairs = [(take("lfiw_ope"), take("torch")) for _ in range(REPEATS)]
    mine, torchs = (statistics.median(one) for one in zip(*pairs, strict=True))
    return {"lfiw_ope_s": mine, "torch_s": torchs, "over_torch": mine / torchs}


def peer_cell(python: str, n: int) -> Cell:
    """mbrl-lib's ensemble and rollout, on the same network, data and policy."""
    found = subprocess.check_output(
        [python, str(HERE / "peer_mbrl.py"), json.dumps({"n": n, "sizes": SIZES})], text=True
    )
    return dict(json.loads(found.splitlines()[-1]))


CELLS: dict[str, Callable[..., Cell]] = {
    "train": train_cell,
    "rollout": rollout_cell,
    "sequential": sequential_cell,
    "policies": policies_cell,
    "transitions": transitions_cell,
    "import": import_cell,
    "mbrl": peer_cell,
}


def plan(device: str, peer: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    counts = (1_000, 10_000, 100_000)
    yield "import", {}
    for precision in TYPES:
        yield "train", {"precision": precision, "device": device}
    for n in counts:
        for precision in TYPES:
            yield "rollout", {"n": n, "precision": precision, "device": device}
        yield "sequential", {"n": n, "device": device}
        if peer is not None:
            yield "mbrl", {"python": peer, "n": n}
    for count in (100_000, 1_000_000, 10_000_000):
        yield "transitions", {"count": count, "device": device}
    # LFIW's 17 draws and 80 classifications a step make 200 policies long work on two cores.
    for estimator, precision, counts in (
        ("model", "float32", (1, 2, 20, 200)),
        ("model", "bfloat16", (2, 200)),
        ("LFIW", "float32", (1, 2, 20)),
        ("LFIW", "bfloat16", (2, 200)),
    ):
        for count in counts:
            how = {"estimator": estimator, "count": count, "precision": precision}
            yield "policies", how | {"device": device}


def machine(device: str) -> Cell:
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    return {
        "device": torch.cuda.get_device_name() if device != "cpu" else name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main(
    device: str = "cpu",
    peer_python: Annotated[str | None, typer.Option(help="a Python that has mbrl")] = None,
    only: Annotated[str | None, typer.Option(help="cells of this name alone")] = None,
    fresh: Annotated[bool, typer.Option(help="measure again what is stored")] = False,
    cell: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure every cell that is not stored yet."""
    if cell is not None:  # the process of one cell
        name, how = json.loads(cell)
        typer.echo(json.dumps(CELLS[name](**how)))
        return
    results = HERE / "results" / f"throughput_{device}.json"
    rows = json.loads(results.read_text())["cells"] if results.exists() else []
    wanted = [(n, h) for n, h in plan(device, peer_python) if only in (None, n)]
    if fresh:
        rows = [row for row in rows if only not in (None, row["cell"])]
    for name, how in wanted:
        said = {key: value for key, value in how.items() if key != "python"}
        if any(row["cell"] == name and row["of"] == said for row in rows):
            continue
        command = [sys.executable, __file__, "--cell", json.dumps([name, how])]
        found = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
        rows.append({"cell": name, "of": said, "found": found})
        stored = {
            "command": f"python experiments/benchmark_throughput.py --device {device}",
            "machine": machine(device),
            "cells": rows,
        }
        write_text(results, json.dumps(stored, indent=1) + "\n")
    for row in rows:
        of = " ".join(str(value) for value in row["of"].values())
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in row["found"].items())
        typer.echo(f"{row['cell']:<12}{of:<32}{numbers}")


if __name__ == "__main__":
    typer.run(main)

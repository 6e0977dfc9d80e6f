"""How fast many networks are evaluated and trained on a CPU, one after the other or together.

    python experiments/benchmark_networks.py --threads 1

`lfiw_ope.nn.batched_mlp.turns` sends rows through one network after the other where a network's
hidden layer is large, and through all of them layer by layer where it is small. Here both are timed
side by side, in turns, for the sizes that the package has: 18 networks are fitted Q's of six
policies by three members, 5 those of an ensemble. A ratio above 1 says that one after the other is
faster. Processor time counts with one thread, so that other work on the machine disturbs less; with
more, the clock does.
"""

import json
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
import typer
from benchmark_throughput import machine

from lfiw_ope.core import write_text
from lfiw_ope.nn import BatchedMLP
from lfiw_ope.nn import batched_mlp as products

HERE = Path(__file__).parent
WIDTHS = (64, 128, 256)
ROWS = (64, 256, 1024, 4096)
INPUTS = 20
ROUNDS = 15


def seconds(work: Callable[[], object], threads: int) -> float:
    clock = time.process_time if threads == 1 else time.perf_counter
    started = clock()
    work()
    return clock() - started


def measure(
    networks: int, rows: int, width: int, training: bool, threads: int
) -> dict[str, float | str]:
    generator = torch.Generator().manual_seed(0)
    network = BatchedMLP(networks, (INPUTS, width, width, 1), "relu", generator)
    x = torch.randn((networks, rows, INPUTS), generator=generator)

    def train() -> None:
        network.zero_grad()
        network(x).square().mean().backward()

    def evaluate() -> None:
        with torch.no_grad():
            network(x)

    work = train if training else evaluate
    taken: dict[str, list[float]] = {"in turn": [], "together": []}
    default = products.LARGE
    for _ in range(ROUNDS):
        for name, large in (("in turn", 0), ("together", 1 << 60)):
            products.LARGE = large
            taken[name].append(seconds(work, threads))
    products.LARGE = default
    # The first round is for the caches and for memory that is asked for once.
    together, in_turn = (statistics.median(taken[name][1:]) for name in ("together", "in turn"))
    flops = 2 * networks * rows * (width * width + (INPUTS + 1) * width) * (3 if training else 1)
    chosen = products.turns(networks, rows, width, x.device, x.dtype)
    return {
        "networks": networks,
        "rows": rows,
        "width": width,
        "training": training,
        "in_turn_gflops": round(flops / in_turn / 1e9, 1),
        "together_gflops": round(flops / together / 1e9, 1),
        "ratio": round(together / in_turn, 2),
        "chosen": "in turn" if len(chosen) > 1 else "together",
    }


def main(threads: int = 1) -> None:
    torch.set_num_threads(threads)
    found = []
    for training, networks, width, rows in product((False, True), (5, 18), WIDTHS, ROWS):
        found.append(measure(networks, rows, width, training, threads))
        typer.echo(str(found[-1]))
    stored = {
        "command": f"python experiments/benchmark_networks.py --threads {threads}",
        "machine": machine("cpu"),
        "sizes": found,
    }
    write_text(HERE / "results" / f"networks_{threads}.json", json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)

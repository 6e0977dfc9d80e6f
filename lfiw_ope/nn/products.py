"""Products of many networks' rows and weights, in the order that a CPU's caches like."""

import torch
from torch import Tensor

LARGE = 1 << 24
"""Multiplications of a layer's product, for each thread, from which one network after the other is
faster than layer by layer through all of them: 256 rows by a layer of 256 × 256. A network's
weights and rows then stay in the cache from one layer to the next, where those of many do not.
Below it, starting a product for each costs more (`experiments/benchmark_networks.py`)."""


def turns(
    members: int, rows: int, width: int, device: torch.device, dtype: torch.dtype
) -> list[slice]:
    """Which networks go through their layers together: all of them, or one after the other.

    Args:
        members: E, the networks.
        rows: of each.
        width: of their widest layer.
        device: where the networks are.
        dtype: of the hidden products. Those of bfloat16 have other kernels, and go together.
    """
    alone = device.type == "cpu" and dtype == torch.float32
    if alone and rows * width * width >= LARGE * torch.get_num_threads():
        return [slice(one, one + 1) for one in range(members)]
    return [slice(None)]


def affine(bias: Tensor, rows: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """`rows @ weight + bias` into `out`, for each of the leading axis.

    Float32 products of a batch are dealt to a CPU's threads whole: five to two threads leave one
    of them idle for a sixth of the time. Where they do not come out even, each is a product of its
    own, which all threads share.
    """
    threads = torch.get_num_threads()
    uneven = len(out) % threads != 0 and len(out) < 4 * threads
    if out.device.type != "cpu" or out.dtype != torch.float32 or not uneven:
        return torch.baddbmm(bias, rows, weight, out=out)
    for one in range(len(out)):
        torch.addmm(bias[one, 0], rows[one], weight[one], out=out[one])
    return out

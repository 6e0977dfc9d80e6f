"""Batched networks and the one training loop."""

from lfiw_ope.nn.batched_mlp import ACTIVATIONS, BLOCK_BYTES, BatchedMLP, Standardiser
from lfiw_ope.nn.training import (
    AdamW,
    Deal,
    FitConfig,
    FitReport,
    Settling,
    autocast,
    fit,
    resolve_precision,
)

__all__ = [
    "ACTIVATIONS",
    "BLOCK_BYTES",
    "AdamW",
    "BatchedMLP",
    "Deal",
    "FitConfig",
    "FitReport",
    "Settling",
    "Standardiser",
    "autocast",
    "fit",
    "resolve_precision",
]

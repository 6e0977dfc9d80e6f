"""Learned dynamics: an ensemble of one-step models, its noise, its training."""

from lfiw_ope.dynamics.ensemble import LOG_SCALE_BOUNDS, DynamicsConfig, EnsembleDynamics, Outputs
from lfiw_ope.dynamics.noise import Noise, NoiseKind
from lfiw_ope.dynamics.training import fit_dynamics

__all__ = [
    "LOG_SCALE_BOUNDS",
    "DynamicsConfig",
    "EnsembleDynamics",
    "Noise",
    "NoiseKind",
    "Outputs",
    "fit_dynamics",
]

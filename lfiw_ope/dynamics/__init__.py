"""Learned dynamics: an ensemble of one-step models, its noise, its training, rollouts."""

from lfiw_ope.dynamics.ensemble import LOG_SCALE_BOUNDS, DynamicsConfig, EnsembleDynamics
from lfiw_ope.dynamics.noise import Noise, NoiseKind
from lfiw_ope.dynamics.replay import Continuations, LoggedBehaviour, Replayed, score
from lfiw_ope.dynamics.rollout import ROWS_AT_ONCE, Rollout, Watch, simulate
from lfiw_ope.dynamics.sampling import PER_DRAW, Draws, draws
from lfiw_ope.dynamics.training import fit_dynamics

__all__ = [
    "LOG_SCALE_BOUNDS",
    "PER_DRAW",
    "ROWS_AT_ONCE",
    "Continuations",
    "Draws",
    "DynamicsConfig",
    "EnsembleDynamics",
    "LoggedBehaviour",
    "Noise",
    "NoiseKind",
    "Replayed",
    "Rollout",
    "Watch",
    "draws",
    "fit_dynamics",
    "score",
    "simulate",
]

"""Diagnosis before an estimate: can the data tell a policy's value?"""

from lfiw_ope.diagnostics.config import DiagnosisConfig, draw_halves
from lfiw_ope.diagnostics.diagnose import diagnose_model
from lfiw_ope.diagnostics.diagnosis import Diagnosis, concerns_of, warnings_of
from lfiw_ope.diagnostics.open_loop import OpenLoop
from lfiw_ope.diagnostics.rollouts import mean_step, spread
from lfiw_ope.diagnostics.support import (
    NEAREST,
    ActionSupport,
    Array,
    Coordinates,
    Neighbours,
    StateSupport,
)
from lfiw_ope.diagnostics.thresholds import Thresholds, thresholds_of

__all__ = [
    "NEAREST",
    "ActionSupport",
    "Array",
    "Coordinates",
    "Diagnosis",
    "DiagnosisConfig",
    "Neighbours",
    "OpenLoop",
    "StateSupport",
    "Thresholds",
    "concerns_of",
    "diagnose_model",
    "draw_halves",
    "mean_step",
    "spread",
    "thresholds_of",
    "warnings_of",
]

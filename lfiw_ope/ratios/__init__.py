"""Density ratios by classification: of transitions, of policies, of any samples."""

from lfiw_ope.ratios.behaviour_cloning import (
    BehaviourConfig,
    ClonedBehaviour,
    CloneReport,
    fit_behaviour,
    marginal_normal,
)
from lfiw_ope.ratios.calibration import (
    LOG_TEMPERATURE_BOUNDS,
    IsotonicCalibration,
    ReliabilityCurve,
    expected_calibration_error,
    fit_calibration,
    log_loss,
    uncalibrated,
)
from lfiw_ope.ratios.classifier import (
    ClassifierConfig,
    ClassifierEnsemble,
    ClassifierReport,
    Pair,
    TwoSampleObjective,
    fit_classifiers,
)
from lfiw_ope.ratios.density_ratio import DensityRatio, fit_density_ratio, source_of
from lfiw_ope.ratios.induced import Expectation, ExpectationStream, InducedDynamics, InducedModel
from lfiw_ope.ratios.moments import LEAST_CANDIDATES, RIDGES, Candidates, calibrate_moments
from lfiw_ope.ratios.policy_ratio import PolicyRatio, fit_policy_ratio
from lfiw_ope.ratios.transition_ratio import (
    RatioConfig,
    TransitionRatio,
    episode_boundary,
    fit_transition_ratio,
    tilted,
)

__all__ = [
    "LEAST_CANDIDATES",
    "LOG_TEMPERATURE_BOUNDS",
    "RIDGES",
    "BehaviourConfig",
    "Candidates",
    "ClassifierConfig",
    "ClassifierEnsemble",
    "ClassifierReport",
    "CloneReport",
    "ClonedBehaviour",
    "DensityRatio",
    "Expectation",
    "ExpectationStream",
    "InducedDynamics",
    "InducedModel",
    "IsotonicCalibration",
    "Pair",
    "PolicyRatio",
    "RatioConfig",
    "ReliabilityCurve",
    "TransitionRatio",
    "TwoSampleObjective",
    "calibrate_moments",
    "episode_boundary",
    "expected_calibration_error",
    "fit_behaviour",
    "fit_calibration",
    "fit_classifiers",
    "fit_density_ratio",
    "fit_policy_ratio",
    "fit_transition_ratio",
    "log_loss",
    "marginal_normal",
    "source_of",
    "tilted",
    "uncalibrated",
]

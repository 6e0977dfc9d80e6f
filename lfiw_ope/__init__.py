"""Off-policy evaluation by likelihood-free importance weighting of learned dynamics.

Importing this package loads numpy, scipy and torch and does nothing else.
"""

from lfiw_ope.core.action_spec import ActionSpec
from lfiw_ope.core.errors import (
    ConfigError,
    DataError,
    DataWarning,
    DivergedError,
    InsufficientMemoryError,
    MissingDependencyError,
    OPEError,
    PolicyError,
    RefusedError,
    UntrustedFileError,
)
from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.serialization import __version__
from lfiw_ope.data.arrays import from_arrays
from lfiw_ope.data.collect import collect
from lfiw_ope.data.files import load_d4rl, load_data, load_npz, save_npz
from lfiw_ope.data.minari import load_minari, save_minari
from lfiw_ope.data.rules import Agreement, compare_rules
from lfiw_ope.data.sb3 import from_sb3_buffer, load_sb3_buffer
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.diagnostics.config import DiagnosisConfig
from lfiw_ope.diagnostics.diagnose import diagnose
from lfiw_ope.diagnostics.diagnosis import Diagnosis
from lfiw_ope.diagnostics.open_loop import OpenLoop
from lfiw_ope.diagnostics.thresholds import Thresholds
from lfiw_ope.dynamics.ensemble import DynamicsConfig, EnsembleDynamics
from lfiw_ope.dynamics.rollout import Rollout, simulate
from lfiw_ope.dynamics.training import fit_dynamics
from lfiw_ope.estimators.base import Estimator, Fitted
from lfiw_ope.estimators.behaviour import BehaviourMean
from lfiw_ope.estimators.corrected_model import CorrectedModel
from lfiw_ope.estimators.dice import DICE, OccupancyRatio, fit_dice
from lfiw_ope.estimators.dice_lagrangian import DICEConfig
from lfiw_ope.estimators.doubly_robust import DR, MAGIC, WDR
from lfiw_ope.estimators.doubly_robust_terms import (
    CorrectedModelConfig,
    DoublyRobustConfig,
    MAGICConfig,
)
from lfiw_ope.estimators.fitted_model import FittedModel
from lfiw_ope.estimators.fqe import FQE, FittedQ, fit_q
from lfiw_ope.estimators.fqe_networks import FQEConfig
from lfiw_ope.estimators.half_sampling import Refitted
from lfiw_ope.estimators.importance import IS, PDIS, WIS, WPDIS, ImportanceConfig
from lfiw_ope.estimators.lfiw import LFIW, LFIWConfig
from lfiw_ope.estimators.model_based import ModelBased, ModelBasedConfig
from lfiw_ope.estimators.model_bias import Anchor, AnchorGap, clones
from lfiw_ope.estimators.simulation_intervals import SimulatedIntervalConfig
from lfiw_ope.estimators.warnings import Fallback
from lfiw_ope.evaluation.compare import compare
from lfiw_ope.evaluation.evaluate import Evaluation, evaluate
from lfiw_ope.evaluation.summary import Row, Score
from lfiw_ope.evaluation.table import Comparison
from lfiw_ope.nn.training import FitConfig
from lfiw_ope.policies.files import load_actor, load_policy, save_actor
from lfiw_ope.policies.functions import TabularPolicy, UniformPolicy, from_function
from lfiw_ope.policies.mixtures import EpsilonGreedy, Mixture
from lfiw_ope.policies.mlp import MLPPolicy, ObservationNormaliser
from lfiw_ope.policies.modules import from_module, load_onnx, load_torchscript
from lfiw_ope.policies.sb3 import from_sb3, load_sb3
from lfiw_ope.policies.vec_normalize import load_vec_normalize
from lfiw_ope.ratios.behaviour_cloning import (
    BehaviourConfig,
    ClonedBehaviour,
    CloneReport,
    fit_behaviour,
)
from lfiw_ope.ratios.calibration import ReliabilityCurve, expected_calibration_error
from lfiw_ope.ratios.classifier import ClassifierConfig, ClassifierReport
from lfiw_ope.ratios.density_ratio import DensityRatio, fit_density_ratio
from lfiw_ope.ratios.induced import Expectation, InducedDynamics, InducedModel
from lfiw_ope.ratios.policy_ratio import PolicyRatio, fit_policy_ratio
from lfiw_ope.ratios.transition_ratio import RatioConfig, TransitionRatio, fit_transition_ratio
from lfiw_ope.stats.estimate import Estimate
from lfiw_ope.stats.intervals import Interval, IntervalConfig, MemberIntervalConfig
from lfiw_ope.stats.return_distribution import ReturnDistribution
from lfiw_ope.stats.weighting import Weighting

__all__ = [
    "DICE",
    "DR",
    "FQE",
    "IS",
    "LFIW",
    "MAGIC",
    "PDIS",
    "WDR",
    "WIS",
    "WPDIS",
    "ActionSpec",
    "Agreement",
    "Anchor",
    "AnchorGap",
    "BehaviourConfig",
    "BehaviourMean",
    "ClassifierConfig",
    "ClassifierReport",
    "CloneReport",
    "ClonedBehaviour",
    "Comparison",
    "ConfigError",
    "CorrectedModel",
    "CorrectedModelConfig",
    "DICEConfig",
    "DataError",
    "DataWarning",
    "DensityRatio",
    "Diagnosis",
    "DiagnosisConfig",
    "DivergedError",
    "DoublyRobustConfig",
    "DynamicsConfig",
    "EnsembleDynamics",
    "EpsilonGreedy",
    "Estimand",
    "Estimate",
    "Estimator",
    "Evaluation",
    "Expectation",
    "FQEConfig",
    "Fallback",
    "FitConfig",
    "Fitted",
    "FittedModel",
    "FittedQ",
    "ImportanceConfig",
    "InducedDynamics",
    "InducedModel",
    "InsufficientMemoryError",
    "Interval",
    "IntervalConfig",
    "LFIWConfig",
    "MAGICConfig",
    "MLPPolicy",
    "MemberIntervalConfig",
    "MissingDependencyError",
    "Mixture",
    "ModelBased",
    "ModelBasedConfig",
    "OPEError",
    "ObservationNormaliser",
    "OccupancyRatio",
    "OpenLoop",
    "PolicyError",
    "PolicyRatio",
    "RatioConfig",
    "Refitted",
    "RefusedError",
    "ReliabilityCurve",
    "ReturnDistribution",
    "Rollout",
    "Row",
    "Score",
    "SimulatedIntervalConfig",
    "TabularPolicy",
    "Thresholds",
    "Trajectories",
    "TransitionRatio",
    "UniformPolicy",
    "UntrustedFileError",
    "Weighting",
    "__version__",
    "clones",
    "collect",
    "compare",
    "compare_rules",
    "diagnose",
    "evaluate",
    "expected_calibration_error",
    "fit_behaviour",
    "fit_density_ratio",
    "fit_dice",
    "fit_dynamics",
    "fit_policy_ratio",
    "fit_q",
    "fit_transition_ratio",
    "from_arrays",
    "from_function",
    "from_module",
    "from_sb3",
    "from_sb3_buffer",
    "load_actor",
    "load_d4rl",
    "load_data",
    "load_minari",
    "load_npz",
    "load_onnx",
    "load_policy",
    "load_sb3",
    "load_sb3_buffer",
    "load_torchscript",
    "load_vec_normalize",
    "save_actor",
    "save_minari",
    "save_npz",
    "simulate",
]

"""Off-policy evaluation by likelihood-free importance weighting of learned dynamics.

Importing this package loads numpy, scipy and torch and does nothing else.
"""

from lfiw_ope.agreement import Agreement, compare_rules
from lfiw_ope.anchors import Anchor, AnchorGap, clones
from lfiw_ope.answering import Estimator, Fitted
from lfiw_ope.classifier import ClassifierConfig, ClassifierReport
from lfiw_ope.comparison.compare import compare
from lfiw_ope.comparison.result import Comparison
from lfiw_ope.comparison.rows import Row
from lfiw_ope.comparison.summary import Score
from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.data.arrays import from_arrays
from lfiw_ope.data.collect import collect
from lfiw_ope.data.d4rl import load_d4rl
from lfiw_ope.data.load import load_data
from lfiw_ope.data.minari import load_minari
from lfiw_ope.data.minari_saving import save_minari
from lfiw_ope.data.npz import load_npz, save_npz
from lfiw_ope.data.sb3_buffers import from_sb3_buffer, load_sb3_buffer
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.density_ratio import DensityRatio
from lfiw_ope.density_ratio_fit import fit_density_ratio
from lfiw_ope.diagnosis.config import DiagnosisConfig
from lfiw_ope.diagnosis.diagnose import diagnose
from lfiw_ope.diagnosis.open_loop import OpenLoop
from lfiw_ope.diagnosis.record import Diagnosis
from lfiw_ope.diagnostics import Fallback
from lfiw_ope.doubly_robust.config import CorrectedModelConfig, DoublyRobustConfig, MAGICConfig
from lfiw_ope.dynamics import DynamicsConfig, EnsembleDynamics, fit_dynamics
from lfiw_ope.errors import (
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
from lfiw_ope.estimand import Estimand
from lfiw_ope.estimators.baselines import BehaviourMean
from lfiw_ope.estimators.corrected_model import CorrectedModel
from lfiw_ope.estimators.dice import DICE
from lfiw_ope.estimators.doubly_robust import DR, MAGIC, WDR
from lfiw_ope.estimators.fqe import FQE
from lfiw_ope.estimators.importance import IS, PDIS, WIS, WPDIS, ImportanceConfig
from lfiw_ope.estimators.lfiw import LFIW, LFIWConfig
from lfiw_ope.estimators.model_based import ModelBased, ModelBasedConfig
from lfiw_ope.estimators.refitted import Refitted
from lfiw_ope.evaluation import Evaluation, evaluate
from lfiw_ope.expectation import Expectation
from lfiw_ope.fitted import FittedModel
from lfiw_ope.fitted_q.config import FQEConfig
from lfiw_ope.fitted_q.fit import fit_q
from lfiw_ope.fitted_q.value import FittedQ
from lfiw_ope.induced import InducedDynamics, InducedModel
from lfiw_ope.intervals.config import IntervalConfig
from lfiw_ope.intervals.members import MemberIntervalConfig
from lfiw_ope.intervals.record import Interval
from lfiw_ope.intervals.simulated import SimulatedIntervalConfig
from lfiw_ope.nn.fit_config import FitConfig
from lfiw_ope.occupancy.config import DICEConfig
from lfiw_ope.occupancy.fit import fit_dice
from lfiw_ope.occupancy.ratio import OccupancyRatio
from lfiw_ope.policies.actor_file import load_actor, save_actor
from lfiw_ope.policies.function import from_function
from lfiw_ope.policies.load import load_policy
from lfiw_ope.policies.mixture import EpsilonGreedy, Mixture
from lfiw_ope.policies.mlp import MLPPolicy
from lfiw_ope.policies.module import from_module, load_torchscript
from lfiw_ope.policies.normaliser import ObservationNormaliser
from lfiw_ope.policies.onnx import load_onnx
from lfiw_ope.policies.sb3 import from_sb3, load_sb3
from lfiw_ope.policies.tabular import TabularPolicy
from lfiw_ope.policies.uniform import UniformPolicy
from lfiw_ope.policies.vec_normalize import load_vec_normalize
from lfiw_ope.policy_ratio.clone import ClonedBehaviour, fit_behaviour
from lfiw_ope.policy_ratio.config import BehaviourConfig, CloneReport
from lfiw_ope.policy_ratio.ratio import PolicyRatio, fit_policy_ratio
from lfiw_ope.ratio import RatioConfig, TransitionRatio
from lfiw_ope.ratio_fit import fit_transition_ratio
from lfiw_ope.refusal import Thresholds
from lfiw_ope.reliability import ReliabilityCurve, expected_calibration_error
from lfiw_ope.resampling import Resampling
from lfiw_ope.results import Estimate
from lfiw_ope.return_distribution import ReturnDistribution
from lfiw_ope.rollout import Rollout, simulate
from lfiw_ope.version import __version__
from lfiw_ope.weighting import Weighting

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
    "Resampling",
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

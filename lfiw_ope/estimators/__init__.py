"""Estimators of a policy's value."""

from lfiw_ope.estimators.base import Estimator, Fitted, SharingEstimator, share_fits, spaces_of
from lfiw_ope.estimators.behaviour import BehaviourMean, BehaviourReturn
from lfiw_ope.estimators.corrected_model import (
    CorrectedModel,
    LoggedSteps,
    corrected_value,
    corrections,
)
from lfiw_ope.estimators.cross_fitting import Fold, ModelValue, draw_folds, judge
from lfiw_ope.estimators.dice import DICE, OccupancyRatio, fit_dice
from lfiw_ope.estimators.dice_lagrangian import DICEConfig
from lfiw_ope.estimators.doubly_robust import DR, MAGIC, WDR
from lfiw_ope.estimators.doubly_robust_terms import (
    CorrectedModelConfig,
    DoublyRobustConfig,
    MAGICConfig,
    Terms,
    least_on_simplex,
    lengths_of,
    magic,
    resample_counts,
    weighted_doubly_robust,
)
from lfiw_ope.estimators.fitted_model import FittedModel
from lfiw_ope.estimators.fqe import FQE, FittedQ, fit_q
from lfiw_ope.estimators.fqe_networks import BellmanError, FQEConfig, ValueNetworks, ValueScale
from lfiw_ope.estimators.half_sampling import Refitted, model_of
from lfiw_ope.estimators.importance import IS, PDIS, WIS, WPDIS, FittedImportance, ImportanceConfig
from lfiw_ope.estimators.lfiw import LFIW, LFIWConfig
from lfiw_ope.estimators.model_based import ModelBased, ModelBasedConfig
from lfiw_ope.estimators.model_bias import (
    Anchor,
    AnchorGap,
    bias_bound,
    clones,
    measure,
    member_values,
    one_member,
)
from lfiw_ope.estimators.registry import (
    CATALOGUE,
    SIMULATING,
    Options,
    estimator_named,
    estimators_named,
)
from lfiw_ope.estimators.selection import Candidate, paired, select_noise
from lfiw_ope.estimators.simulation_intervals import (
    Noise,
    SimulatedIntervalConfig,
    bias_aware,
    clustered,
    combined,
    critical_value,
    spread_of,
)
from lfiw_ope.estimators.warnings import Fallback, mean_weight_warning

__all__ = [
    "CATALOGUE",
    "DICE",
    "DR",
    "FQE",
    "IS",
    "LFIW",
    "MAGIC",
    "PDIS",
    "SIMULATING",
    "WDR",
    "WIS",
    "WPDIS",
    "Anchor",
    "AnchorGap",
    "BehaviourMean",
    "BehaviourReturn",
    "BellmanError",
    "Candidate",
    "CorrectedModel",
    "CorrectedModelConfig",
    "DICEConfig",
    "DoublyRobustConfig",
    "Estimator",
    "FQEConfig",
    "Fallback",
    "Fitted",
    "FittedImportance",
    "FittedModel",
    "FittedQ",
    "Fold",
    "ImportanceConfig",
    "LFIWConfig",
    "LoggedSteps",
    "MAGICConfig",
    "ModelBased",
    "ModelBasedConfig",
    "ModelValue",
    "Noise",
    "OccupancyRatio",
    "Options",
    "Refitted",
    "SharingEstimator",
    "SimulatedIntervalConfig",
    "Terms",
    "ValueNetworks",
    "ValueScale",
    "bias_aware",
    "bias_bound",
    "clones",
    "clustered",
    "combined",
    "corrected_value",
    "corrections",
    "critical_value",
    "draw_folds",
    "estimator_named",
    "estimators_named",
    "fit_dice",
    "fit_q",
    "judge",
    "least_on_simplex",
    "lengths_of",
    "magic",
    "mean_weight_warning",
    "measure",
    "member_values",
    "model_of",
    "one_member",
    "paired",
    "resample_counts",
    "select_noise",
    "share_fits",
    "spaces_of",
    "spread_of",
    "weighted_doubly_robust",
]

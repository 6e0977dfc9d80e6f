"""Policies, and adapters to them."""

from lfiw_ope.policies.files import actor_digest, load_actor, load_policy, options_of, save_actor
from lfiw_ope.policies.functions import TabularPolicy, UniformPolicy, from_function
from lfiw_ope.policies.heads import (
    Bounds,
    CategoricalHead,
    ConditionalGaussianHead,
    ContinuousHead,
    DeterministicHead,
    GaussianHead,
    Output,
    SquashedGaussianHead,
    StateDependentHead,
)
from lfiw_ope.policies.likelihood import (
    LARGEST_GROUP,
    TargetPolicies,
    log_likelihood,
    require_likelihood,
)
from lfiw_ope.policies.mixtures import EpsilonGreedy, Mixture
from lfiw_ope.policies.mlp import MLPPolicy, ObservationNormaliser
from lfiw_ope.policies.modules import from_module, load_onnx, load_torchscript
from lfiw_ope.policies.sb3 import from_sb3, load_sb3
from lfiw_ope.policies.vec_normalize import load_vec_normalize

__all__ = [
    "LARGEST_GROUP",
    "Bounds",
    "CategoricalHead",
    "ConditionalGaussianHead",
    "ContinuousHead",
    "DeterministicHead",
    "EpsilonGreedy",
    "GaussianHead",
    "MLPPolicy",
    "Mixture",
    "ObservationNormaliser",
    "Output",
    "SquashedGaussianHead",
    "StateDependentHead",
    "TabularPolicy",
    "TargetPolicies",
    "UniformPolicy",
    "actor_digest",
    "from_function",
    "from_module",
    "from_sb3",
    "load_actor",
    "load_onnx",
    "load_policy",
    "load_sb3",
    "load_torchscript",
    "load_vec_normalize",
    "log_likelihood",
    "options_of",
    "require_likelihood",
    "save_actor",
]

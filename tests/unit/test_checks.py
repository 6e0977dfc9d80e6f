"""Settings that cannot be are refused where they are given, before anything is computed."""

import pytest
import torch

import lfiw_ope as ope


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (ope.RatioConfig, {"members": 0}),
        (ope.RatioConfig, {"activation": "swish"}),
        (ope.RatioConfig, {"hidden": 128}),
        (ope.RatioConfig, {"hidden": (0,)}),
        (ope.RatioConfig, {"features": "both"}),
        (ope.RatioConfig, {"average": "mean"}),
        (ope.ClassifierConfig, {"average": "mean"}),
        (ope.ClassifierConfig, {"calibration": "beta"}),
        (ope.DynamicsConfig, {"activation": "swish"}),
        (ope.DynamicsConfig, {"bound_margin": float("nan")}),
        (ope.FitConfig, {"updates": 50.5}),
        (ope.FitConfig, {"weight_decay": float("nan")}),
        (ope.FitConfig, {"learning_rate": float("inf")}),
        (ope.LFIWConfig, {"rollouts": 1}),
        (ope.LFIWConfig, {"draws": 0}),
        (ope.LFIWConfig, {"draws": 1, "weighting": ope.Weighting(conditional=True)}),
        (ope.LFIWConfig, {"ratio_share": 0.0}),
        (ope.ModelBasedConfig, {"rollouts": "many"}),
        (ope.Weighting, {"first": 1.5}),
    ],
)
def test_settings_out_of_range_are_refused(make, wrong):
    with pytest.raises(ope.ConfigError, match=r"(it must be|needs 2 or more)"):
        make(**wrong)


def test_settings_cannot_be_changed_or_mistyped():
    config = ope.LFIWConfig()
    with pytest.raises(AttributeError):
        config.draws = 3
    with pytest.raises(TypeError, match="rollout"):
        ope.LFIWConfig(rollout=3)


def test_a_policy_with_nan_weights_is_refused():
    head = ope.policies.heads.CategoricalHead()
    with pytest.raises(ope.PolicyError, match="not finite"):
        ope.MLPPolicy.from_layers(
            [torch.full((4, 2), torch.nan)], [torch.zeros(2)], head, activation="tanh"
        )

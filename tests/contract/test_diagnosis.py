"""Promises that a diagnosis keeps on every test-bed: discrete and continuous, fixed and ragged."""

import json

import numpy as np
import pytest
import torch
from testbeds import linear_gaussian, log_of, tabular

import lfiw_ope as ope

HORIZON = 5
ESTIMAND = ope.Estimand(HORIZON)
NETS = ope.FitConfig(updates=40, evaluate_every=20, batch_size=64, patience=None)
CONFIG = ope.DiagnosisConfig(transitions=600, hidden=(8,), fit=NETS, rollouts=20)
MODEL = ope.ModelBasedConfig(dynamics=ope.DynamicsConfig(members=2, hidden=(16,), fit=NETS))


@pytest.mark.parametrize("of", ["tabular", "linear-Gaussian"])
@pytest.mark.parametrize("cut", [None, 0.2])
def test_every_number_is_one_and_global_state_is_left_alone(of, cut):
    truth, _, policy = tabular(int(cut is not None)) if of == "tabular" else linear_gaussian()
    data = log_of(truth, policy, 100, HORIZON, seed=0, cut=cut)
    model = ope.ModelBased(ESTIMAND, MODEL).fit(data, seed=0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    found = ope.diagnose(
        data,
        [policy, policy],
        ESTIMAND,
        config=CONFIG,
        dynamics=model.dynamics,
        ratio=model.ratio,
        held_out=model.held_out,
        seed=0,
    )
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert found[0] == found[1]
    one = found[0]
    for name in ("action_accuracy", "action_auc", "actions_outside", "states_outside"):
        assert 0.0 <= getattr(one, name) <= 1.0, name
    assert one.disagreement > 0
    assert one.open_loop.compared <= HORIZON
    assert 1 <= one.ess <= one.episodes * (1 + 1e-9)
    assert one.episodes <= 100
    assert one.transitions <= 600
    assert json.loads(one.to_json()) == one.to_dict()
    assert ope.Diagnosis.from_json(one.to_json()) == one


@pytest.mark.gpu
def test_a_gpu_says_the_same():
    truth, _, policy = linear_gaussian()
    data = log_of(truth, policy, 200, HORIZON, seed=0)
    found = []
    for device in ("cpu", "cuda"):
        model = ope.ModelBased(ESTIMAND, MODEL, device=device).fit(data, seed=0)
        config = ope.DiagnosisConfig(**(vars(CONFIG) | {"device": device}))
        found.append(
            ope.diagnose(
                data,
                policy,
                ESTIMAND,
                config=config,
                dynamics=model.dynamics,
                ratio=model.ratio,
                held_out=model.held_out,
                seed=0,
            )
        )
    here, there = found
    # Other generators draw other noise: accuracies have a standard error of about 0.02.
    assert there.action_accuracy == pytest.approx(here.action_accuracy, abs=0.08)
    assert there.actions_outside == pytest.approx(here.actions_outside, abs=0.04)
    assert there.disagreement == pytest.approx(here.disagreement, abs=0.5)

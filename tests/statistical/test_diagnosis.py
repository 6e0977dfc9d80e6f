"""The behaviour passes, what is far from it is seen, and the farther the more."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lfiw_envs import LinearGaussianPolicy, TabularPolicy
from testbeds import linear_gaussian, log_of, tabular

import lfiw_ope as ope

HORIZON, EPISODES = 8, 250
ESTIMAND = ope.Estimand(HORIZON)
NETS = ope.FitConfig(updates=400, evaluate_every=50, batch_size=128, learning_rate=4e-3)
DYNAMICS = ope.DynamicsConfig(members=3, hidden=(32,), fit=NETS, noise="gaussian")
CONFIG = ope.DiagnosisConfig(
    hidden=(16,), fit=replace(NETS, updates=150, patience=None), rollouts=50
)
BEDS = ("tabular, ragged", "linear-Gaussian, fixed")


def bed_of(name):
    """(behaviour, a policy far from it, the log)."""
    of, ragged = name.split(", ")
    truth, _, policy = tabular(int(ragged == "ragged")) if of == "tabular" else linear_gaussian()
    data = log_of(truth, policy, EPISODES, HORIZON, seed=0, cut=0.2 if ragged == "ragged" else None)
    if isinstance(policy, TabularPolicy):
        return policy, TabularPolicy(np.eye(3)[policy.table.argmin(1)]), data
    return policy, LinearGaussianPolicy(policy.gain - 0.5, policy.bias + 2.0, policy.scale), data


@pytest.fixture(scope="module", params=BEDS)
def found(request):
    """Of the behaviour, of a policy half-way to the far one, and of that."""
    behaviour, far, data = bed_of(request.param)
    if isinstance(far, TabularPolicy):
        middle = TabularPolicy(0.5 * behaviour.table + 0.5 * far.table)
    else:
        mixed = (
            0.5 * a + 0.5 * b for a, b in ((behaviour.gain, far.gain), (behaviour.bias, far.bias))
        )
        middle = LinearGaussianPolicy(*mixed, far.scale)
    config = ope.ModelBasedConfig(dynamics=DYNAMICS, rollouts=100)
    model = ope.ModelBased(ESTIMAND, config).fit(data, seed=0)
    return ope.diagnose(
        data,
        [behaviour, middle, far],
        ESTIMAND,
        config=CONFIG,
        dynamics=model.dynamics,
        ratio=model.ratio,
        held_out=model.held_out,
        seed=0,
    )


def test_the_behaviour_passes(found):
    own = found[0]
    judged = own.transitions
    # Half the rows are looked at: a share of 1 % has a standard error of 0.1 / √(rows / 2), and as
    # the threshold is estimated from as many, √2 of that; rows of an episode go together, so twice.
    noise = 2 * 2**0.5 * 0.1 / (judged / 2) ** 0.5
    assert own.actions_outside < 0.01 + 3 * noise
    assert own.logged_actions_outside <= 0.01 + 2 / judged
    # Balanced accuracy over `judged` rows of either side, at 0.5 for any classifier.
    assert own.action_accuracy == pytest.approx(0.5, abs=3 * 0.5 / (2 * judged) ** 0.5)
    # By Mann and Whitney, of as many on either side.
    assert own.action_auc == pytest.approx(0.5, abs=3 / (6 * judged) ** 0.5)
    assert own.action_log_loss == pytest.approx(np.log(2), abs=0.02)
    # A fifth of the ragged log is cut short, and hands what it counts on to the others.
    whole = own.logged_transitions == EPISODES * HORIZON
    assert own.ess_share == pytest.approx(1.0) if whole else 0.8 < own.ess_share <= 1.0
    assert own.states_outside < 0.06
    assert 0.5 < own.disagreement < 1.6
    assert [w for w in own.warnings if "Replayed" not in w] == []
    assert (
        ope.Thresholds().reasons(
            ope.Estimate(
                estimator="WIS", estimand=ESTIMAND, value=0.0, seed=0, episodes=9, ess=99.0
            ),
            own,
        )
        == ()
    )


def test_what_is_far_is_seen_and_the_farther_the_more(found):
    for name in ("action_accuracy", "action_auc", "actions_outside"):
        own, middle, far = (getattr(one, name) for one in found)
        assert own < middle < far, name
    own, middle, far = (one.action_log_loss for one in found)
    assert own > middle > far
    own, middle, far = (one.ess for one in found)
    assert own > middle
    # Where one episode has all the weight, it cannot have more.
    assert middle > far or max(middle, far) < 1.1
    assert far < 10
    assert any("importance sampling means little" in text for text in found[2].warnings)


def test_a_model_that_learned_beats_a_constant_and_one_that_did_not_is_told_of():
    behaviour, _, data = bed_of("linear-Gaussian, fixed")
    loops = []
    for updates in (1, 400):
        nets = replace(NETS, updates=updates, evaluate_every=min(updates, 50), learning_rate=4e-3)
        config = ope.ModelBasedConfig(
            dynamics=replace(DYNAMICS, fit=nets, bound_margin=10.0), rollouts=50
        )
        model = ope.ModelBased(ESTIMAND, config).fit(data, seed=0)
        looked = ope.diagnose(
            data,
            behaviour,
            ESTIMAND,
            config=CONFIG,
            dynamics=model.dynamics,
            ratio=model.ratio,
            held_out=model.held_out,
            seed=0,
        )
        loops.append(looked.open_loop)
    untrained, trained = loops
    assert trained.lasting == trained.lasting_states == trained.compared == HORIZON
    assert trained.reward_error[-1] < 0.8 * trained.constant_reward_error[-1]
    assert trained.reward_error[-1] < untrained.reward_error[-1]
    assert trained.state_error[0] < untrained.state_error[0]
    assert all(
        a <= b for a, b in zip(trained.state_error, trained.sampled_state_error, strict=True)
    )
    # The constant and the unchanged state are the log's: no model changes them.
    assert trained.constant_state_error == untrained.constant_state_error
    assert trained.unchanged_state_error == untrained.unchanged_state_error


def test_rollouts_that_leave_the_log_are_seen():
    """Drift that the log never goes along: states far out, where members do not agree."""
    truth, _, policy = linear_gaussian()
    still = LinearGaussianPolicy(0 * policy.gain, 0 * policy.bias, 0.1 * np.ones(2))
    data = log_of(truth, still, EPISODES, HORIZON, seed=0)
    away = LinearGaussianPolicy(0 * policy.gain, 0 * policy.bias + 6.0, 0.1 * np.ones(2))
    # Without layer norm, whose outputs level off beyond the data, so that little drifts on there.
    dynamics = replace(DYNAMICS, activation="silu", layer_norm=False)
    config = ope.ModelBasedConfig(dynamics=dynamics, rollouts=50)
    model = ope.ModelBased(ESTIMAND, config).fit(data, seed=0)
    here, there = ope.diagnose(
        data,
        [still, away],
        ESTIMAND,
        config=CONFIG,
        dynamics=model.dynamics,
        ratio=model.ratio,
        held_out=model.held_out,
        seed=0,
    )
    assert here.states_outside < 0.06
    assert there.states_outside > 0.3
    assert there.states_outside_by_step[0] < 0.1  # it starts where the log does
    assert there.states_outside_by_step[-1] > 0.6
    assert here.disagreement < 1.6
    assert there.disagreement > 5.0
    assert {"actions", "members"} <= {w for text in there.warnings for w in text.split()}
    assert not torch.is_inference_mode_enabled()

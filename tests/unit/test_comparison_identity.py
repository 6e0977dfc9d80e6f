"""What tells one run from another, so that no cell of another is taken for its own."""

import functools

import comparing
import numpy as np
import pytest
import torch
from lfiw_envs import TabularPolicy

import lfiw_ope as ope
from lfiw_ope.evaluation import data_digest, describe, policy_actions

SCALE = 1.0


def helper(state):
    return state + 1


def reward(state, action, next_state, scale=1.0):  # noqa: ARG001
    return scale * SCALE * helper(state)[..., 0]


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale


def with_default(scale):
    return lambda state, scale=scale: scale * state


def classes(scale):
    """Two classes of one name whose methods differ."""
    if scale == 1.0:

        class Rule:
            def __call__(self, state):
                return state
    else:

        class Rule:
            def __call__(self, state):
                return 2 * state

    return Rule()


@pytest.mark.parametrize(
    "made",
    [
        lambda scale: functools.partial(reward, scale=scale),
        with_default,
        Slotted,
        classes,
        lambda scale: torch.sin if scale == 1.0 else torch.cos,
        lambda scale: torch.device("cpu" if scale == 1.0 else "cuda"),
        lambda scale: torch.float32 if scale == 1.0 else torch.float64,
        lambda scale: b"1" if scale == 1.0 else b"2",
    ],
)
def test_settings_that_differ_anywhere_are_told_apart(made):
    assert describe(made(1.0)) == describe(made(1.0))
    assert describe(made(1.0)) != describe(made(2.0))


def test_what_a_function_names_in_its_module_is_part_of_it(monkeypatch):
    before = describe(reward)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert describe(reward) != before
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    assert describe(reward) == before
    monkeypatch.setitem(globals(), "helper", with_default(1.0))
    assert describe(reward) != before


def test_the_order_within_a_set_tells_nothing():
    one, other = (lambda x: x in {0, 8}), (lambda x: x in {8, 0})
    assert describe(one)["code"] == describe(other)["code"]


def test_policies_that_draw_the_same_actions_are_told_by_their_probabilities():
    data, _, _ = comparing.inputs()
    one = np.full((6, 3), 0.02) + np.eye(3)[np.arange(6) % 3] * 0.94
    other = np.full((6, 3), 0.01) + np.eye(3)[np.arange(6) % 3] * 0.97
    one, other = (policy_actions(TabularPolicy(table), data) for table in (one, other))
    drawn = len(one) * 3 // 4  # one-hot over 3 actions, and then a probability
    assert one[:drawn] == other[:drawn]
    assert not np.allclose(one, other, rtol=0, atol=1e-3)


def test_what_an_action_is_belongs_to_the_data():
    def log(high):
        return ope.Trajectories(
            states=np.zeros((3, 1)),
            actions=np.zeros((2, 1)),
            rewards=np.zeros(2),
            lengths=[2],
            terminated=[False],
            truncated=[True],
            action_spec=ope.ActionSpec.continuous([-1.0], [high]),
        )

    assert data_digest(log(1.0)) == data_digest(log(1.0)) != data_digest(log(2.0))

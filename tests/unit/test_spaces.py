"""Flattening equals Gymnasium's own, row by row."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from lfiw_ope import DataError
from lfiw_ope.data import (
    action_spec,
    decode_actions,
    encode_actions,
    flatten_states,
    spaces_of,
    state_size,
)

BOX = spaces.Box(-1.0, 1.0, (2, 3), np.float64)
NESTED = spaces.Dict(
    {
        "z": spaces.Discrete(3, start=5),
        "image": spaces.Box(0, 255, (2, 2, 3), np.uint8),
        "a": spaces.Tuple((BOX, spaces.MultiDiscrete([2, 4], start=[1, -3]))),
        "on": spaces.MultiBinary((2, 2)),
        "scalar": spaces.Box(-np.inf, np.inf, (), np.float32),
    }
)


@pytest.mark.parametrize(
    "space",
    [
        BOX,
        NESTED,
        spaces.Box(-np.inf, np.inf, (4,), np.float32),
        spaces.Box(-5, 5, (3,), np.int64),
        spaces.Discrete(4, start=-2),
        spaces.MultiDiscrete([[2, 3], [4, 1]]),
        spaces.MultiBinary(5),
        spaces.Tuple((spaces.Discrete(2), spaces.Dict({"b": BOX, "a": spaces.Discrete(3)}))),
    ],
    ids=str,
)
def test_states_are_what_gymnasium_flattens(space):
    space.seed(0)
    samples = [space.sample() for _ in range(50)]
    utils = gym.vector.utils
    batch = utils.concatenate(space, samples, utils.create_empty_array(space, n=50))
    states = flatten_states(space, batch)
    expected = np.stack([spaces.flatten(space, sample) for sample in samples])
    assert states.dtype == np.float32
    np.testing.assert_array_equal(states, expected.astype(np.float32))
    assert states.shape == (50, state_size(space)) == (50, spaces.flatdim(space))


@pytest.mark.parametrize(
    ("space", "rows", "message"),
    [
        (spaces.Discrete(3), [0, 3], "A discrete value is 3; the space has the whole numbers 0 to"),
        (spaces.Discrete(3, start=1), [0], "whole numbers 1 to 3"),
        (spaces.Discrete(3), [0.5], "A discrete value is 0.5"),
        (spaces.MultiDiscrete([2, 3]), [[1, 1, 1]], "has 3 entries; the space has 2"),
        (spaces.Box(0, 1, (3,)), np.zeros((2, 4)), r"have shape \(4,\); the space"),
        (spaces.Dict({"a": BOX}), {"b": np.zeros((1, 2, 3))}, "lack 'a' of the space"),
    ],
)
def test_rows_that_are_none_of_the_space_are_refused(space, rows, message):
    with pytest.raises(DataError, match=message):
        flatten_states(space, rows if isinstance(rows, dict) else np.asarray(rows))


@pytest.mark.parametrize(
    "space", [spaces.Text(5), spaces.Sequence(BOX), spaces.Tuple((BOX, spaces.Text(5)))]
)
def test_spaces_without_a_fixed_size_are_refused(space):
    with pytest.raises(DataError, match="Dict or Tuple of them are supported"):
        state_size(space)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.MultiDiscrete([3, 2]), "number its 6 combinations and log that number as Discrete"),
        (spaces.MultiBinary(3), "number its 8 combinations"),
        (spaces.MultiBinary(5000), r"MultiBinary\(5000\); Box and Discrete are supported\.$"),
        (spaces.Dict({"a": BOX}), r"Box and Discrete are supported\."),
    ],
)
def test_action_spaces_that_are_neither_box_nor_discrete_are_refused(space, message):
    with pytest.raises(DataError, match=message):
        action_spec(space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.float32([-1, 0.1]), np.float32([2, 0.3])),
        spaces.Box(-np.inf, np.inf, (2, 2)),
        spaces.Box(np.float64([-0.1]), np.float64([np.inf]), dtype=np.float64),
        spaces.Discrete(4, start=3),
    ],
    ids=str,
)
def test_actions_come_back_as_the_environment_takes_them(space):
    space.seed(1)
    actions = np.stack([space.sample() for _ in range(30)])
    encoded = encode_actions(space, actions)
    assert encoded.shape == (30, action_spec(space).size)
    decoded = decode_actions(space, encoded)
    assert decoded.dtype == space.dtype
    np.testing.assert_allclose(decoded, actions, rtol=1e-6)
    assert all(space.contains(action) for action in decoded)


def test_spaces_of_an_environment_are_taken_with_its_keywords():
    observation, action, limit = spaces_of("FrozenLake-v1", {"map_name": "8x8"})
    assert (observation.n, action.n, limit) == (64, 4, 100)

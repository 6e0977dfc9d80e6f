import warnings

import numpy as np
import pytest
import torch

from lfiw_ope import ActionSpec, DataError, Estimand, ModelBased, Trajectories
from lfiw_ope.data import DeviceLog, thin


def ragged(**changes):
    """Three episodes of 2, 1 and 3 steps; states are numbered, so rows can be told apart."""
    fields = {
        "states": np.arange(9.0)[:, None] * [1, 10],
        "actions": np.arange(6.0)[:, None],
        "rewards": np.array([1, 2, 3, 4, 5, 6.0]),
        "lengths": np.array([2, 1, 3]),
        "terminated": np.array([True, False, False]),
        "truncated": np.array([False, True, True]),
        "action_spec": ActionSpec.continuous([-np.inf], [np.inf]),
        "log_prob": -np.arange(6.0),
    }
    return Trajectories(**(fields | changes))


def test_transitions_pair_each_state_with_its_successor():
    rows = ragged().transitions()
    assert rows.state[:, 0].tolist() == [0, 1, 3, 5, 6, 7]
    assert rows.next_state[:, 0].tolist() == [1, 2, 4, 6, 7, 8]
    assert rows.episode.tolist() == [0, 0, 1, 2, 2, 2]
    # Episode 0 terminated; the last transition of the truncated ones is kept and goes on.
    assert rows.terminated.tolist() == [False, True, False, False, False, False]


def test_returns_by_horizon_and_discount():
    data = ragged()
    assert data.returns().tolist() == [3, 3, 15]
    assert data.returns(discount=0.5).tolist() == [2, 3, 4 + 2.5 + 1.5]
    assert data.returns(horizon=2, discount=0.5).tolist() == [2, 3, 6.5]
    assert data.returns(discount=0.0).tolist() == [1, 3, 4]


def test_select_takes_whole_episodes_in_the_order_asked():
    chosen = ragged().select([2, 0])
    assert chosen.states[:, 0].tolist() == [5, 6, 7, 8, 0, 1, 2]
    assert chosen.rewards.tolist() == [4, 5, 6, 1, 2]
    assert chosen.log_prob.tolist() == [-3, -4, -5, 0, -1]
    assert chosen.terminated.tolist() == [False, True]
    assert chosen.initial_states[:, 0].tolist() == [5, 0]


def test_repr_says_what_is_in_it():
    assert "3 episodes, 6 transitions, lengths 1 to 3" in repr(ragged())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"states": np.zeros((6, 2))}, r"states has shape \(6, 2\).*\(9, 2\)"),
        ({"log_prob": np.zeros(5)}, r"log_prob has shape \(5,\)"),
        ({"lengths": np.array([], int)}, "no episode"),
        ({"lengths": np.array([2.5, 1, 2.5])}, "no whole numbers"),
        ({"terminated": np.array([7, 0, 0])}, "terminated holds other values than False and True"),
        ({"truncated": ["False", "True", "True"]}, "truncated holds other values"),
        ({"lengths": np.array([3, 0, 3])}, "Episode 1 has no transition"),
        ({"rewards": np.array([1, 2, np.nan, 4, np.inf, 6])}, "2 entries.*first in row 2"),
        ({"action_spec": ActionSpec.discrete(1)}, "one-hot"),
    ],
)
def test_data_that_cannot_be_raise(changes, message):
    with pytest.raises(DataError, match=message):
        ragged(**changes)


def test_select_takes_a_mask():
    data = ragged()
    assert data.select(data.truncated).rewards.tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("episodes", [[], [3], [-1], [0.5], np.array([True, False])])
def test_select_refuses_what_is_not_there(episodes):
    with pytest.raises(DataError, match=r"[Ee]pisode"):
        ragged().select(episodes)


def test_a_selection_shares_the_storage():
    data = ragged()
    later = data.select([1, 2])
    assert np.shares_memory(later.states, data.states)
    assert np.shares_memory(later.actions, data.actions)
    assert later.states[:, 0].tolist() == [3, 4, 5, 6, 7, 8]
    # A view of episodes that are not consecutive keeps their indices alone, and gathers on demand.
    apart = data.select([2, 0])
    assert apart._log is data._log
    assert apart.select([1]).states[:, 0].tolist() == [0, 1, 2]
    assert apart.select([1]).log_prob.tolist() == [0, -1]
    assert apart.returns().tolist() == [15, 3]


def test_selecting_the_first_by_return_and_by_seed():
    data = ragged()
    assert data.first(2).returns().tolist() == [3, 3]
    assert data.first(9).num_episodes == 3
    assert data.by_return(4).returns().tolist() == [15]
    assert data.by_return(highest=3).lengths.tolist() == [2, 1]
    drawn = [data.sample(2, seed=seed).lengths.tolist() for seed in range(12)]
    assert drawn[0] == data.sample(2, seed=0).lengths.tolist()
    assert {tuple(lengths) for lengths in drawn} == {(2, 1), (2, 3), (1, 3)}
    with pytest.raises(DataError, match=r"in \[16, inf\]; the data's run from 3 to 15"):
        data.by_return(16)
    with pytest.raises(DataError, match="4 of 3 episodes"):
        data.sample(4, seed=0)


def test_float32_arrays_are_kept_and_not_copied():
    states = np.zeros((9, 2), np.float32)
    assert np.shares_memory(ragged(states=states).states, states)


def test_thinned_rows_see_every_step_of_an_episode():
    """Rows of episodes of 100 steps, a hundredth of them: evenly spaced ones would see one step."""
    kept = thin(torch.arange(100_000), 1000, torch.Generator().manual_seed(0))
    assert len(kept.unique()) == 1000
    assert (kept.diff() > 0).all()
    # Each of the 100 steps is missed with probability 0.99^1000 = 4e-5.
    assert len((kept % 100).unique()) == 100
    assert torch.equal(thin(torch.arange(10), 10, torch.Generator()), torch.arange(10))


def test_a_repeated_episode_is_told():
    assert not ragged().select([2, 0]).repeats
    assert ragged().select([2, 0, 2]).repeats
    with pytest.raises(DataError, match="more than once"):
        ModelBased(Estimand(3)).fit(ragged().select([0, 1, 2, 0]), seed=0)


def test_an_array_that_may_not_be_written_to_is_taken():
    states = np.zeros((9, 2), np.float32)
    states.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DeviceLog.of(ragged(states=states), "cpu").states.shape == (9, 2)

"""Logged episodes side by side: what is taken, and what each episode counts at each step."""

import numpy as np
import pytest
from testbeds import standings

import lfiw_ope as ope
from lfiw_ope.data import PaddedEpisodes, known_steps


def log(lengths, terminated):
    """Episodes in which step t of episode i earns 10 i + t."""
    rows = sum(lengths)
    ended = np.array(terminated, bool)
    return ope.Trajectories(
        states=np.zeros((rows + len(lengths), 1)),
        actions=np.zeros((rows, 1)),
        rewards=np.concatenate([10.0 * i + np.arange(n) for i, n in enumerate(lengths)]),
        lengths=lengths,
        terminated=ended,
        truncated=~ended,
        action_spec=ope.ActionSpec.continuous([-1.0], [1.0]),
    )


@pytest.mark.parametrize(
    ("lengths", "terminated", "expected"),
    [
        # Nothing is cut: all count alike, terminated or not.
        ([3, 1, 3], [0, 1, 0], [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        # The second is cut after a step: the other two go on for it, half each.
        ([3, 1, 3], [0, 0, 0], [[1, 1.5, 1.5], [1, 0, 0], [1, 1.5, 1.5]]),
        # The first had terminated: it speaks for itself, and the last for the one that was cut.
        ([1, 1, 3], [1, 0, 0], [[1, 1, 1], [1, 0, 0], [1, 2, 2]]),
        # Later it would have been cut as likely: what terminates at step 2 counts twice for good.
        ([2, 1, 2], [1, 0, 1], [[1, 1.5, 1.5], [1, 0, 0], [1, 1.5, 1.5]]),
        # Two cuts, one after the other: 4/3, and of the three that are left one more.
        (
            [3, 1, 2, 3],
            [0, 0, 0, 0],
            [[1, 4 / 3, 2], [1, 0, 0], [1, 4 / 3, 0], [1, 4 / 3, 2]],
        ),
        # Terminated at the last step, or longer than the horizon: nothing was cut.
        ([3, 5], [1, 0], [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_standings_by_hand(lengths, terminated, expected):
    padded = PaddedEpisodes.of(log(lengths, terminated), 3)
    np.testing.assert_allclose(padded.standing, expected, atol=1e-12)
    np.testing.assert_array_equal(padded.observed, np.array(expected) > 0)
    assert padded.cut_short == sum(row[-1] == 0 for row in expected)


@pytest.mark.parametrize("seed", range(5))
def test_standings_sum_to_the_number_of_episodes_and_are_efrons(seed):
    rng = np.random.default_rng(seed)
    lengths, ended = rng.integers(1, 12, 40), rng.random(40) < 0.5
    lengths[0], ended[lengths == lengths.max()] = 9, True
    data = log(lengths.tolist(), ended)
    for horizon in (1, 6, 20):  # at 20 nobody goes on any more
        padded = PaddedEpisodes.of(data, horizon)
        np.testing.assert_allclose(padded.standing.sum(0), 40, rtol=1e-12)
        np.testing.assert_allclose(padded.standing, standings(lengths, ended, horizon), rtol=1e-12)
        stands, taken = padded.standing.numpy(), padded.taken.numpy()
        for t in range(horizon):  # those that go on count the same, and that is `living`
            assert set(stands[taken[:, t], t]) <= {float(padded.living[t])}
        assert (padded.living > 0).tolist() == taken.any(0).tolist()


def test_a_horizon_below_every_cut_leaves_all_alike():
    padded = PaddedEpisodes.of(log([4, 2, 5], [0, 0, 0]), 2)
    assert (padded.standing == 1).all()
    assert padded.cut_short == 0
    assert padded.rewards.tolist() == [[0, 1], [10, 11], [20, 21]]
    assert padded.row.tolist() == [[0, 1], [4, 5], [6, 7]]


def test_after_the_end_there_is_no_reward():
    padded = PaddedEpisodes.of(log([1, 3], [1, 0]), 3)
    assert padded.rewards.tolist() == [[0, 0, 0], [10, 11, 12]]
    assert padded.taken.tolist() == [[True, False, False], [True, True, True]]
    assert padded.discounted(0.5).tolist() == [[0, 0, 0], [10, 5.5, 3]]
    assert padded.spread(padded.rewards[padded.taken] + 1, fill=-1).tolist() == [
        [1, -1, -1],
        [11, 12, 13],
    ]


@pytest.mark.parametrize("other", [0, 1])
def test_a_log_whose_longest_episodes_were_cut_does_not_say_what_follows(other):
    data = log([2, 1, 2], [0, 1, other])
    assert known_steps(data, 5) == 2
    with pytest.raises(ope.DataError, match="cut short after step 2, and the horizon is 3"):
        PaddedEpisodes.of(data, 3)
    assert PaddedEpisodes.of(data, 2).standing.tolist() == [[1, 1]] * 3
    # All of the longest terminated: nothing follows, however long the horizon.
    ended = log([2, 1, 2], [1, 0, 1])
    assert known_steps(ended, 5) == 5
    assert PaddedEpisodes.of(ended, 5).standing[:, -1].tolist() == [1.5, 0, 1.5]

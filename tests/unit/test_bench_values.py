"""True values of a ladder, on an environment whose returns are known."""

import json
from dataclasses import replace
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from lfiw_envs import Ladder, Question
from lfiw_envs.ladder import LadderValue

import lfiw_ope as ope
from lfiw_ope.benchmark import measure_ladder, measure_values, play_returns
from lfiw_ope.policies import GaussianHead

MEAN, STD = 0.5, 0.1


class Paid(gymnasium.Env):
    """Pays the action, times the step's number where `rising`; ends after `length` steps, or after
    as many as the seed says."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    played: ClassVar[list[list[float]]] = []
    """Rewards of every episode that was begun, by whoever plays it."""

    def __init__(self, length=None, rising=False, factor=1.0):
        self.length, self.rising, self.factor = length, rising, factor

    def reset(self, *, seed=None, options=None):  # noqa: ARG002
        super().reset(seed=seed)
        self.left = self.length or int(self.np_random.integers(1, 40))
        self.rewards = []
        self.played.append(self.rewards)
        return self._seen(), {}

    def step(self, action):
        number = len(self.rewards) + 1
        self.rewards.append(self.factor * float(action[0]) * (number if self.rising else 1))
        self.left -= 1
        return self._seen(), self.rewards[-1], self.left == 0, False, {}

    def _seen(self):
        return np.array([self.left, 1.0], np.float32)


gymnasium.register("lfiw-test/Paid-v0", entry_point=Paid)


@pytest.fixture
def ladder(tmp_path):
    """Policies that draw from N(1/2, 1/100) and N(-1/2, 1/100), whatever they see."""
    for name, mean in (("good", MEAN), ("bad", -MEAN)):
        actor = ope.MLPPolicy.from_layers(
            [torch.zeros(2, 1)],
            [torch.tensor([mean])],
            GaussianHead(torch.full((1, 1), np.log(STD)), -torch.ones(1, 1), torch.ones(1, 1)),
            activation="tanh",
        )
        ope.save_actor(actor, tmp_path / f"{name}.safetensors")
    Paid.played.clear()
    return Ladder(
        name="paid",
        env_id="lfiw-test/Paid-v0",
        targets=("good", "bad"),
        recipes={},
        folder=tmp_path,
        episode=50,
        questions={"T3": Question(3, 1.0), "g0.9": Question(50, 0.9)},
    )


def test_returns_are_exact(ladder):
    """Rewards k/2 at step k for 7 steps: cut after 3, and discounted to the episode's end."""
    known = replace(ladder, env_kwargs={"length": 7, "rising": True})
    values = measure_values(known, "good", play="deterministic", episodes=5, seed=0, num_envs=2)
    assert values["T3"] == LadderValue(3.0, 0.0, 0.0, dict.fromkeys(values["T3"].quantiles, 3.0), 5)
    wanted = sum(0.9**t * (t + 1) / 2 for t in range(7))
    assert values["g0.9"].mean == pytest.approx(wanted, rel=1e-12)


def test_the_ladder_truncates(ladder):
    ten = {"g0.9": Question(10, 0.9)}
    endless = replace(ladder, episode=10, questions=ten, env_kwargs={"length": 10**9})
    env = endless.make()
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(10)] == [False] * 9 + [True]
    values = measure_values(endless, "good", play="deterministic", episodes=4, seed=0)
    wanted = sum(0.9**t / 2 for t in range(10))
    assert values["g0.9"].mean == pytest.approx(wanted, rel=1e-12)


def test_nothing_is_played_that_no_question_asks(ladder):
    short = replace(ladder, questions={"T3": Question(3, 1.0)}, env_kwargs={"length": 20})
    measure_values(short, "good", episodes=6, seed=0, num_envs=2)
    assert [len(rewards) for rewards in Paid.played] == [3] * 6


@pytest.mark.parametrize("num_envs", [1, 7, 100])
def test_every_episode_that_is_begun_counts_once(ladder, num_envs):
    """Lengths differ by the seed: keeping those that end first would favour the short ones."""
    actor = ope.load_actor(ladder.policy_path("good"))
    returns = play_returns(ladder, actor, episodes=30, seed=3, num_envs=num_envs)
    wanted = [sum(0.9**t * r for t, r in enumerate(rewards)) for rewards in Paid.played]
    assert len({len(rewards) for rewards in Paid.played}) > 10
    # Copies begin episodes in the order of their numbers, whoever ends first.
    np.testing.assert_allclose(returns["g0.9"], wanted, rtol=1e-12)
    np.testing.assert_allclose(returns["T3"], [sum(rewards[:3]) for rewards in Paid.played])


def test_stochastic_play_draws(ladder):
    """Three draws of N(1/2, 1/100): spread √3 / 10. Bounds are 4 standard errors of 400 episodes,
    that of a standard deviation being spread / √(2 · 400)."""
    known = replace(ladder, env_kwargs={"length": 3})
    value = measure_values(known, "good", episodes=400, seed=1)["T3"]
    spread = 3**0.5 * STD
    assert abs(value.mean - 3 * MEAN) < 4 * spread / 20
    assert abs(value.spread - spread) < 4 * spread / 800**0.5
    assert value.standard_error == pytest.approx(value.spread / 20)
    low, *_, high = value.quantiles.values()
    # The 5 and 95 % points of a normal distribution are 1.645 spreads away.
    assert abs((high - low) / spread - 2 * 1.645) < 0.5


def test_one_seed_gives_one_value(ladder):
    def once(policy="good", seed=4):
        return measure_values(ladder, policy, episodes=8, seed=seed, num_envs=3)

    first = once()
    lengths = [len(rewards) for rewards in Paid.played]
    assert once() == first
    assert once(seed=5) != first
    Paid.played.clear()
    once("bad")
    assert [len(rewards) for rewards in Paid.played] != lengths  # policies share no episode


def test_a_ladder_is_measured_and_read(ladder):
    told = []
    path = measure_ladder(
        ladder, episodes=6, seed=0, progress=lambda *said: told.append(said), command="by hand"
    )
    alone = measure_values(ladder, "bad", play="deterministic", episodes=6, seed=0)
    assert ladder.value("bad", "g0.9", "deterministic") == alone["g0.9"]
    assert ladder.value("bad", "T3").mean < 0 < ladder.value("good", "T3").mean
    said = json.loads(path.read_text(encoding="utf-8"))
    assert (said["command"], said["seed"], said["env_id"]) == ("by hand", 0, ladder.env_id)
    assert said["machine"]["gymnasium"] == gymnasium.__version__
    assert told[-1] == ("values", 4, 4, "bad, deterministic")


def test_a_killed_measurement_goes_on(ladder):
    def kill(_, done, *__):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_ladder(ladder, episodes=6, seed=0, progress=kill)
    half = ladder.values_path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no value of 'bad' for 'T3' in deterministic"):
        ladder.value("bad", "T3", "deterministic")
    assert ladder.value("bad", "T3").episodes == 6  # all policies' stochastic play comes first
    Paid.played.clear()
    measure_ladder(ladder, episodes=6, seed=0)
    assert len(Paid.played) == 6
    Paid.played.clear()
    at_once = ladder.values_path.read_text(encoding="utf-8")
    ladder.values_path.unlink()
    measure_ladder(ladder, episodes=6, seed=0)
    assert ladder.values_path.read_text(encoding="utf-8") == at_once != half


def test_what_changed_is_measured_anew(ladder):
    measure_ladder(ladder, episodes=6, seed=0)
    Paid.played.clear()
    good = ladder.policy_path("good").read_bytes()
    ladder.policy_path("bad").write_bytes(good)
    measure_ladder(ladder, episodes=6, seed=0)
    assert len(Paid.played) == 2 * 6
    assert ladder.value("bad", "T3").mean > 0
    Paid.played.clear()
    measure_ladder(ladder, episodes=7, seed=0)
    assert len(Paid.played) == 4 * 7


def test_a_file_that_is_written_again_is_the_same_policy(ladder):
    """Though its bytes may differ, for safetensors orders a file's words at random."""
    measure_ladder(ladder, episodes=6, seed=0)
    Paid.played.clear()
    contents = set()
    for _ in range(20):
        ope.save_actor(ope.load_actor(ladder.policy_path("bad")), ladder.policy_path("bad"))
        contents.add(ladder.policy_path("bad").read_bytes())
    assert len(contents) > 1
    measure_ladder(ladder, episodes=6, seed=0)
    assert Paid.played == []


@pytest.mark.filterwarnings("ignore:.*inf value")  # which Gymnasium's own checker tells too
def test_what_cannot_be_is_refused(ladder):
    with pytest.raises(ope.ConfigError, match="play is 'greedy'"):
        measure_values(ladder, "good", play="greedy", episodes=6, seed=0)
    with pytest.raises(ope.ConfigError, match="episodes is 1; it must be a whole number, 2"):
        measure_values(ladder, "good", episodes=1, seed=0)
    with pytest.raises(ValueError, match="has no policy 'best'"):
        measure_values(ladder, "best", episodes=6, seed=0)
    with pytest.raises(ope.PolicyError, match="Use a policy of the data's environment"):
        measure_values(replace(ladder, env_id="Pendulum-v1"), "good", episodes=6, seed=0)
    unpaid = replace(ladder, env_kwargs={"factor": np.inf})
    with pytest.raises(ope.DataError, match="not finite in step 1 of"):
        measure_values(unpaid, "good", episodes=6, seed=0)
    measure_ladder(ladder, episodes=2, seed=0)
    with pytest.raises(ope.ConfigError, match="measured with another seed"):
        measure_ladder(ladder, episodes=2, seed=1)
    with pytest.raises(ope.ConfigError, match="measured with another episode and questions"):
        measure_ladder(replace(ladder, episode=9, questions={}), episodes=2, seed=0)
    ladder.values_path.write_text("{}", encoding="utf-8")
    with pytest.raises(ope.DataError, match="holds no values of a ladder"):
        measure_ladder(ladder, episodes=2, seed=0)
    ladder.values_path.unlink()
    ladder.policy_path("bad").unlink()
    with pytest.raises(ope.DataError, match="no policy file"):
        measure_ladder(ladder, episodes=2, seed=0)

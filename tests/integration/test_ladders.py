"""The ladders that are shipped: policies, their files, and what they are worth."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lfiw_envs import LADDERS, PAPER, Ladder, Question, get_ladder
from safetensors import safe_open

import lfiw_ope as ope
from lfiw_ope.benchmark import PLAYS, measure_ladder, measure_values
from lfiw_ope.data import action_spec, state_size
from lfiw_ope.policies import GaussianHead, actor_digest

CURVES = Path(__file__).parents[2] / "experiments" / "results" / "ladders"

LONG = (
    *("ant", "humanoid_standup", "pushed_half_cheetah"),
    *("inverted_double_pendulum", "pusher"),
)
"""Ladders whose policies play fewer episodes, for time."""

SHIPPED = [*LADDERS, *(ladder.name for ladder in PAPER.values())]


@pytest.mark.parametrize("name", list(LADDERS))
def test_policies_are_there_and_fit_their_environment(name):
    ladder = LADDERS[name]
    assert len(ladder.targets) >= 8
    env = ladder.make()
    spec, size = action_spec(env.action_space), state_size(env.observation_space)
    env.close()
    for policy in ladder.policies:
        path = ladder.policy_path(policy)
        assert path.stat().st_size < 400_000
        actor = ope.load_actor(path)
        assert (actor.state_size, actor.action_spec) == (size, spec), policy
        assert actor.has_density  # which the data's log-probabilities are of


@pytest.mark.parametrize("name", list(LADDERS))
def test_no_policy_stands_there_twice(name):
    ladder = LADDERS[name]
    assert not set(ladder.targets) & set(ladder.behaviours)
    every = [*ladder.targets, *ladder.behaviours]
    contents = {actor_digest(ladder.policy_path(one)) for one in every}
    assert len(contents) == len(every)


@pytest.mark.parametrize("name", list(LADDERS))
def test_every_policy_has_its_training(name):
    """Seed, settings and learning curve of the run, also where ladders share policies."""
    ladder = LADDERS[name]
    trained = LADDERS[ladder.folder.name]
    for policy in ladder.policies:
        run, fraction = policy.rsplit("_", 1)
        path = CURVES / f"{trained.name}_{run}.json"
        training = json.loads(path.read_text(encoding="utf-8"))
        assert training["env_id"] == trained.env_id
        assert training["algorithm"] == run.split("_")[0].upper()
        assert training["seed"] > 0
        # Taken as soon as a rollout ended after the fraction.
        assert 0 <= training["snapshots"][fraction] / training["steps"] - float(fraction) < 0.03


def test_ladders_that_share_policies_name_the_same_ones():
    shared = {name: ladder.folder.name for name, ladder in LADDERS.items()}
    shared = {name: owner for name, owner in shared.items() if owner != name}
    assert shared == {
        "dropout_pendulum": "pendulum",
        "pushed_hopper": "hopper",
        "pushed_half_cheetah": "half_cheetah",
    }
    for name, owner in shared.items():
        assert LADDERS[name].targets == LADDERS[owner].targets
        assert LADDERS[name].recipes == LADDERS[owner].recipes


@pytest.mark.parametrize("folder", sorted({ladder.folder for ladder in LADDERS.values()}))
def test_folders_hold_nothing_else(folder):
    known = set()
    for ladder in (*LADDERS.values(), *PAPER.values()):
        if ladder.folder == folder:
            known |= {f"{policy}.safetensors" for policy in ladder.policies}
            known |= {ladder.values_path.name, ladder.support_path.name}
    if folder.name in PAPER:
        known |= {"values.json"}
    assert {path.name for path in folder.iterdir()} <= known
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:  # tensors and text, nothing executable
            assert file.metadata()["format"].startswith("lfiw-ope actor")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_target_has_its_values(name):
    ladder = get_ladder(name)
    wanted = 300 if name in LONG else 1000
    said = json.loads(ladder.values_path.read_text(encoding="utf-8"))
    assert f"--task {name} --episodes" in said["command"]
    assert set(said["values"]) == set(ladder.targets)
    for policy in ladder.targets:
        # Of the very file that is shipped.
        assert actor_digest(ladder.policy_path(policy)).startswith(said["files"][policy])
        for play in PLAYS:
            for question in ladder.questions:
                value = ladder.value(policy, question, play)
                assert value.episodes >= wanted
                assert value.standard_error == pytest.approx(value.spread / value.episodes**0.5)
                quantiles = list(value.quantiles.values())
                assert quantiles == sorted(quantiles)


@pytest.mark.parametrize("name", list(LADDERS))
def test_the_ladder_has_rungs(name):
    """Its policies are worth different things, by far more than the values are uncertain; and each
    training's last one more than its first."""
    ladder = LADDERS[name]
    for question in ladder.questions:
        values = [ladder.value(policy, question) for policy in ladder.targets]
        means = [value.mean for value in values]
        assert max(means) - min(means) > 20 * max(value.standard_error for value in values)
        runs = [one.rsplit("_", 1)[0] for one in ladder.targets]
        for run in set(runs):
            of_run = [mean for mean, its in zip(means, runs, strict=True) if its == run]
            assert of_run[0] < of_run[-1], (question, run)


def test_the_values_of_the_ledge_are_precise():
    """Standard errors of at most 0.1 % of the range of the targets' values."""
    ladder = LADDERS["ledge"]
    values = [ladder.value(policy, "T40") for policy in ladder.targets]
    means = [value.mean for value in values]
    errors = [value.standard_error for value in values]
    assert max(errors) < 0.001 * (max(means) - min(means))


@pytest.mark.parametrize(
    ("name", "policy", "play"),
    [
        ("cartpole", "ppo_0", "stochastic"),
        ("cartpole", "ppo_0.05", "deterministic"),
    ],
)
def test_values_repeat(name, policy, play):
    """100 other episodes, within 4 standard errors of the difference of two independent means."""
    ladder = get_ladder(name)
    again = measure_values(ladder, policy, play=play, episodes=100, seed=5)
    for question, value in again.items():
        stored = ladder.value(policy, question, play)
        error = np.hypot(value.standard_error, stored.standard_error)
        assert 0 < abs(value.mean - stored.mean) < 4 * error, question


def test_processes_give_the_same(tmp_path):
    actor = ope.MLPPolicy.from_layers(
        [torch.ones(3, 1)],
        [torch.zeros(1)],
        GaussianHead(torch.zeros(1, 1), torch.full((1, 1), -2.0), torch.full((1, 1), 2.0)),
        activation="tanh",
    )
    ope.save_actor(actor, tmp_path / "one.safetensors")
    swings = Ladder(
        name="swings",
        env_id="Pendulum-v1",
        targets=("one",),
        recipes={},
        folder=tmp_path,
        episode=20,
        questions={"T20": Question(20, 1.0)},
    )
    measure_ladder(swings, episodes=3, seed=0)
    alone = swings.values_path.read_text(encoding="utf-8")
    swings.values_path.unlink()
    measure_ladder(swings, episodes=3, seed=0, jobs=2)
    assert swings.values_path.read_text(encoding="utf-8") == alone

"""Estimators by name, with trainings of another length than their own."""

import dataclasses

import pytest

import lfiw_ope as ope
from lfiw_ope.estimators import CATALOGUE, Options, estimator_named

FQE = ope.FQEConfig()
DISCOUNTED = ope.Estimand(1000, 0.99)


@pytest.mark.parametrize("name", ["fqe", "dr", "wdr", "magic"])
def test_targets_follow_as_fast_as_a_short_training_needs(name):
    """Values come from 1 / (1 − γ) = 100 steps away, one step in 1 / τ updates."""

    def config_of(updates):
        config = estimator_named(name, DISCOUNTED, Options(updates=updates)).config
        return config if name == "fqe" else config.fqe

    assert config_of(None) == FQE
    assert config_of(5000).tau == pytest.approx(100 / 5000)
    assert config_of(10**6).tau == FQE.tau
    assert config_of(50).tau == 1.0
    assert not ope.FQE(DISCOUNTED, config_of(5000)).warnings()
    hurried = dataclasses.replace(config_of(5000), tau=FQE.tau)
    assert "too few" in ope.FQE(DISCOUNTED, hurried).warnings()[0]


@pytest.mark.parametrize(
    ("updates", "every"),
    # A fortieth of the training, as by default, but not below twenty updates; of fewer, the whole.
    [(20_000, 500), (4000, 100), (400, 20), (7, 7)],
)
def test_short_trainings_are_looked_at_less_often(updates, every):
    assert Options(updates=updates).training(FQE.fit).evaluate_every == every


def test_every_estimator_is_made_by_its_name():
    for name in CATALOGUE:
        assert estimator_named(name, DISCOUNTED, Options()).estimand == DISCOUNTED

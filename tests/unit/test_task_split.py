"""Settings are chosen on development tasks; the benchmark reports on the other tasks."""

import ast
from pathlib import Path

from lfiw_envs import LADDERS, PAPER
from lfiw_envs.ladders import DEVELOPMENT

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

CHOOSING = ("default_weighting", "dice_settings", "refusal", "mean_weight_rule")
"""Studies whose results decided defaults."""


def env_ids(purpose):
    ladders = (*LADDERS.values(), *PAPER.values())
    return {ladder.env_id for ladder in ladders if ladder.purpose == purpose}


def texts_in(name):
    tree = ast.parse((EXPERIMENTS / f"{name}.py").read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def test_choices_use_no_report_task():
    texts = set().union(*(texts_in(name) for name in CHOOSING))
    assert not texts & env_ids("report")


def test_no_environment_has_both_purposes():
    assert not env_ids("development") & env_ids("report")


def test_the_split_is_as_documented():
    purposes = {name: ladder.purpose for name, ladder in LADDERS.items()}
    development = {name for name, purpose in purposes.items() if purpose == "development"}
    assert development == set(DEVELOPMENT)
    assert development == {
        *("pendulum", "acrobot", "hopper", "half_cheetah", "swimmer", "walker2d"),
        *("ledge", "dropout_pendulum", "pushed_hopper"),
    }
    assert purposes.keys() - development == {
        *("cartpole", "ant", "humanoid_standup", "pushed_half_cheetah", "delayed_pendulum"),
        *("inverted_double_pendulum", "pusher"),
    }


def test_the_ladders_of_the_paper_have_the_purpose_of_their_task():
    for name, ladder in PAPER.items():
        assert ladder.purpose == LADDERS[name].purpose

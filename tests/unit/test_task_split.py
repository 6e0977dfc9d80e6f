"""Settings are chosen on development tasks, and the benchmark reports on others."""

import ast
from pathlib import Path

from lfiw_envs import LADDERS

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

CHOOSING = ("development_tasks", "default_choice", "dice_settings", "refusal", "mean_weight_rule")
"""Studies whose outcome became a default."""

BEFORE_THE_RULE = {"CartPole-v1"}
"""What a choice had seen when the rule was made; `default_weighting.py` tells what it changes."""


def texts_in(name):
    tree = ast.parse((EXPERIMENTS / f"{name}.py").read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def test_choices_see_no_report_task():
    reported = {ladder.env_id for ladder in LADDERS.values() if ladder.purpose == "report"}
    seen = set().union(*(texts_in(name) for name in CHOOSING))
    assert seen & reported == BEFORE_THE_RULE


def test_the_split_is_as_published():
    development = {name for name, ladder in LADDERS.items() if ladder.purpose == "development"}
    assert development == {"pendulum", "acrobot", "hopper"}
    assert len(LADDERS) == 9

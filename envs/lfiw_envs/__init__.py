"""What is known about environments: rules, tasks with shipped policies, exact test-beds."""

from lfiw_envs.examples import (
    AliasedMDP,
    Example,
    chain,
    model_fail,
    model_win,
    random_mdp,
    taxi,
)
from lfiw_envs.ladder import Ladder, LadderValue, Question
from lfiw_envs.ladders import LADDERS, PAPER, get_ladder
from lfiw_envs.linear_gaussian import LinearGaussianMDP, LinearGaussianPolicy
from lfiw_envs.rules.lookup import UnknownEnvironmentError, known_rules, rules_for
from lfiw_envs.rules.record import NEVER, EnvironmentRules, Rule
from lfiw_envs.tabular import TabularMDP, TabularPolicy
from lfiw_envs.tasks import TASKS, MeasuredValue, Task, get_task

__all__ = [
    "LADDERS",
    "NEVER",
    "PAPER",
    "TASKS",
    "AliasedMDP",
    "EnvironmentRules",
    "Example",
    "Ladder",
    "LadderValue",
    "LinearGaussianMDP",
    "LinearGaussianPolicy",
    "MeasuredValue",
    "Question",
    "Rule",
    "TabularMDP",
    "TabularPolicy",
    "Task",
    "UnknownEnvironmentError",
    "chain",
    "get_ladder",
    "get_task",
    "known_rules",
    "model_fail",
    "model_win",
    "random_mdp",
    "rules_for",
    "taxi",
]

"""What is known about environments: rules, tasks with shipped policies, exact test-beds."""

from lfiw_envs.linear_gaussian import LinearGaussianMDP, LinearGaussianPolicy
from lfiw_envs.rules.lookup import UnknownEnvironmentError, known_rules, rules_for
from lfiw_envs.rules.record import NEVER, EnvironmentRules, Rule
from lfiw_envs.tabular import TabularMDP, TabularPolicy
from lfiw_envs.tasks import TASKS, MeasuredValue, Task, get_task

__all__ = [
    "NEVER",
    "TASKS",
    "EnvironmentRules",
    "LinearGaussianMDP",
    "LinearGaussianPolicy",
    "MeasuredValue",
    "Rule",
    "TabularMDP",
    "TabularPolicy",
    "Task",
    "UnknownEnvironmentError",
    "get_task",
    "known_rules",
    "rules_for",
]

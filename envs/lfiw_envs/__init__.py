"""What is known about environments: tasks with shipped policies, test-beds with exact values."""

from lfiw_envs.linear_gaussian import LinearGaussianMDP, LinearGaussianPolicy
from lfiw_envs.tabular import TabularMDP, TabularPolicy
from lfiw_envs.tasks import TASKS, MeasuredValue, Task, get_task

__all__ = [
    "TASKS",
    "LinearGaussianMDP",
    "LinearGaussianPolicy",
    "MeasuredValue",
    "TabularMDP",
    "TabularPolicy",
    "Task",
    "get_task",
]

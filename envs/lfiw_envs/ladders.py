"""The shipped ladders: tasks of two training runs each, and those of the paper."""

from collections.abc import Mapping

from lfiw_envs.ladder import EPISODE, QUESTIONS, Ladder, Purpose, Question
from lfiw_envs.tasks import POLICIES, TASKS

DEVELOPMENT = (
    *("pendulum", "acrobot", "hopper", "half_cheetah", "swimmer", "walker2d"),
    *("ledge", "dropout_pendulum", "pushed_hopper"),
)
"""Tasks whose results may decide settings. All others are report tasks: no estimator's setting is
chosen by their results."""

RUNGS = {"first": ("0", "0.05", "0.1", "0.25", "0.5", "1"), "second": ("0.1", "0.25", "0.5", "1")}
"""Of a task's two training runs, at which fractions of their steps targets were taken."""

REPLAYED = ("0.02", "0.075", "0.15", "0.35", "0.75")
"""Fractions of the first run whose snapshots make the replay data: none of them is a target."""


def purpose_of(name: str) -> Purpose:
    """Purpose of the task with this name."""
    return "development" if name in DEVELOPMENT else "report"


def _ladder(
    name: str,
    env_id: str,
    first: str,
    second: str,
    *,
    best: str,
    policies: str | None = None,
    episode: int = EPISODE,
    questions: Mapping[str, Question] = QUESTIONS,
) -> Ladder:
    """A shipped ladder: targets of two runs, data by snapshots between them.

    Args:
        name: of the ladder.
        env_id: of its environment.
        first: training run of six targets and of the replay data.
        second: training run of four targets.
        best: the run whose snapshot at three quarters plays the expert: the one whose learning
            curve is higher there.
        policies: ladder whose policies it shares, or None if it has its own.
        episode: steps after which an episode is truncated.
        questions: estimands, by name.
    """
    targets = [
        f"{run}_{fraction}"
        for run, which in ((first, "first"), (second, "second"))
        for fraction in RUNGS[which]
    ]
    medium, expert = f"{first}_0.35", f"{best}_0.75"
    recipes = {
        "random": (f"{second}_0",),
        "medium": (medium,),
        "replay": tuple(f"{first}_{fraction}" for fraction in REPLAYED),
        "mixed": (medium, expert),
        "expert": (expert,),
    }
    return Ladder(
        name=name,
        env_id=env_id,
        targets=tuple(targets),
        recipes=recipes,
        folder=POLICIES / (policies or name),
        purpose=purpose_of(name),
        episode=episode,
        questions=dict(questions),
    )


_RANDOM = "lfiw_envs.stochastic:"
_T100 = {"T100": Question(100, 1.0)}

LADDERS = {
    ladder.name: ladder
    for ladder in (
        _ladder("pendulum", "Pendulum-v1", "ppo", "sac", best="sac"),
        _ladder("acrobot", "Acrobot-v1", "ppo", "a2c", best="ppo"),
        _ladder("hopper", "Hopper-v5", "ppo", "sac", best="ppo"),
        _ladder("cartpole", "CartPole-v1", "ppo", "a2c", best="a2c"),
        _ladder("swimmer", "Swimmer-v5", "ppo", "ppo_default", best="ppo"),
        _ladder("half_cheetah", "HalfCheetah-v5", "ppo", "sac", best="sac"),
        _ladder("walker2d", "Walker2d-v5", "ppo", "sac", best="ppo"),
        _ladder("ant", "Ant-v5", "ppo", "sac", best="ppo"),
        _ladder("humanoid_standup", "HumanoidStandup-v5", "ppo", "ppo_default", best="ppo"),
        _ladder(
            *("ledge", f"{_RANDOM}Ledge-v0", "ppo", "sac"),
            best="sac",
            episode=40,
            questions={"T40": Question(40, 1.0)},
        ),
        _ladder(
            *("dropout_pendulum", f"{_RANDOM}DropoutPendulum-v0", "ppo", "sac"),
            best="sac",
            policies="pendulum",
        ),
        _ladder(
            *("pushed_hopper", f"{_RANDOM}PushedHopper-v0", "ppo", "sac"),
            best="ppo",
            policies="hopper",
            questions=_T100,
        ),
        _ladder(
            *("pushed_half_cheetah", f"{_RANDOM}PushedHalfCheetah-v0", "ppo", "sac"),
            best="sac",
            policies="half_cheetah",
            questions=_T100,
        ),
        _ladder(
            *("delayed_pendulum", f"{_RANDOM}DelayedPendulum-v0", "ppo", "sac"),
            best="ppo",
        ),
        _ladder(
            *("inverted_double_pendulum", "InvertedDoublePendulum-v5", "ppo", "sac"),
            best="ppo",
        ),
        _ladder(
            *("pusher", "Pusher-v5", "ppo", "sac"),
            best="ppo",
            episode=100,
            questions=_T100,
        ),
    )
}
"""By name; `DEVELOPMENT` is the split into development and report tasks."""


PAPER = {
    task.name: Ladder(
        name=f"paper_{task.name}",
        env_id=task.env_id,
        targets=task.policies,
        recipes={"behaviour": ("behaviour",)},
        folder=POLICIES / task.name,
        purpose=purpose_of(task.name),
        episode=task.horizon,
        questions={"T100": Question(task.horizon, task.discount)},
    )
    for task in TASKS.values()
}
"""The three tasks of Grover et al. (2019) as ladders of two policies, episodes of T steps."""


def get_ladder(name: str) -> Ladder:
    """The ladder of this name.

    Raises:
        ValueError: if there is none; it names those there are.
    """
    known = {**LADDERS, **{ladder.name: ladder for ladder in PAPER.values()}}
    if name not in known:
        raise ValueError(f"There is no ladder {name!r}; choose one of {', '.join(known)}.")
    return known[name]

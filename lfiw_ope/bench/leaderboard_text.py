"""The leaderboard as a page of Markdown."""

import json
from collections.abc import Callable, Iterator, Sequence

from lfiw_ope.bench.leaderboard import Leaderboard
from lfiw_ope.bench.measures import MEASURES
from lfiw_ope.bench.standings import Measured, Slice, Standing
from lfiw_ope.bench.support import SUPPORTED
from lfiw_ope.markdown import markdown_table
from lfiw_ope.wording import counted

ACCURACY = ("error", "gain", "kept_error", "near", "rank_correlation", "regret", "won")
OTHER = ("coverage", "width", "intervals", "refused", "failed", "seconds")
BY_PART = ("error", "near", "rank_correlation", "regret", "coverage")
PARTS = {
    ("task",): ("By task", BY_PART),
    ("data",): ("By data set", BY_PART),
    ("transitions",): ("By number of transitions", BY_PART),
    ("question",): ("By question", BY_PART),
    ("support",): ("By support", (*BY_PART, "refused")),
    ("task", "data"): ("By task and data set", ("error",)),
    ("task", "support"): ("By task and support", ("error",)),
}
"""What is told of parts of a benchmark; `leaderboard.json` has every measure of each."""

READING = (
    "A **unit** is one log and one seed; a **cell** is one policy in a unit. Errors are in units "
    "of the range of the true values of all policies of the task's ladder.",
    "The order is by **RMSE**. A missing answer counts there, and in Spearman and regret, as the "
    "log's mean return, which takes no estimator: keeping silent is as good as that constant and "
    "no better. Who answers nothing has no rank. Where it is order that counts, in Spearman and "
    "regret, estimates that are no further apart than a billionth of the range are the same, so "
    "that returns times weights of 1e-70 rank no policies.",
    "A refused answer, where the data were found not to tell the value, counts as the number that "
    "it would have been, so that all are measured on the same cells; *RMSE, kept* leaves it out.",
    "Bold: the best of its column, and those of which the difference to the best has an interval "
    "that holds 0, so that nothing sets them apart; of coverage, those that reach 95 %, or whose "
    "interval does, and that give intervals in half of the cells at least. *behind*: RMSE less "
    "that of the first.",
    "Every estimator is measured on the same resamples. Tasks are not resampled: a handful that "
    "somebody chose is no sample of all tasks, and no interval says what would come out on "
    "another.",
    "Policies are apart by **support**: whether the log's region, which holds 95 % of what its own "
    f"policies do, holds {SUPPORTED:.0%} or more of what the policy does, measured in the real "
    "simulator before any estimator ran.",
)


def as_markdown(board: Leaderboard) -> str:
    """The page: how to read it, then report tasks, then development tasks, then what made it."""
    suite = board.about.get("suite")
    parts = [f"# Leaderboard{f': {suite}' if suite else ''}\n", _opening(board)]
    parts += ["## How to read it\n", "".join(f"- {line}\n" for line in _reading(board))]
    for purpose in board.purposes:
        parts += _purpose(board, purpose)
    about = json.dumps(dict(board.about), indent=1, ensure_ascii=False)
    parts += ["## What made it\n", f"```json\n{about}\n```\n"]
    return "\n".join(parts)


def _opening(board: Leaderboard) -> str:
    command = board.about.get("command")
    made = f"Made by `{command}`. " if command else ""
    out = (
        f" Left out: {counted(board.left_out, 'unit')} that some estimator has not finished."
        if board.left_out
        else ""
    )
    if board.missing:
        out += (
            f" **This is not the whole suite**: of its {counted(board.about['trials'], 'trial')}, "
            f"not finished or without a log: {board.missing}."
        )
    size = f"{counted(len(board.estimators), 'estimator')} on {counted(board.units, 'unit')}."
    return (
        f"{made}{size}{out} {_first(board)}\n\n"
        "![Estimates against true values, and the standings](leaderboard.png)\n"
    )


def _first(board: Leaderboard) -> str:
    """Who is, and whom nothing sets it apart from."""
    where = _those(board, board.purposes[0])
    first, *others = board.headline.standings
    if first.rank is None:
        return f"No estimator has an answer on the {where}."
    ties = [one.estimator for one in others if one.measured["error"].best]
    apart = f"; nothing sets it apart from {', '.join(ties)}" if ties else ""
    error = _number("error", first.measured["error"])
    return f"First on the {where}: **{first.estimator}**, RMSE {error}{apart}."


def _reading(board: Leaderboard) -> Iterator[str]:
    yield from READING
    yield (
        f"In brackets: {100 * board.level:g} % intervals of a bootstrap over the policies of each "
        f"task and over seeds ({board.resamples} resamples); there is none where all resamples say "
        "the same. One that does not hold the number itself is widened to it. A resample lacks "
        "about a third of the policies, so that those of Spearman and "
        "regret reach rather low, and those of RMSE do too: a root of a resampled mean square is "
        "smaller on average. So the true one lies above an interval more often than below it, and "
        "outside more often than the level says. And a bootstrap over n of a kind has (n − 1)/n of "
        "the variance "
        "between them, half of it where seeds are two: the intervals are rather short."
    )
    yield (
        "True values are measured too: the largest of their standard errors is "
        f"{board.truth_error:.2g} of its ladder's range."
    )
    for name in (*ACCURACY, *OTHER):
        yield f"*{MEASURES[name].heading}*: {MEASURES[name].meaning}."


def _those(board: Leaderboard, purpose: str) -> str:
    tasks = len(_tasks(board, purpose))
    return f"{tasks} {purpose} tasks" if tasks > 1 else f"{purpose} task"


def _tasks(board: Leaderboard, purpose: str) -> list[str]:
    return [one.of["task"] for one in board.by("task", purpose=purpose)]


def _purpose(board: Leaderboard, purpose: str) -> Iterator[str]:
    """All that is told of the tasks of one purpose."""
    (whole,) = board.by(purpose=purpose)
    yield f"## {purpose.capitalize()} tasks\n"
    tasks = _tasks(board, purpose)
    named = f"{', '.join(tasks)}: " if tasks else ""
    size = f"{counted(whole.units, 'unit')}, {counted(whole.cells, 'cell')}."
    yield f"{named}{size}{_meant(purpose)}\n"
    columns = [("answered", lambda one: f"{one.answered}/{whole.cells}")]
    yield _standings(whole, ACCURACY, [("behind", lambda one: _behind(one))])
    yield _standings(whole, OTHER, columns)
    for fields, (title, names) in PARTS.items():
        slices = board.by(*fields, purpose=purpose)
        if not slices:  # of one task alone, "by task and data set" is "by data set"
            continue
        yield f"### {title}\n"
        for name in names:
            yield f"{MEASURES[name].heading}:\n"
            yield _matrix(whole, slices, fields, name)


def _meant(purpose: str) -> str:
    if purpose == "development":
        return " Settings may have been chosen by what comes out here."
    return " No setting was chosen by what comes out here."


def _standings(
    part: Slice, names: Sequence[str], more: Sequence[tuple[str, Callable[[Standing], str]]]
) -> str:
    """A line an estimator, by rank."""
    head = ["estimator", "rank", *(MEASURES[name].heading for name in names)]
    head[3:3] = [heading for heading, _ in more]
    lines = []
    for one in part.standings:
        line = [one.estimator, "–" if one.rank is None else str(one.rank)]
        line += [_number(name, one.measured[name]) for name in names]
        line[3:3] = [text(one) for _, text in more]
        lines.append(line)
    return markdown_table(head, lines)


def _matrix(whole: Slice, slices: Sequence[Slice], fields: Sequence[str], name: str) -> str:
    """One measure: a line an estimator, in the order of the whole, and a column a part."""
    head = ["estimator", *(", ".join(part.of[field] for field in fields) for part in slices)]
    cells = ["*cells*", *(str(part.cells) for part in slices)]
    lines = [
        [
            first.estimator,
            *(_number(name, part.standing(first.estimator).measured[name]) for part in slices),
        ]
        for first in whole.standings
    ]
    return markdown_table(head, [cells, *lines])


def _behind(one: Standing) -> str:
    return "" if one.behind.value == 0 else _number("error", one.behind)


def _number(name: str, found: Measured) -> str:
    """In bold where it is of the best, and with its interval."""
    if found.value is None:
        return "–"
    text = MEASURES[name].text
    value = f"**{text(found.value)}**" if found.best else text(found.value)
    if found.low is None or found.high is None:
        return value
    return f"{value} [{text(found.low)}, {text(found.high)}]"

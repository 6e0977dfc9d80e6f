"""The leaderboard as a terminal shows it."""

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lfiw_ope.benchmark.leaderboard import Leaderboard
from lfiw_ope.benchmark.standings import MEASURES, Measured, Standing
from lfiw_ope.core.serialization import counted

COLUMNS = (
    "error",
    "near",
    "rank_correlation",
    "regret",
    "coverage",
    "won",
    "seconds",
    "gain",
    "width",
)
"""The first stand in a narrow terminal too."""


def leaderboard_table(board: Leaderboard, terminal: Console) -> RenderableType:
    """Who stands where on the report tasks, in as many columns as the terminal is wide."""
    part = board.headline
    table = _table(part.standings, part.cells, COLUMNS[:1])
    for count in range(2, len(COLUMNS) + 1):
        wider = _table(part.standings, part.cells, COLUMNS[:count])
        options = terminal.options.update(max_width=10_000)
        if Measurement.get(terminal, options, wider).maximum > terminal.width:
            break
        table = wider
    title = f"{part.of['purpose'].capitalize()} tasks: {counted(part.units, 'unit')}, "
    title += counted(part.cells, "cell")
    if board.left_out:
        title += f"; unfinished and left out: {counted(board.left_out, 'unit')}"
    if board.missing:
        title += f"; {board.missing} of {board.about['trials']} trials are not in it"
    caption = (
        "By RMSE in units of the range of true values, a missing answer counted as the log's mean "
        f"return. In brackets {100 * board.level:g} % bootstrap intervals over policies and seeds."
    )
    return Group(title, table, Text(caption, style="dim"))


def _table(standings: tuple[Standing, ...], cells: int, names: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    headings = [MEASURES[name].heading for name in names]
    for index, heading in enumerate(["", "", "answered", "refused", *headings]):
        table.add_column(heading, justify="left" if index == 1 else "right", no_wrap=True)
    for one in standings:
        table.add_row(
            "–" if one.rank is None else str(one.rank),
            one.estimator,
            f"{one.answered}/{cells}",
            str(one.refused),
            *(_number(name, one.measured[name]) for name in names),
        )
    return table


def _number(name: str, found: Measured) -> str:
    if found.value is None:
        return "–"
    text = MEASURES[name].text
    if name != "error" or found.low is None or found.high is None:
        return text(found.value)
    return f"{text(found.value)} [{text(found.low)}, {text(found.high)}]"

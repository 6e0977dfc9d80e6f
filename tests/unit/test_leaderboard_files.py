"""The leaderboard as a page, a figure and a table."""

import io
import json

import pytest
from comparing import estimators, inputs
from rich.console import Console
from standing_rows import bench_row, noisy_rows, rows_of

import lfiw_ope as ope
from lfiw_ope.benchmark import (
    BenchResults,
    BenchRow,
    Leaderboard,
    as_markdown,
    draw_leaderboard,
    write_leaderboard,
)
from lfiw_ope.cli.leaderboard_table import leaderboard_table
from lfiw_ope.core import markdown_table


@pytest.fixture(scope="module")
def rows():
    """Two tasks of either purpose, with a failure, a refusal and estimates that explode."""
    found = noisy_rows({"fqe": (0.0, 0.05, 0.1), "is": (0.0, 30.0, None)}, ["run", "swim"])
    found = [row for row in found if row.row.policy != "p00"]
    for task, scale in (("run", 10.0), ("swim", 100.0)):
        for seed in (0, 1):
            unit = {"task": task, "scale": scale, "seed": seed, "behaviour": 0.4 * scale}
            found += [
                bench_row("fqe", "p00", 1.0, 0.0, status="refused", reason="Far.", **unit),
                bench_row("is", "p00", None, 0.0, reason="No.", **unit),
            ]
    return found + rows_of(
        {"fqe": (1.0, 6.0), "is": (9.0, 0.0)}, task="pole", purpose="development"
    )


def tables(page):
    """Of a page: each table's lines, as lists of cells."""
    found, inside = [], False
    for line in page.splitlines():
        if line.startswith("|") and not inside:
            found.append([])
        inside = line.startswith("|")
        if inside:
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_a_table_of_a_page():
    assert markdown_table(["", "a"], [["x", "1"]]) == "| | a |\n| --- | ---: |\n| x | 1 |\n"


def test_the_page_tells_who_stands_where(rows):
    page = as_markdown(Leaderboard.of(rows, {"suite": "own", "command": "make it"}, resamples=50))
    assert page.startswith("# Leaderboard: own\n\nMade by `make it`. 2 estimators on 5 units.")
    assert page.index("## Report tasks") < page.index("## Development tasks")
    first, second, *others = tables(page)
    assert first[0][:4] == ["estimator", "rank", "RMSE", "behind"]
    assert [line[:2] for line in first[2:]] == [["fqe", "1"], ["is", "2"]]
    assert first[2][2].startswith("**0.0")
    assert not first[3][2].startswith("**")
    assert "answered" in second[0]
    assert second[3][second[0].index("answered")] == "20/24"
    assert second[2][second[0].index("refused")].startswith("17%")
    assert others[0][0] == ["estimator", "run", "swim"]
    for table in tables(page):
        assert {len(line) for line in table} == {len(table[0])}


def test_a_board_of_a_run_that_is_not_finished_says_so(tmp_path):
    """Whichever trials a run was stopped before: their rows are not there to be left out."""
    rows = rows_of({"one": (1.0, 6.0, 11.0), "two": (0.0, 5.0, 9.0)})
    said = []
    for finished in (5, 7):
        found = BenchResults({"suite": "own"}, tuple(rows), 7, finished, {})
        board, (_, page, _) = write_leaderboard(found.rows, tmp_path, found.head)
        screen = io.StringIO()
        console = Console(file=screen, width=120, highlight=False, markup=False)
        console.print(leaderboard_table(board, console))
        said.append((board.missing, page.read_text(), screen.getvalue()))
    (missing, page, screen), (none, whole, whole_screen) = said
    assert (missing, none) == (2, 0)
    assert (
        "**This is not the whole suite**: of its 7 trials, not finished or without a log: 2."
        in page
    )
    assert "2 of 7 trials are not in it" in screen
    assert "not the whole" not in whole
    assert "trials are not" not in whole_screen


def test_who_answers_nothing_is_not_the_first():
    page = as_markdown(Leaderboard.of(rows_of({"one": (None, None, None)}), resamples=20))
    assert "No estimator has an answer on the report task." in page
    assert "First on" not in page


def test_a_page_of_one_task_has_no_parts():
    page = as_markdown(Leaderboard.of(rows_of({"one": (1.0, 6.0, 11.0)}), resamples=20))
    assert page.startswith("# Leaderboard\n")
    assert "###" not in page
    assert len(tables(page)) == 2


def test_parts_of_one_task_are_told_once():
    rows = [
        *rows_of({"one": (1.0, 6.0, 11.0)}),
        *rows_of({"one": (0.0, 6.0, 11.0)}, data="replay", supported=False),
    ]
    page = as_markdown(Leaderboard.of(rows, resamples=20))
    told = [line for line in page.splitlines() if line.startswith("###")]
    assert told == ["### By data set", "### By support"]


def test_estimates_beyond_the_axes_stand_on_their_edge(rows):
    figure = draw_leaderboard(rows, Leaderboard.of(rows, resamples=20))
    panels = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert list(panels) == ["fqe", "is"]
    low, high = panels["is"].get_ylim()
    drawn = [line for line in panels["is"].lines if line.get_marker() in ("^", "v")]
    edges = {float(y) for line in drawn for y in line.get_ydata()}
    assert edges == {low, high}
    markers = {line.get_marker() for line in panels["fqe"].lines}
    assert {"o", "X"} <= markers


def test_coverage_says_in_how_many_cells_there_is_an_interval():
    rows = [
        *rows_of({"always": (1.0, 6.0, 11.0)}, low=0.0, high=10.0),
        *rows_of({"never": (1.0, 6.0, 11.0)}),
        *rows_of({"once": (1.0,)}, low=0.0, high=10.0),
        *rows_of({"once": (None, 6.0, 11.0)})[1:],
    ]
    figure = draw_leaderboard(rows, Leaderboard.of(rows, resamples=20))
    (panel,) = (ax for ax in figure.axes if ax.get_xlabel().startswith("coverage"))
    assert [text.get_text() for text in panel.texts] == ["in 33% of the cells"]


def test_what_the_tables_leave_out_is_not_drawn():
    rows = rows_of({"one": (1.0, 6.0, 11.0), "two": (0.0, 5.0, 9.0)})
    begun = rows_of({"one": (2.0, 7.0, 12.0)}, seed=1)
    board = Leaderboard.of([*rows, *begun], resamples=20)
    page = as_markdown(board)
    assert "2 estimators on 1 unit. Left out: 1 unit that some estimator has not finished." in page
    drawn = []
    for given in (rows, [*rows, *begun]):
        figure = draw_leaderboard(given, board)
        (panel,) = (ax for ax in figure.axes if ax.get_title() == "one")
        drawn.append(sorted(float(y) for line in panel.lines[:-1] for y in line.get_ydata()))
    assert drawn[0] == drawn[1]


def test_files_of_results_that_were_run(tmp_path):
    data, policies, truth = inputs()
    some = {name: estimators()[name] for name in ("PDIS", "half mean", "too many folds")}
    compared = ope.compare(some, data, policies, truth, range(2))
    scale = max(truth.values()) - min(truth.values())
    made = [
        BenchRow(
            task="tabular",
            purpose="report",
            data="log",
            transitions=data.num_transitions,
            question="T4",
            row=row,
            truth_error=0.0,
            scale=scale,
            support=1.0,
            supported=True,
            behaviour=compared.behaviour.mean,
        )
        for row in compared.rows
    ]
    about = {"suite": "own", "command": "make it"}
    results, _ = BenchResults(about, tuple(made), 1, 1, {}).save(tmp_path)
    found = BenchResults.read(results)
    back, about = found.rows, found.about
    assert back == tuple(made)
    board, saved = write_leaderboard(back, tmp_path / "once", about)
    assert [path.name for path in saved] == [
        f"leaderboard.{kind}" for kind in ("json", "md", "png")
    ]
    assert Leaderboard.from_json(saved[0].read_text()) == board
    # What fails everywhere is last, whatever the others err.
    assert board.headline.standings[-1].estimator == "too many folds"
    assert board.headline.standings[-1].rank is None
    mean = compared.summary(["RMSE"], resamples=0)
    errors = {score.estimator: score.value for score in mean}
    for one in board.headline.standings[:-1]:
        assert one.measured["error"].value == pytest.approx(errors[one.estimator] / scale, rel=1e-5)
    _, again = write_leaderboard(made[::-1], tmp_path / "again", about)
    for path, other in zip(saved, again, strict=True):
        assert path.read_bytes() == other.read_bytes()


def test_what_is_no_file_of_results(tmp_path):
    for text in ("", "[]", "{}", '{"rows": [{}]}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ope.DataError, match="no results"):
            BenchResults.read(tmp_path / "results.json")
    with pytest.raises(ope.DataError, match="no results"):
        BenchResults.read(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [("value", "5"), ("truth", "5"), ("seed", "0"), ("scale", None), ("supported", "yes")],
)
def test_rows_of_odd_content_are_no_results(rows, tmp_path, name, value):
    plain = BenchResults({}, tuple(rows), 1, 1, {}).to_dict()
    plain["rows"][3][name] = value
    path = tmp_path / "results.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(ope.DataError, match=f"its {name} is {value!r}"):
        BenchResults.read(path)


def test_where_a_figure_fails_nothing_of_other_rows_is_written(rows, tmp_path, monkeypatch):
    _, before = write_leaderboard(rows[:-4], tmp_path, {})
    kept = {path: path.read_bytes() for path in before}

    def fails(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails)
    with pytest.raises(OSError, match="no space"):
        write_leaderboard(rows, tmp_path, {})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_a_terminal_shows_as_much_as_it_is_wide_for(rows):
    board = Leaderboard.of(rows, resamples=50)

    def shown(width):
        screen = io.StringIO()
        console = Console(file=screen, width=width, highlight=False, markup=False)
        console.print(leaderboard_table(board, console))
        return screen.getvalue()

    narrow, wide = shown(60), shown(160)
    assert "width" in wide
    assert "width" not in narrow
    for text in (narrow, wide):
        lines = [line.split() for line in text.splitlines()]
        assert ["1", "fqe", "24/24", "4"] in [line[:4] for line in lines]
        assert "Report tasks: 4 units, 24 cells" in text

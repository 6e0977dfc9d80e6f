"""What the intervals of a leaderboard are over, and the standings of its parts."""

import numpy as np
import pytest
from standing_rows import RIGHT, TURNED, bench_row, board, measured, noisy_rows, order, rows_of


def test_tasks_are_not_resampled():
    # Errors that are the same within a task: what differs is between tasks alone.
    rows = rows_of({"one": RIGHT}, task="swim")
    rows += rows_of({"one": (3.0, 8.0, 13.0)}, task="run")
    of = board(rows).headline.standing("one").measured["error"]
    assert (of.value, of.low, of.high) == (pytest.approx(0.2), None, None)


def test_a_policy_is_drawn_for_all_logs_of_its_task_at_once():
    values = {"one": (3.0, 5.1, 11.0)}
    once = board(rows_of(values)).headline.standing("one").measured["error"]
    rows = [row for data in ("medium", "replay") for row in rows_of(values, data=data)]
    twice = board(rows).headline.standing("one").measured["error"]
    assert once.low is not None
    assert once == twice


def test_seeds_are_resampled():
    rows = [
        row for seed, by in enumerate((1, 3)) for row in rows_of({"one": (by, 5 + by)}, seed=seed)
    ]
    of = board(rows, 400).headline.standing("one").measured["error"]
    # Each seed is drawn twice in a quarter of the resamples.
    assert (of.low, of.value, of.high) == pytest.approx((0.1, 0.2, 0.3))


def test_intervals_hold_their_values():
    # Who looks best is worst: resamples without it have less to regret.
    of = board(rows_of({"turned": TURNED}), 200).headline.standing("turned").measured["regret"]
    assert of.low < of.value == of.high == 1.0


def test_intervals_cover():
    # √(mean of 12 squared normal errors) is 0.9794 σ on average: √(2/12) Γ(6.5)/Γ(6).
    sigma, runs = 0.1, 60
    expected = sigma * 0.9794
    held, widths = 0, []
    for run in range(runs):
        rng = np.random.default_rng(run)
        rows = [
            bench_row("one", f"p{p:02}", float(10 * sigma * rng.normal()), 0.0, seed=seed)
            for seed in (0, 1)
            for p in range(12)
        ]
        of = board(rows, 200, seed=run).headline.standing("one").measured["error"]
        held += of.low <= expected <= of.high
        widths.append(of.high - of.low)
    # At a true coverage of 0.85 or more, fewer than 42 of 60 come in one of 1000 tests:
    # 51 − 3.1 √(60 · 0.85 · 0.15) = 42.4. Two lists of 12 have a standard error of 0.144 σ, so
    # that an interval of twice what is needed would be 1.13 σ wide.
    assert held >= 42
    assert np.mean(widths) < 1.13 * sigma


def test_support_has_standings_of_its_own():
    good_on_supported = noisy_rows({"one": (0.0, 0.05, None), "two": (0.3, 0.0, None)}, ["swim"])
    found = board(good_on_supported)
    sides = {one.of["support"]: one for one in found.by("support")}
    assert (sides["supported"].cells, sides["unsupported"].cells) == (8, 4)
    for side, kept in (("supported", True), ("unsupported", False)):
        errors = [
            [
                (row.row.value - row.row.truth) / row.scale
                for row in good_on_supported
                if row.supported is kept and row.row.seed == s and row.row.estimator == "one"
            ]
            for s in (0, 1)
        ]
        by_hand = np.mean([np.sqrt(np.mean(np.square(of))) for of in errors])
        assert measured(found, "one", sides[side])["error"] == pytest.approx(by_hand, rel=1e-5)


def test_development_and_report_tasks_are_never_put_together():
    rows = rows_of({"one": RIGHT, "two": TURNED}, task="pole", purpose="development")
    rows += rows_of({"one": TURNED, "two": RIGHT}, task="swim", purpose="report")
    found = board(rows)
    assert found.purposes == ("report", "development")
    assert order(found) == ["two", "one"]
    (other,) = found.by(purpose="development")
    assert other.standings[0].estimator == "one"
    assert all("purpose" in one.of for one in found.slices)
    only = board([row for row in rows if row.purpose == "development"])
    assert only.headline.of == {"purpose": "development"}


def test_parts_that_are_the_whole_are_not_told():
    rows = noisy_rows({"one": (0.0, 0.1, None)}, ["run", "swim"], data=("medium", "replay"))
    found = board(rows, 20)
    assert [one.of["task"] for one in found.by("task")] == ["run", "swim"]
    assert [one.of["data"] for one in found.by("data")] == ["medium", "replay"]
    assert len(found.by("task", "data")) == 4
    assert found.by("question") == found.by("transitions") == ()


def test_a_task_more_changes_no_other_tasks_interval():
    more = noisy_rows({"one": (0.0, 0.1, None)}, ["run", "swim"])
    alone = board([row for row in more if row.task == "run"]).headline
    among = next(one for one in board(more).by("task") if one.of["task"] == "run")
    assert among.standings == alone.standings

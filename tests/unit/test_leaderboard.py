"""Who stands where, by numbers that can be had by hand."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from standing_rows import bench_row, noisy_rows, rows_of

import lfiw_ope as ope
from lfiw_ope.bench.leaderboard import Leaderboard
from lfiw_ope.bench.measures import MEASURES


def board(rows, resamples=50, **settings):
    return Leaderboard.of(rows, resamples=resamples, **settings)


def measured(found, estimator, part=None):
    """Values by the names of their measures."""
    standing = (part or found.headline).standing(estimator)
    return {name: of.value for name, of in standing.measured.items()}


def order(found):
    return [one.estimator for one in found.headline.standings]


RIGHT, TURNED = (1.0, 6.0, 11.0), (10.0, 5.0, 0.0)


def test_estimates_that_differ_by_rounding_have_no_order():
    rows = rows_of({"same": (4.0, 4.0, 4.0), "nearly": (4.0, 4.0 + 1e-14, 4.0 + 1e-13)})
    found = board(rows)
    for name in ("rank_correlation", "regret", "won"):
        assert measured(found, "nearly")[name] == measured(found, "same")[name], name
    assert measured(found, "nearly")["rank_correlation"] == 0.0
    told = board(rows_of({"nearly": (4.0, 4.0 + 1e-6, 4.0 + 2e-6), "far": (1e300, 2.0, 3.0)}))
    assert measured(told, "nearly")["rank_correlation"] == 1.0
    assert measured(told, "far")["rank_correlation"] == -0.5


def test_each_measure_of_one_unit():
    rows = rows_of({"right": RIGHT}, low=0.5, high=5.5) + rows_of({"turned": TURNED})
    found = board(rows)
    # Truths are 0, 5, 10, the scale 10, and the log's mean return 4.
    constant = np.sqrt((16 + 1 + 36) / 3) / 10
    assert measured(found, "right") == pytest.approx(
        {
            "error": 0.1,
            "gain": constant - 0.1,
            "kept_error": 0.1,
            "rank_correlation": 1.0,
            "regret": 0.0,
            "coverage": 1 / 3,
            "width": 0.5,
            "intervals": 1.0,
            "answered": 1.0,
            "refused": 0.0,
            "failed": 0.0,
            "won": 2 / 3,
            "seconds": 2.0,
        },
        rel=1e-5,
    )
    turned = measured(found, "turned")
    assert turned["error"] == pytest.approx(np.sqrt(200 / 3) / 10, rel=1e-5)
    assert (turned["rank_correlation"], turned["regret"]) == (-1.0, 1.0)
    assert turned["won"] == pytest.approx(1 / 3, rel=1e-5)
    assert (turned["coverage"], turned["width"], turned["intervals"]) == (None, None, 0.0)
    assert set(turned) == set(MEASURES)
    assert order(found) == ["right", "turned"]
    assert found.headline.standing("turned").behind.value == pytest.approx(
        np.sqrt(200 / 3) / 10 - 0.1, rel=1e-5
    )


def test_errors_are_averaged_over_units_and_shares_over_cells():
    rows = rows_of({"one": (1.0, 6.0, 11.0)}, low=0.0, high=10.0)
    rows += rows_of({"one": (3.0, 8.0)}, seed=1)
    found = measured(board(rows), "one")
    assert found["error"] == pytest.approx((0.1 + 0.3) / 2)
    assert found["coverage"] == 1.0
    assert found["intervals"] == pytest.approx(3 / 5)


def test_an_interval_now_and_then_is_no_good_coverage():
    """One gives three, the other one, and all hold the truth."""
    rows = rows_of({"often": (1.0, 6.0, 11.0)}, low=0.0, high=10.0)
    rows += [
        bench_row("rarely", "a", 1.0, 0.0, low=0.0, high=10.0),
        *rows_of({"rarely": (None, 6.0, 11.0)})[1:],
    ]
    found = board(rows).headline
    assert [found.standing(name).measured["coverage"].value for name in ("often", "rarely")] == [
        1.0,
        1.0,
    ]
    assert found.standing("often").measured["coverage"].best
    assert not found.standing("rarely").measured["coverage"].best


def test_a_missing_answer_counts_as_the_mean_return_of_the_log():
    found = board(rows_of({"one": (1.0, None, 11.0)}))
    of = measured(found, "one")
    # 4 stands in for the second, whose truth is 5.
    assert of["error"] == pytest.approx(0.1)
    assert (of["answered"], of["failed"]) == pytest.approx((2 / 3, 1 / 3), rel=1e-5)
    assert of["won"] == pytest.approx(2 / 3, rel=1e-5)
    far = measured(board(rows_of({"one": (None, 6.0, 11.0)})), "one")
    assert far["error"] == pytest.approx(np.sqrt((16 + 1 + 1) / 3) / 10, rel=1e-5)
    assert far["kept_error"] == pytest.approx(0.1)


def test_a_refused_answer_counts_as_what_it_would_have_been():
    kept = [
        *rows_of({"one": (1.0, 6.0)}),
        bench_row("one", "c", 13.0, 10.0, status="refused", reason="Far."),
    ]
    of = measured(board(kept), "one")
    assert of["error"] == pytest.approx(np.sqrt((1 + 1 + 9) / 3) / 10, rel=1e-5)
    assert of["kept_error"] == pytest.approx(0.1)
    assert (of["refused"], of["failed"]) == pytest.approx((1 / 3, 0.0), rel=1e-5)
    without = [*kept[:2], replace(kept[2], row=replace(kept[2].row, value=None))]
    of = measured(board(without), "one")
    assert of["error"] == pytest.approx(np.sqrt((1 + 1 + 36) / 3) / 10, rel=1e-5)
    assert (of["refused"], of["failed"], of["answered"]) == pytest.approx(
        (1 / 3, 0.0, 2 / 3), rel=1e-5
    )


def test_who_keeps_silent_does_not_win():
    hopeless = (100.0, -100.0, 100.0)
    found = board(rows_of({"bad": hopeless, "mute": (None, None, None)}))
    assert order(found) == ["bad", "mute"]
    ranks = {one.estimator: one.rank for one in found.headline.standings}
    assert ranks == {"bad": 1, "mute": None}
    assert not any(of.best for of in found.headline.standing("mute").measured.values())
    # Right where it speaks, and silent on the hard one, it is behind who is fair everywhere.
    shy = {"shy": (0.1, 5.1, None), "fair": (1.0, 6.0, 11.0)}
    assert order(board(rows_of(shy))) == ["fair", "shy"]
    assert measured(board(rows_of(shy)), "shy")["kept_error"] == pytest.approx(0.01)


def test_an_estimator_alone():
    found = board(rows_of({"one": RIGHT}))
    (standing,) = found.headline.standings
    assert (standing.rank, standing.behind.value) == (1, 0.0)
    assert standing.measured["won"].value == 1.0
    assert standing.measured["error"].best
    # All resamples of equal errors say the same.
    assert standing.measured["error"].low is None
    assert standing.measured["gain"].low is not None


def test_equal_estimates_share_cells_and_ranks():
    found = board(rows_of({"b": RIGHT, "a": RIGHT, "c": (3.0, 8.0, 13.0)}))
    assert [(one.estimator, one.rank) for one in found.headline.standings] == [
        ("a", 1),
        ("b", 1),
        ("c", 3),
    ]
    assert measured(found, "a")["won"] == measured(found, "b")["won"] == 0.5
    assert found.headline.standing("b").measured["error"].best
    assert not found.headline.standing("c").measured["error"].best


def test_a_constant_tells_no_order():
    of = measured(board(rows_of({"constant": (4.0, 4.0, 4.0)})), "constant")
    assert (of["rank_correlation"], of["gain"]) == (0.0, 0.0)
    assert of["regret"] == pytest.approx(0.5)


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


def test_the_order_of_the_rows_is_of_no_account():
    rows = noisy_rows({"one": (0.0, 0.1, 0.1), "two": (0.1, 0.1, None)}, ["run", "swim"])
    mixed = random.Random(0).sample(rows, len(rows))
    assert board(mixed) == board(rows)


def test_a_task_more_changes_no_other_tasks_interval():
    more = noisy_rows({"one": (0.0, 0.1, None)}, ["run", "swim"])
    alone = board([row for row in more if row.task == "run"]).headline
    among = next(one for one in board(more).by("task") if one.of["task"] == "run")
    assert among.standings == alone.standings


def test_json_gives_the_same_leaderboard_again():
    rows = noisy_rows({"one": (0.0, 0.1, 0.1), "two": (0.1, 0.1, None)}, ["run", "swim"])
    rows += rows_of({"one": (None,), "two": (None,)}, (3.0,), task="pole")
    found = board(rows, about={"suite": "own", "settings": {"updates": 10}})
    text = found.to_json()

    def refuse(name):
        raise AssertionError(name)

    json.loads(text, parse_constant=refuse)
    assert Leaderboard.from_json(text) == found
    for wrong in ("{}", '{"slices": [{}]}', '{"slices": 3}'):
        with pytest.raises(ope.DataError, match="no stored"):
            Leaderboard.from_json(wrong)


def test_units_that_are_not_finished_are_left_out():
    rows = rows_of({"one": RIGHT, "two": TURNED})
    rows += rows_of({"one": RIGHT, "two": TURNED}, seed=1)[:-1]
    found = board(rows)
    assert (found.units, found.left_out, found.headline.cells) == (1, 1, 3)
    with pytest.raises(ope.DataError, match="no unit of which every estimator has a row"):
        board(rows_of({"one": RIGHT, "two": TURNED})[:-1])
    with pytest.raises(ope.DataError, match="no unit"):
        board([])


def test_rows_that_nothing_can_be_made_of():
    rows = rows_of({"one": RIGHT})
    with pytest.raises(ope.DataError, match=r"one on a in swim, medium, .* is there twice"):
        board([*rows, rows[0]])
    with pytest.raises(ope.DataError, match="no true value"):
        board([bench_row("one", "a", 1.0, None)])
    with pytest.raises(ope.DataError, match=r"the scale 0\.0"):
        board([bench_row("one", "a", 1.0, 1.0, scale=0.0)])
    with pytest.raises(ope.ConfigError, match="resamples is -1"):
        board(rows, -1)
    with pytest.raises(ope.ConfigError, match="level is 1"):
        board(rows, level=1.0)


def test_what_rounds_to_nothing_has_no_sign():
    assert [MEASURES[name].text(-1e-9) for name in ("regret", "gain", "won")] == [
        "0.00",
        "+0.000",
        "0%",
    ]
    assert MEASURES["gain"].text(-0.0126) == "-0.013"

"""Who stands where, by numbers that can be had by hand."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from standing_rows import RIGHT, TURNED, bench_row, board, measured, noisy_rows, order, rows_of

import lfiw_ope as ope
from lfiw_ope.benchmark import MEASURES, Leaderboard, as_markdown
from lfiw_ope.stats import metrics


def test_estimates_that_differ_by_rounding_have_no_order():
    rows = rows_of({"same": (4.0, 4.0, 4.0), "nearly": (4.0, 4.0 + 1e-14, 4.0 + 1e-13)})
    found = board(rows)
    for name in ("rank_correlation", "regret", "won"):
        assert measured(found, "nearly")[name] == measured(found, "same")[name], name
    assert measured(found, "nearly")["rank_correlation"] == 0.0
    told = board(rows_of({"nearly": (4.0, 4.0 + 1e-6, 4.0 + 2e-6), "far": (1e300, 2.0, 3.0)}))
    assert measured(told, "nearly")["rank_correlation"] == 1.0
    assert measured(told, "far")["rank_correlation"] == -0.5


def test_where_there_is_nothing_to_choose_there_is_no_regret():
    """One policy alone is always the best: of it a regret of 0 would say what nobody did."""
    whole = rows_of({"right": RIGHT, "turned": TURNED})
    first = whole[0].row.policy
    alone = [replace(row, supported=row.row.policy == first) for row in whole]
    supported, unsupported = board(alone).by("support")
    for name in ("right", "turned"):
        assert supported.standing(name).measured["regret"].value is None
        assert supported.standing(name).measured["rank_correlation"].value is None
    assert unsupported.standing("right").measured["regret"].value == 0.0
    assert unsupported.standing("turned").measured["regret"].value == 0.5


def test_a_regret_that_is_rounding_is_none():
    """The mean of three times 0.1 is 0.1 + 2e-17 in binary, and their regret would be below 0."""
    truths = (0.1, 0.1, 0.1, 0.0)
    assert 0.1 - sum(truths) / 3 < 0.0
    assert metrics.expected_regret((1.0, 1.0, 1.0, 0.0), truths) == 0.0
    found = board(rows_of({"best": (1.0, 1.0, 1.0, 0.0)}, truths))
    assert measured(found, "best")["regret"] == 0.0


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
            "near": 1.0,
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
    assert turned["near"] == pytest.approx(1 / 3, rel=1e-5)
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
    assert of["won"] == of["near"] == pytest.approx(2 / 3, rel=1e-5)
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
    assert of["near"] == pytest.approx(2 / 3, rel=1e-5)
    close = [*kept[:2], replace(kept[2], row=replace(kept[2].row, value=10.5))]
    assert measured(board(close), "one")["near"] == 1.0
    assert (of["refused"], of["failed"]) == pytest.approx((1 / 3, 0.0), rel=1e-5)
    without = [*kept[:2], replace(kept[2], row=replace(kept[2].row, value=None))]
    of = measured(board(without), "one")
    assert of["error"] == pytest.approx(np.sqrt((1 + 1 + 36) / 3) / 10, rel=1e-5)
    assert (of["refused"], of["failed"], of["answered"]) == pytest.approx(
        (1 / 3, 0.0, 2 / 3), rel=1e-5
    )


def test_an_explosion_counts_once_where_shares_are_told():
    near = (1.0, 6.0, 10.9)
    found = board(rows_of({"fair": near, "wild": (*near[:2], 1e9)}))
    fair, wild = (measured(found, name) for name in ("fair", "wild"))
    assert (fair["near"], wild["near"]) == pytest.approx((1.0, 2 / 3), rel=1e-5)
    assert wild["error"] > 1e6 * fair["error"]
    # A tenth of the range, and not more.
    off = board(rows_of({"off": (1.01, 6.01, 11.01)}))
    assert measured(off, "off")["near"] == 0.0
    assert found.headline.standing("fair").measured["near"].best


def test_the_largest_numbers_that_there_are_take_nobody_s_leaderboard():
    huge = rows_of({"huge": (1e308, -1e308, 1e200), "fair": (1.0, 6.0, 11.0)})
    found = board(huge)
    assert order(found) == ["fair", "huge"]
    of = measured(found, "huge")
    assert of["error"] == pytest.approx(1e149, rel=1e-5)
    assert of["rank_correlation"] == pytest.approx(0.0, abs=1e-9)


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


def test_a_task_that_is_all_supported_stands_beside_one_that_is_not():
    rows = rows_of({"right": RIGHT}) + [
        replace(row, task="run", supported=row.row.policy == "a")
        for row in rows_of({"right": TURNED})
    ]
    found = board(rows)
    told = [(one.of["task"], one.of["support"], one.cells) for one in found.by("task", "support")]
    assert told == [("run", "supported", 1), ("run", "unsupported", 2), ("swim", "supported", 3)]
    page = as_markdown(found)
    assert "### By task and support" in page
    assert "### By task and data set" not in page  # which is by task
    one = board([row for row in rows if row.task == "run"])
    assert (one.by("task"), one.by("task", "support")) == ((), ())
    assert "### By support" in as_markdown(one)


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


def test_the_order_of_the_rows_is_of_no_account():
    rows = noisy_rows({"one": (0.0, 0.1, 0.1), "two": (0.1, 0.1, None)}, ["run", "swim"])
    mixed = random.Random(0).sample(rows, len(rows))
    assert board(mixed) == board(rows)


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
    whole = rows_of({"one": RIGHT, "two": TURNED})
    for field in ("scale", "behaviour", "support", "truth_error"):
        odd = [*whole[:-1], replace(whole[-1], **{field: 0.25})]
        with pytest.raises(ope.DataError, match=f"two on .* says that its {field} is 0.25, and"):
            board(odd)
    with pytest.raises(ope.DataError, match="its purpose is development, and another row of it"):
        board([*whole[:-1], replace(whole[-1], purpose="development")])
    with pytest.raises(ope.DataError, match="its truth is 7"):
        board([*whole[:-1], replace(whole[-1], row=whole[-1].row.told(7.0))])
    board([*whole[:-1], replace(whole[-1], behaviour=whole[-1].behaviour * (1 + 1e-9))])
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


def test_what_has_exploded_has_no_decimals():
    """1303.000 would say more than is kept of it, six digits."""
    said = [MEASURES["error"].text(one) for one in (99.98, 100.2, 1303.0, 12345.0)]
    assert said == ["99.980", "100", "1303", "1.2e+04"]
    assert [MEASURES["gain"].text(one) for one in (959.4, -959.4)] == ["+959", "-959"]
    assert MEASURES["near"].text(1.0) == "100%"

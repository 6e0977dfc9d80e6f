"""What a comparison reads from its rows."""

import json
from dataclasses import replace

import numpy as np
import pytest

import lfiw_ope as ope
from lfiw_ope.estimators import BehaviourReturn
from lfiw_ope.evaluation import (
    new_figure,
    plot_against_truth,
    plot_errors,
    plot_scores,
    plot_values,
)

POLICIES, TRUTH = ("a", "b", "c"), {"a": 0.0, "b": 1.0, "c": 2.0}


def row(estimator, policy, seed, value, **fields):
    status = "ok" if value is not None else "failed"
    return ope.Row(
        estimator=estimator, policy=policy, seed=seed, status=status, value=value, **fields
    )


def comparison(rows, truth=TRUTH):
    behaviour = BehaviourReturn(0.5, None, 10, 0, 5)
    return ope.Comparison(tuple(rows), ope.Estimand(5), None, behaviour).with_truth(truth)


def right_and_wrong():
    """One estimator that ranks rightly by both seeds, and one that does by one."""
    rows = [row("right", p, s, TRUTH[p] + 0.1 + 0.2 * s) for s in (0, 1) for p in POLICIES]
    rows += [row("half", p, s, (1 - 2 * s) * TRUTH[p]) for s in (0, 1) for p in POLICIES]
    return comparison(rows)


def test_metrics_are_means_over_seeds():
    found = right_and_wrong()
    errors = {s.estimator: s.value for s in found.summary(["absolute error"])}
    assert errors == pytest.approx({"right": (0.1 + 0.3) / 2, "half": (0 + 2) / 2})
    ranks = found.rank_correlation()
    assert ranks["right"].value == 1.0
    assert ranks["half"].value == 0.0
    assert found.regret()["half"].value == (0 + 2) / 2
    assert found.precision(2)["half"].value == (1 + 0.5) / 2
    spread = {s.estimator: s.value for s in found.summary(["seed spread"])}
    assert spread["right"] == pytest.approx(0.2 / np.sqrt(2))


def test_intervals_are_over_policies_and_seeds():
    found = right_and_wrong()
    by_name = {s.estimator: s for s in found.summary(["absolute error"], resamples=2000)}
    # Of "right" policies are all alike: only seeds vary, and two of them give 0.1, 0.2 or 0.3.
    assert (by_name["right"].low, by_name["right"].high) == pytest.approx((0.1, 0.3))
    assert str(by_name["right"]) == "right: absolute error 0.2 [0.1, 0.3]"
    half = by_name["half"]
    assert half.low == 0.0
    assert half.high > 2.0
    assert found.summary(["absolute error"]) == found.summary(["absolute error"])
    other = found.summary(["Kendall"], seed=1)
    assert {(s.policies, s.seeds) for s in other} == {(3, 2)}
    assert all(s.low is None for s in found.summary(resamples=0))
    narrow = found.summary(["absolute error"], level=0.5, resamples=2000)
    assert narrow[1].high - narrow[1].low < half.high - half.low


def test_resamples_that_all_say_the_same_are_no_interval():
    rows = [row("one", p, s, TRUTH[p] + 0.1) for s in (0, 1) for p in POLICIES]
    scores = comparison(rows).summary(["Spearman", "absolute error"])
    assert [score.value for score in scores] == pytest.approx([1.0, 0.1])
    assert all((score.low, score.high) == (None, None) for score in scores)
    rows = [row("one", "a", s, float(s)) for s in range(3)]
    (spread,) = comparison(rows).summary(["seed spread"])
    assert (spread.value, spread.low) == (1.0, None)


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(ope.ConfigError, match="threshold is nan"):
        right_and_wrong().summary(["type I error"], threshold=float("nan"))


def test_the_bootstrap_is_as_wide_as_the_errors_spread():
    # Errors |N(0, 1)| of 400 policies, one seed: their mean has standard error √(1 − 2/π) / 20.
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(400)]
    truth = dict.fromkeys(names, 0.0)
    rows = [
        row("one", name, 0, float(e)) for name, e in zip(names, rng.normal(size=400), strict=True)
    ]
    (score,) = comparison(rows, truth).summary(["absolute error"], resamples=2000)
    width = 2 * 1.96 * np.sqrt(1 - 2 / np.pi) / 20
    # Ends of 2000 resamples' percentiles and the sample's own spread are each good to 5 %.
    assert score.high - score.low == pytest.approx(width, rel=0.15)


def test_failed_rows_are_left_out_and_counted():
    rows = [row("one", p, s, TRUTH[p]) for s in (0, 1) for p in POLICIES]
    rows[4] = row("one", "b", 1, None, reason="it diverged")
    rows += [row("never", p, s, None, reason="no density") for s in (0, 1) for p in POLICIES]
    found = comparison(rows)
    one, never = found.summary(["Spearman"])
    assert (one.policies, one.seeds, one.value) == (2, 2, 1.0)
    assert (never.policies, never.seeds, never.value) == (0, 0, None)
    text = found.text()
    assert "5/6" in text
    assert "one, failed 1 time: it diverged" in text
    assert "never, failed 6 times: no density" in text


def test_coverage_counts_intervals_that_hold_the_truth():
    rows = [row("one", p, 0, 1.0, low=0.5, high=1.5) for p in POLICIES]
    rows.append(row("one", "d", 0, 1.0))
    found = comparison(rows, {**TRUTH, "d": 1.0})
    scores = {s.metric: s.value for s in found.summary(["coverage", "interval width"])}
    assert scores == {"coverage": pytest.approx(1 / 3), "interval width": 1.0}
    assert [r.covers for r in found.rows] == [False, True, False, None]


def test_type_one_error_by_lower_bound_is_the_intervals():
    rows = [
        row("one", p, 0, 3.0, low=low, high=9.0)
        for p, low in zip("abc", (0.2, 1.5, 2.0), strict=True)
    ]
    scores = comparison(rows).summary(
        ["type I error", "type I error by lower bound"], threshold=1.5
    )
    # a and b are worse than 1.5, and only b's interval lets it pass; estimates let both.
    assert [s.value for s in scores] == [1.0, 0.5]
    without = comparison([replace(rows[0], low=None), *rows[1:]])
    assert without.summary(["type I error by lower bound"])[0].value is None


def test_without_truth_what_remains_is_agreement_and_spread():
    found = right_and_wrong().with_truth(None)
    assert {s.metric for s in found.summary()} == {"interval width", "mean value", "seed spread"}
    with pytest.raises(ope.ConfigError, match="needs true values"):
        found.rank_correlation()
    with pytest.raises(ope.ConfigError, match="must be one of"):
        found.summary(["speerman"])
    agreed = comparison(
        [row(name, p, 0, sign * TRUTH[p]) for name, sign in (("x", 1), ("y", -2)) for p in POLICIES]
        + [row("constant", p, 0, 1.0) for p in POLICIES],
        None,
    ).agreement()
    assert agreed["x"] == {"x": 1.0, "y": -1.0, "constant": None}
    assert "seed spread" in found.text()


def test_json_and_frame_hold_all_of_it():
    rows = [row("one", "a", 0, 1.0, low=0.5, high=1.5, ess=3.0, warnings=("beware",), seconds=0.25)]
    rows.append(row("one", "b", 0, None, reason="it diverged"))
    found = comparison(rows)
    again = ope.Comparison.from_json(found.to_json())
    assert again == found
    frame = found.frame
    assert list(frame["truth"]) == [0.0, 1.0]
    assert list(frame["status"]) == ["ok", "failed"]
    for text in ("{", "{}", json.dumps({**json.loads(found.to_json()), "rows": [{"x": 1}]})):
        with pytest.raises(ope.DataError):
            ope.Comparison.from_json(text)


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "to" / "table.json"
    found = right_and_wrong()
    found.to_json(path)
    assert ope.Comparison.from_json(path.read_text(encoding="utf-8")) == found
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]


def test_figures_draw_on_the_axes_they_are_given():
    found = right_and_wrong()
    ax = new_figure(5, 4).subplots()
    assert found.plot(ax) is ax
    shown = [line for line in ax.lines if len(line.get_xdata()) == 6]
    assert len(shown) == 2  # an estimator each, of 6 rows
    for draw in (plot_against_truth, plot_errors, plot_values):
        ax = new_figure(5, 4).subplots()
        assert draw(ax, found.rows) is ax
    ax = new_figure(5, 4).subplots()
    plot_scores(ax, list(found.rank_correlation().values()))
    assert "Spearman" in ax.get_xlabel()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["right", "half"]
    ax = new_figure(5, 4).subplots()
    assert found.with_truth(None).plot(ax).get_xlabel() == ""


def test_an_estimate_that_is_not_finite_is_a_failure():
    one = ope.Estimate(estimator="x", estimand=ope.Estimand(1), value=float("nan"), seed=0)
    assert ope.Row.of(one, "x", "p", 0).status == "failed"
    known = replace(one, value=1.0, standard_error=float("inf"))
    assert ope.Row.of(known, "x", "p", 0).standard_error is None

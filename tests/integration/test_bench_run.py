"""A suite on real CartPole: side by side, killed, gone on with, and with a broken estimator."""

import csv
import json
import re
import time
from dataclasses import replace

import benching
import numpy as np
import pytest
import torch

import lfiw_ope as ope
from lfiw_ope.benchmark import BenchResults, dataset, run_suite, trials
from lfiw_ope.estimators import Options
from lfiw_ope.evaluation import runner as judging
from lfiw_ope.stats import Interval

cached, policies = benching.cached, benching.policies


def test_rows_are_those_of_a_comparison_beside_what_is_known(policies, tmp_path):
    suite = benching.suite(policies, seeds=(3,), data=("mixed",), policies=2)
    found = run_suite(suite, output=tmp_path / "out", command="as typed")
    (ladder,) = suite.ladders
    targets = {name: ope.load_actor(ladder.policy_path(name)) for name in ("falls", "holds")}
    estimand = ope.Estimand(20)
    alone = ope.compare(
        {"behaviour": ope.BehaviourMean(estimand), "pdis": ope.PDIS(estimand)},
        dataset(ladder, "mixed", 200, 3),
        targets,
        {name: benching.TRUTHS[name] for name in targets},
        seeds=(3,),
    )
    mine = [row for row in found.rows if row.row.estimator in ("behaviour", "pdis")]
    values = [(row.row.estimator, row.row.policy, row.row.value, row.row.truth) for row in mine]
    assert values == [(row.estimator, row.policy, row.value, row.truth) for row in alone.rows]
    assert {row.behaviour for row in mine} == {alone.behaviour.mean}
    first = mine[0]
    assert (first.task, first.purpose, first.data) == ("short_pole", "report", "mixed")
    assert (first.support, first.supported) == (0.3, False)
    assert first.truth_error == 0.1

    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (stored["suite"], stored["command"]) == ("quick", "as typed")
    assert BenchResults.from_dict(stored) == found
    with (tmp_path / "out" / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["value"]) for line in lines] == [row.row.value for row in found.rows]


def test_two_processes_give_the_table_of_one(policies, tmp_path):
    one = benching.run(policies, tmp_path / "one")
    two = run_suite(benching.suite(policies), output=tmp_path / "two", jobs=2)
    assert benching.table(one) == benching.table(two)
    assert (two.finished, two.trials) == (4, 4)


def test_an_estimator_that_fails_is_a_row_and_is_tried_again(policies, tmp_path, monkeypatch):
    fits = tmp_path / "fits"
    monkeypatch.setenv("BENCHING_FITS", str(fits))
    names = ("benching:Broken", "wis", "benching:Counting")
    suite = benching.suite(policies, estimators=names, data=("noise",))
    found = run_suite(suite, output=tmp_path / "out")
    status = {(row.row.estimator, row.row.status) for row in found.rows}
    assert status == {("Broken", "failed"), ("wis", "ok"), ("Counting", "ok")}
    assert all("ZeroDivisionError" in row.row.reason for row in found.rows if row.row.reason)
    told = []
    again = run_suite(
        suite, output=tmp_path / "out", resume=True, progress=lambda *said: told.append(said)
    )
    assert benching.table(again) == benching.table(found)
    assert fits.read_text().split() == ["0", "1"]  # what was finished is not done again
    done = [said for said in told if said[0] == "bench"]
    assert [said[1:3] for said in done] == [(5, 6), (6, 6)]
    assert all("Broken" in said[3] for said in done)


@pytest.mark.parametrize("own", ["Scribbling", "Unsettling"])
def test_what_an_own_estimator_does_to_log_policies_or_torch_reaches_no_other(
    policies, tmp_path, own
):
    names, options = ("behaviour", "wis", "fqe"), {"fqe": Options(updates=3)}
    suite = benching.suite(
        policies, estimators=names, data=("mixed",), seeds=(0,), policies=2, options=options
    )
    alone = run_suite(suite, output=tmp_path / "alone")
    suite = replace(suite, estimators=(f"benching:{own}", *names))
    threads = torch.get_num_threads()
    beside = run_suite(suite, output=tmp_path / "beside")
    others = [row for row in benching.table(beside) if row["estimator"] in names]
    assert others == benching.table(alone)
    assert all(row["status"] == "ok" for row in others)
    assert [row.row.value for row in beside.rows if row.row.estimator == own]
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["Leaving", "LeavingLate"])
def test_an_own_estimator_that_ends_the_program_is_a_row(policies, tmp_path, name):
    names = (f"benching:{name}", "behaviour")
    suite = benching.suite(policies, estimators=names, data=("noise",), seeds=(0,))
    found = run_suite(suite, output=tmp_path / "out")
    reasons = {row.row.estimator: row.row.reason for row in found.rows}
    assert "SystemExit: 3" in reasons[name]
    assert not reasons["behaviour"]


@pytest.mark.parametrize(
    ("field", "content", "said"),
    [
        ("value", None, "value is None; expected a number"),
        ("value", np.array([1.0]), r"value is array\(\[1.\]\); expected a number"),
        ("value", "7", "value is '7'; expected a number"),
        ("value", 1 + 2j, r"value is \(1\+2j\); expected a number"),
        ("standard_error", "1", "standard error is '1'; expected a number"),
        ("warnings", None, "warnings are None; expected a tuple of str"),
        ("warnings", "oh no", "warnings are 'oh no'; expected a tuple of str"),
        ("warnings", (ValueError("a"),), "warnings are .*; expected a tuple of str"),
        ("intervals", (("a", 1, 2),), "intervals are .*; expected a tuple of Interval"),
        ("intervals", (Interval(0.95, "a", 2.0, "t"),), "interval is 'a'; expected a number"),
    ],
)
def test_what_no_row_can_hold_is_a_failure(policies, tmp_path, monkeypatch, field, content, said):
    monkeypatch.setattr(benching.Odd, "field", field)
    monkeypatch.setattr(benching.Odd, "content", content)
    names = ("benching:Odd", "behaviour")
    suite = benching.suite(policies, estimators=names, data=("noise",), seeds=(0,), policies=2)
    found = run_suite(suite, output=tmp_path / "out")
    status = {row.row.estimator: row.row.status for row in found.rows}
    assert status == {"Odd": "failed", "behaviour": "ok"}
    assert re.fullmatch(f"TypeError: the estimate's {said}", found.rows[0].row.reason)


def test_an_estimator_that_goes_elsewhere_takes_no_results_along(policies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("BENCHING_ELSEWHERE", str(tmp_path / "elsewhere"))
    suite = benching.suite(policies, estimators=("benching:Wandering",), seeds=(0,))
    run_suite(suite, output="out")
    assert (tmp_path / "out" / "results.json").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_cannot_be_sent_is_refused_before_there_is_a_folder(policies, tmp_path):
    suite = benching.suite(policies, estimators=("benching:Unsendable",))
    with pytest.raises(ope.ConfigError, match="'Unsendable' cannot be sent to another process"):
        run_suite(suite, output=tmp_path / "out", jobs=2)
    assert not (tmp_path / "out").exists()
    assert len(run_suite(suite, output=tmp_path / "out").rows) == 16


def test_results_of_more_trials_stay_until_another_estimator_has_caught_up(policies, tmp_path):
    suite = benching.suite(policies, estimators=("behaviour",))
    done = run_suite(suite, output=tmp_path / "out")
    seen = []

    def look(*said):
        if said[0] == "bench":
            stored = BenchResults.read(tmp_path / "out" / "results.json")
            seen.append((said[1], stored.finished, len(stored.rows)))

    more = replace(suite, estimators=("behaviour", "wis"))
    found = run_suite(more, output=tmp_path / "out", resume=True, progress=look)
    assert seen == [(5, 4, 16), (6, 4, 16), (7, 4, 16), (8, 4, 32)]
    assert (len(done.rows), len(found.rows)) == (16, 32)


def test_a_log_made_by_other_versions_is_another_and_it_is_said(policies, tmp_path):
    suite = benching.suite(policies, estimators=("wis",), seeds=(0,), data=("noise",))
    run_suite(suite, output=tmp_path / "out")
    (place,) = (tmp_path / "out").glob("units/*/run.json")
    told = json.loads(place.read_text())
    numpy = told["run"]["made_with"]["numpy"]
    told["run"] |= {"data": "other", "made_with": told["run"]["made_with"] | {"numpy": "0.1"}}
    place.write_text(json.dumps(told))
    with pytest.raises(
        ope.ConfigError,
        match=rf"\(called short_pole-.* too, and made with numpy 0.1, now {numpy}\)",
    ):
        run_suite(suite, output=tmp_path / "out", resume=True)
    del told["run"]["made_with"]
    place.write_text(json.dumps(told))
    with pytest.raises(ope.ConfigError, match="too, and made by other policies, packages"):
        run_suite(suite, output=tmp_path / "out", resume=True)


@pytest.mark.parametrize("state", ["raises", "nan"])
def test_what_failed_of_ones_own_is_tried_again(policies, tmp_path, monkeypatch, state):
    monkeypatch.setenv("BENCHING_STATE", state)
    names = ("benching:Mended", "behaviour")
    suite = benching.suite(policies, estimators=names, data=("noise",), seeds=(0,))
    found = run_suite(suite, output=tmp_path / "out")
    failed = [row.row for row in found.rows if row.row.status == "failed"]
    assert {row.estimator for row in failed} == {"Mended"}
    assert {row.reason for row in failed} == {
        {"raises": "it is not ready", "nan": "The estimate is nan."}[state]
    }
    monkeypatch.setenv("BENCHING_STATE", "ready")
    again = run_suite(suite, output=tmp_path / "out", resume=True)
    assert {row.row.status for row in again.rows} == {"ok"}


def test_settings_are_told_of_the_estimators_that_have_them(policies, tmp_path, monkeypatch):
    monkeypatch.setattr(benching, "wis", benching.Mine, raising=False)
    options = {"wis": Options(updates=7), "pdis": Options(updates=8)}
    names = ("benching:wis", "pdis")
    suite = benching.suite(policies, estimators=names, data=("noise",), options=options)
    found = run_suite(suite, output=tmp_path / "out")
    assert found.about["settings"] == {"pdis": {"updates": 8}}
    assert found.about["own_estimators"] == ["benching:wis"]


def test_a_table_without_rows_has_its_columns(policies, tmp_path):
    found = benching.run(policies, tmp_path / "out")
    some = (tmp_path / "out" / "results.csv").read_text()
    replace(found, rows=()).save(tmp_path)
    assert (tmp_path / "results.csv").read_text() == some.splitlines(keepends=True)[0]


def test_the_value_of_another_estimand_is_no_answer(policies, tmp_path):
    suite = benching.suite(policies, estimators=("benching:Elsewhere",), seeds=(0,))
    found = run_suite(suite, output=tmp_path / "out")
    assert {row.row.status for row in found.rows} == {"failed"}
    asked, given = ope.Estimand(20), ope.Estimand(3)
    reason = f"ValueError: estimate gave {given}; expected the value of {asked}"
    assert {row.row.reason for row in found.rows} == {reason}


def test_refused_rows_keep_their_numbers(policies, tmp_path, monkeypatch):
    def quickly(*arguments, **settings):
        fit = ope.FitConfig(updates=2, evaluate_every=1)
        quick = ope.DiagnosisConfig(transitions=40, neighbours=5, hidden=(2,), fit=fit)
        return ope.diagnose(*arguments, config=quick, **settings)

    monkeypatch.setattr(judging, "diagnose", quickly)
    strict = ope.Thresholds(least_ess=1e9)
    suite = benching.suite(policies, refuse=strict, seeds=(0,), data=("noise",), policies=2)
    found = run_suite(replace(suite, estimators=("behaviour", "wis")), output=tmp_path / "out")
    rows = {row.row.estimator: row.row for row in found.rows}
    assert (rows["behaviour"].status, rows["wis"].status) == ("ok", "refused")
    assert rows["wis"].value is not None
    assert rows["wis"].answer is None
    assert rows["wis"].ess is not None
    assert "fewer than" in rows["wis"].reason
    assert rows["wis"].judging_seconds > rows["wis"].seconds  # the look is not the estimator's


def test_a_log_that_cannot_be_had_leaves_its_trial_out(policies, tmp_path, monkeypatch):
    def short_of_memory(ladder, data, *rest):
        if data == "mixed":
            raise MemoryError("200 rows")
        return dataset(ladder, data, *rest)

    suite = benching.suite(policies, seeds=(0,), estimators=("wis",))
    with monkeypatch.context() as patch:
        patch.setattr(trials, "dataset", short_of_memory)
        found = run_suite(suite, output=tmp_path / "out")
    assert {row.data for row in found.rows} == {"noise"}
    (reason,) = found.without_log.values()
    assert list(found.without_log) == ["short_pole-mixed-200-T20-0"]
    assert reason == "There is no log: MemoryError: 200 rows"
    assert (found.finished, found.trials) == (1, 2)
    again = run_suite(suite, output=tmp_path / "out", resume=True)  # it lasts no longer than this
    assert (again.finished, dict(again.without_log)) == (2, {})


def test_a_folder_that_holds_a_run_is_gone_on_with_on_purpose_alone(policies, tmp_path):
    suite = benching.suite(policies, seeds=(0,), data=("noise",), estimators=("wis",))
    run_suite(suite, output=tmp_path / "out")
    with pytest.raises(ope.ConfigError, match="holds a benchmark; go on with it by resume=True"):
        run_suite(suite, output=tmp_path / "out")
    # Another policy under the same name is another run.
    (policies / "holds.safetensors").unlink()
    benching.ladder(policies, gains={**benching.GAINS, "holds": 9.0})
    with pytest.raises(ope.ConfigError, match="what the policy 'holds' does"):
        run_suite(suite, output=tmp_path / "out", resume=True)


def test_a_run_that_was_killed_ends_with_the_same_table(policies, processes, tmp_path):
    names = ("behaviour", "pdis", "wis", "benching:Slow")
    whole = benching.run(policies, tmp_path / "whole", estimators=names)
    out = tmp_path / "out"
    process = processes.Process(
        target=benching.run, args=(policies, out), kwargs={"estimators": names}
    )
    process.start()
    while len(list(out.glob("units/*/cells/*.json"))) < 6:
        assert process.is_alive(), f"the run ended with {process.exitcode}"
        time.sleep(0.002)
    process.kill()
    process.join()
    before = {path: path.stat().st_mtime_ns for path in out.glob("units/*/cells/*.json")}
    assert 6 <= len(before) < 16
    found = benching.run(policies, out, resume=True, estimators=names)
    assert benching.table(found) == benching.table(whole)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())

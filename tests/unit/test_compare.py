"""What `compare` makes of estimators that answer, fail and stop, and of a folder that has cells."""

import json

import comparing
import numpy as np
import pandas
import pytest
import torch
from lfiw_envs import TabularPolicy
from testbeds import log_of, tabular

import lfiw_ope as ope
from lfiw_ope.evaluation import runner as judging
from lfiw_ope.evaluation.evaluate import evaluate

E = comparing.ESTIMAND


class Failing:
    """An estimator whose `fit` or `estimate` raises."""

    estimand = E

    def __init__(self, error, when="fit"):
        self.error, self.when = error, when

    def fit(self, data, seed, *, progress=None):  # noqa: ARG002
        if self.when == "fit":
            raise self.error
        return self

    def estimate(self, policies, *, progress=None):  # noqa: ARG002
        raise self.error


@pytest.fixture(scope="module")
def inputs():
    return comparing.inputs()


def test_a_row_is_what_the_estimator_says_by_itself(inputs):
    data, policies, truth = inputs
    found = comparing.run(None)
    assert (found.policies, found.seeds) == (tuple(policies), tuple(range(comparing.SEEDS)))
    assert found.behaviour.mean == pytest.approx(data.returns(comparing.HORIZON).mean())
    rows = {(row.estimator, row.policy, row.seed): row for row in found.rows}
    assert len(rows) == len(found.rows) == 6 * 3 * comparing.SEEDS
    for name, estimator in comparing.estimators().items():
        if name == "too many folds":
            continue
        own = estimator.fit(data, seed=2).estimate(list(policies.values()))
        for policy, estimate in zip(policies, own, strict=True):
            row = rows[name, policy, 2]
            assert (row.value, row.ess) == (estimate.value, estimate.ess)
            assert (row.standard_error, row.warnings) == (
                estimate.standard_error,
                estimate.warnings,
            )
            assert row.truth == truth[policy]
            assert row.seconds > 0


def test_intervals_of_estimates_are_rows(inputs):
    data, policies, _ = inputs
    fitted = ope.PDIS(E).fit(data, 0)
    answer = fitted.estimate(policies["target 0"])
    low_high = {one.level: (one.low, one.high) for one in answer.intervals}
    row = ope.compare([ope.PDIS(E)], data, [policies["target 0"]]).rows[0]
    assert (row.low, row.high) == low_high.get(0.95, (None, None))


def test_sequences_are_named_and_made_unique(inputs):
    data, policies, _ = inputs
    found = ope.compare(
        [ope.PDIS(E), ope.PDIS(E, ope.ImportanceConfig(clip=(0, 1))), ope.BehaviourMean(E)],
        data,
        list(policies.values()),
        [1.0, 2.0, 3.0],
    )
    assert found.estimators == ("PDIS", "PDIS 2", "BehaviourMean")
    assert found.policies == ("policy 0", "policy 1", "policy 2")
    assert found.truth == {"policy 0": 1.0, "policy 1": 2.0, "policy 2": 3.0}


def test_a_pandas_series_of_true_values_is_read_by_its_names(inputs):
    data, policies, truth = inputs
    backwards = pandas.Series(truth)[::-1]
    assert ope.compare([ope.PDIS(E)], data, policies, backwards).truth == truth
    assert ope.compare([ope.PDIS(E)], data, policies, {}).truth is None


@pytest.mark.parametrize("when", ["fit", "estimate"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ope.DivergedError("It diverged."), "It diverged."),
        (MemoryError(), "MemoryError"),
        (TypeError("no such thing"), "TypeError: no such thing"),
    ],
)
def test_whatever_is_raised_is_a_row_with_its_reason(error, reason, when, inputs):
    data, policies, _ = inputs
    found = ope.compare({"bad": Failing(error, when), "good": ope.PDIS(E)}, data, policies)
    bad, good = ([r for r in found.rows if r.estimator == name] for name in ("bad", "good"))
    assert {row.status for row in good} == {"ok"}
    assert {row.status for row in bad} == {"failed"}
    assert {row.reason for row in bad} == {f"The fit failed: {reason}" if when == "fit" else reason}
    assert all(row.value is None for row in bad)


@pytest.mark.parametrize("answer", [None, 3.0, [1.0, 2.0, 3.0], []])
def test_an_answer_that_is_no_estimate_is_a_failure(answer, inputs):
    class Careless:
        estimand = E

        def fit(self, data, seed, *, progress=None):  # noqa: ARG002
            return self

        def estimate(self, policies, *, progress=None):  # noqa: ARG002
            return answer

    data, policies, _ = inputs
    found = ope.compare({"careless": Careless(), "PDIS": ope.PDIS(E)}, data, policies)
    status = {(row.estimator, row.status) for row in found.rows}
    assert status == {("careless", "failed"), ("PDIS", "ok")}


def test_an_interrupt_stops_and_what_was_finished_stays(inputs, tmp_path):
    data, policies, _ = inputs
    estimators = {"good": ope.PDIS(E), "stop": Failing(KeyboardInterrupt())}
    with pytest.raises(KeyboardInterrupt):
        ope.compare(estimators, data, policies, store=tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 1


def test_only_the_guilty_policy_fails(inputs):
    data, policies, _ = inputs
    other = TabularPolicy(np.eye(9))
    found = ope.compare([ope.PDIS(E), ope.BehaviourMean(E)], data, {**policies, "other": other})
    failed = {(row.estimator, row.policy) for row in found.rows if row.status == "failed"}
    assert failed == {("PDIS", "other"), ("BehaviourMean", "other")}
    assert all("the data have" in row.reason for row in found.rows if row.status == "failed")


def test_seconds_add_up_to_what_was_spent(inputs):
    data, policies, _ = inputs
    slow = comparing.Halved(ope.PDIS(E), pause=0.2)
    found = ope.compare([slow], data, policies)
    seconds = [row.seconds for row in found.rows]
    assert len(set(seconds)) == 1
    assert sum(seconds) >= 0.2


def test_what_the_data_cannot_tell_is_refused_as_one_evaluation_would():
    data, policies, _ = comparing.inputs(100)
    tiny = ope.FitConfig(updates=20, evaluate_every=10)
    dynamics = ope.DynamicsConfig(members=2, hidden=(8,), fit=tiny)
    model = ope.ModelBased(E, ope.ModelBasedConfig(dynamics=dynamics, rollouts=20))
    strict = ope.Thresholds(least_ess=10.0, most_disagreement=1.0, most_accuracy=1.0)
    every = {"WIS": ope.WIS(E), "model": model, "mean": ope.BehaviourMean(E)}
    policies.pop("target 2")
    found = ope.compare(every, data, policies, refuse=strict)
    looked_at = {(row.estimator, row.status): row for row in found.rows}
    for row in looked_at.values():
        arguments = data, policies[row.policy], every[row.estimator]
        if row.status == "ok":
            answer = evaluate(*arguments, seed=0, refuse=strict)
            assert row.value == pytest.approx(answer.estimate.value, rel=1e-4)
        else:
            assert (row.status, row.value, row.low, row.ess) == ("refused", None, None, None)
            with pytest.raises(ope.RefusedError) as refusal:
                evaluate(*arguments, seed=0, refuse=strict)
            assert " ".join(refusal.value.reasons) == row.reason
    status = {row.estimator: row.status for row in found.rows}
    assert status["mean"] == "ok"
    assert {row.status for row in found.rows if row.estimator == "WIS"} == {"ok", "refused"}
    assert "refused" in found.text()


def test_log_and_policies_are_looked_at_once_a_seed(inputs, monkeypatch):
    data, policies, _ = inputs
    looked = []

    def counted(data, policies, estimand, *, seed, progress):
        looked.append(seed)
        fit = ope.FitConfig(updates=2, evaluate_every=1)
        quick = ope.DiagnosisConfig(transitions=40, neighbours=5, hidden=(2,), fit=fit)
        return ope.diagnose(data, policies, estimand, config=quick, seed=seed, progress=progress)

    monkeypatch.setattr(judging, "diagnose", counted)
    every = {"WIS": ope.WIS(E), "half": comparing.Halved(ope.PDIS(E)), "mean": ope.BehaviourMean(E)}
    ope.compare(every, data, policies, seeds=(0, 1), refuse=True)
    assert looked == [0, 1]


def test_global_state_is_left_alone(inputs):
    data, policies, _ = inputs
    before = torch.get_rng_state(), torch.get_num_threads(), np.random.get_state()[1]  # noqa: NPY002
    ope.compare(comparing.estimators(), data, policies)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimators": []}, "no estimator to compare"),
        ({"estimators": {"x": ope.PDIS}}, "'x' is no estimator"),
        ({"estimators": [ope.PDIS(E), ope.PDIS(ope.Estimand(9))]}, "two things"),
        ({"policies": []}, "no policy to compare"),
        ({"truth": [1.0]}, "truth has 1 values"),
        ({"truth": {"nobody": 1.0}}, "truth names 'nobody'"),
        ({"truth": {"target 0": float("nan")}}, "truth of 'target 0' is nan"),
        ({"truth": {"target 0": None}}, "truth of 'target 0' is None"),
        ({"truth": 3.0}, "truth is 3.0"),
        ({"data": "log.npz"}, "data is a str"),
        ({"estimators": ope.PDIS(E)}, "A PDIS was given .* estimator; expected a list"),
        ({"policies": TabularPolicy(np.eye(6))}, "single one into brackets"),
        ({"policies": "agents/*.zip"}, "A str was given"),
        ({"policies": iter([])}, "expected a list"),
        ({"seeds": 3}, r"seeds is 3; .* range\(5\)"),
        ({"seeds": []}, "one whole number or more"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [-1]}, "seed is -1"),
        ({"jobs": 0}, "jobs is 0"),
        ({"engine": "dask"}, "engine is 'dask'"),
        ({"resume": True}, "no store"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_any_work(change, message, inputs):
    data, policies, _ = inputs
    untouched = Failing(AssertionError("it was fitted"))
    arguments = {"estimators": [untouched], "data": data, "policies": policies} | change
    with pytest.raises(ope.ConfigError, match=message):
        ope.compare(**arguments)


def test_a_folder_with_cells_is_refused_unless_resumed(inputs, tmp_path):
    data, policies, _ = inputs
    first = ope.compare([ope.PDIS(E)], data, policies, store=tmp_path)
    with pytest.raises(ope.ConfigError, match="resume=True"):
        ope.compare([ope.PDIS(E)], data, policies, store=tmp_path)
    told = []
    again = ope.compare(
        [ope.PDIS(E)],
        data,
        policies,
        store=tmp_path,
        resume=True,
        progress=lambda *a: told.append(a),
    )
    assert again == first  # seconds too: nothing was done
    assert told == []


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ("data", "the data"),
        ("policy", "what the policy 'target 1' does"),
        ("names", "the policies' names"),
        ("settings", "the settings of 'PDIS'"),
        ("reward", "the settings of 'model'"),
        ("refusal", "when estimates are refused"),
    ],
)
def test_another_run_is_told_by_what_differs(change, differs, inputs, tmp_path):
    data, policies, _ = inputs
    tiny = ope.FitConfig(updates=2, evaluate_every=1)
    config = ope.ModelBasedConfig(
        dynamics=ope.DynamicsConfig(members=1, hidden=(2,), fit=tiny), rollouts=2
    )

    def made(scale=1.0, clip=None):
        def reward(state, action, next_state):  # noqa: ARG001
            return scale * state[..., 0]

        model = ope.ModelBased(E, config, reward=reward)
        return {"PDIS": ope.PDIS(E, ope.ImportanceConfig(clip=clip)), "model": model}

    ope.compare(made(), data, policies, store=tmp_path)
    changed = {"data": data, "policies": policies, "estimators": made(), "refuse": False}
    if change == "data":
        truth, _, behaviour = tabular()
        changed["data"] = log_of(truth, behaviour, 40, comparing.HORIZON, seed=1)
    elif change == "policy":
        changed["policies"] = {**policies, "target 1": policies["target 0"]}
    elif change == "names":
        changed["policies"] = {"other": policies["target 0"]}
    elif change == "settings":
        changed["estimators"] = made(clip=(0, 1))
    elif change == "reward":
        changed["estimators"] = made(scale=2.0)
    else:
        changed["refuse"] = ope.Thresholds(least_ess=0.0)
    with pytest.raises(ope.ConfigError, match=differs) as caught:
        ope.compare(**changed, store=tmp_path, resume=True)
    assert str(caught.value).count("differ") == 1
    assert ";" not in str(caught.value)  # nothing else differs
    ope.compare(made(), data, policies, store=tmp_path, resume=True)  # made anew, and the same


def test_seeds_and_estimators_may_be_added(inputs, tmp_path):
    data, policies, _ = inputs
    ope.compare([ope.PDIS(E)], data, policies, seeds=(0,), store=tmp_path)
    told = []
    every = [ope.PDIS(E), ope.WIS(E)]
    found = ope.compare(
        every,
        data,
        policies,
        seeds=(0, 1),
        store=tmp_path,
        resume=True,
        progress=lambda *a: told.append(a) if a[0] == "compare" else None,
    )
    assert [done for _, done, _, _ in told] == [2, 3, 4]
    assert comparing.table(found) == comparing.table(
        ope.compare(every, data, policies, seeds=(0, 1))
    )
    # ... and what is not asked for any more is not in the table.
    assert len(ope.compare([ope.WIS(E)], data, policies, store=tmp_path, resume=True).rows) == 3


def test_a_cell_that_cannot_be_read_is_done_again(inputs, tmp_path):
    data, policies, _ = inputs
    first = ope.compare([ope.PDIS(E)], data, policies, store=tmp_path)
    (path,) = (tmp_path / "cells").iterdir()
    whole = path.read_text(encoding="utf-8")
    for broken in ("", whole[: len(whole) // 2], json.dumps({**json.loads(whole), "key": "x"})):
        path.write_text(broken, encoding="utf-8")
        with pytest.warns(ope.DataWarning, match="is damaged .* done again"):
            again = ope.compare([ope.PDIS(E)], data, policies, store=tmp_path, resume=True)
        assert comparing.table(again) == comparing.table(first)
        assert json.loads(path.read_text(encoding="utf-8"))["key"] == json.loads(whole)["key"]


@pytest.mark.parametrize("when", ["fit", "estimate"])
@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (ope.DivergedError("It diverged."), True),
        (ope.MissingDependencyError("pip install it."), False),
        (MemoryError(), False),
        (TypeError("mended since"), False),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_a_failure_that_can_be_mended_is_tried_again(
    error, lasts, when, own, inputs, tmp_path, monkeypatch
):
    if not own:  # as the package's estimators are told
        monkeypatch.setattr(Failing, "__module__", "lfiw_ope.estimators.failing")
    data, policies, _ = inputs
    estimator = Failing(error, when)
    ope.compare({"x": estimator}, data, policies, store=tmp_path)
    tried = []

    def progress(*told):
        tried.append(told)

    again = ope.compare(
        {"x": estimator}, data, policies, store=tmp_path, resume=True, progress=progress
    )
    assert {row.status for row in again.rows} == {"failed"}
    assert bool(tried) == (own or not lasts)


def test_a_store_that_is_none_is_told(inputs, tmp_path):
    data, policies, _ = inputs
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ope.ConfigError, match="is a file"):
        ope.compare([ope.PDIS(E)], data, policies, store=file)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ope.ConfigError, match="no stored run"):
        ope.compare([ope.PDIS(E)], data, policies, store=tmp_path, resume=True)


def test_names_that_differ_in_signs_alone_do_not_meet(inputs, tmp_path):
    data, policies, _ = inputs
    named = {"a/b": ope.PDIS(E), "a:b": ope.WIS(E), "../../x": ope.IS(E)}
    found = ope.compare(named, data, policies, store=tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 3
    again = ope.compare(named, data, policies, store=tmp_path, resume=True)
    assert again == found

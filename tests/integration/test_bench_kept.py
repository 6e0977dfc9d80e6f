"""What a suite's folder keeps: nothing is lost, believed unseen or written by a refused run."""

import json

import benching
import pytest

import lfiw_ope as ope
from lfiw_ope.benchmark import BenchResults, run_suite
from lfiw_ope.evaluation import Judge
from lfiw_ope.stats import Interval

cached, policies = benching.cached, benching.policies


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def test_a_run_that_is_refused_writes_nothing(policies, out):
    """Of two trials the second is refused, which the first may not have begun by then."""
    kept = benching.suite(policies, data=("mixed",), seeds=(0,), policies=2)
    run_suite(kept, output=out)
    before = content(out)
    names = ("behaviour", "pdis", "wis", "benching:Mine")
    other = benching.suite(policies, seeds=(0,), policies=3, estimators=names)
    with pytest.raises(ope.ConfigError, match="the policies' names"):
        run_suite(other, output=out, resume=True)
    assert content(out) == before
    both = benching.suite(policies, seeds=(0,), policies=2)
    assert run_suite(both, output=out, resume=True).finished == 2


def test_an_estimator_of_which_nothing_is_kept_may_be_mended(policies, out, monkeypatch):
    names = ("behaviour", "benching:Broken")
    suite = benching.suite(policies, estimators=names, data=("noise",), seeds=(0,))
    assert {row.row.status for row in run_suite(suite, output=out).rows} == {"ok", "failed"}
    monkeypatch.setattr(benching, "Broken", benching.Mine)
    found = run_suite(suite, output=out, resume=True)
    assert {row.row.status for row in found.rows} == {"ok"}
    # Now there is: another estimator of the name is another one.
    monkeypatch.setattr(benching, "Broken", benching.Slow)
    with pytest.raises(ope.ConfigError, match="the settings of 'Broken' differ"):
        run_suite(suite, output=out, resume=True)


def test_values_that_its_class_holds_make_another_estimator(policies, out, monkeypatch):
    """As a class attribute or a default they stand in no object, and in no method's code."""
    names = ("behaviour", "benching:Odd")
    monkeypatch.setattr(benching.Odd, "content", 1.0)
    suite = benching.suite(policies, estimators=names, data=("noise",), seeds=(0,))
    before = run_suite(suite, output=out)
    assert {row.row.value for row in before.rows if row.row.estimator == "Odd"} == {1.0}
    assert run_suite(suite, output=out, resume=True).rows == before.rows
    monkeypatch.setattr(benching.Odd, "content", 2.0)
    with pytest.raises(ope.ConfigError, match="the settings of 'Odd' differ"):
        run_suite(suite, output=out, resume=True)
    monkeypatch.setattr(benching.Odd, "content", 1.0)
    monkeypatch.setattr(benching.Odd.estimate, "__kwdefaults__", {"progress": 3})
    with pytest.raises(ope.ConfigError, match="the settings of 'Odd' differ"):
        run_suite(suite, output=out, resume=True)


def test_what_could_not_be_judged_is_judged_by_the_next_run(policies, out, monkeypatch):
    def fail(*_):
        raise MemoryError("there is none")

    suite = benching.suite(
        *(policies,), estimators=("wis",), data=("noise",), seeds=(0,), refuse=ope.Thresholds()
    )
    with monkeypatch.context() as patched:
        patched.setattr(Judge, "reasons", fail)
        found = run_suite(suite, output=out)
    assert {row.row.status for row in found.rows} == {"failed"}
    assert "could not be seen: MemoryError: there is none" in found.rows[0].row.reason
    again = run_suite(suite, output=out, resume=True)
    assert "failed" not in {row.row.status for row in again.rows}


def cell(**fields):
    """A cell's text with other fields."""
    return lambda text: json.dumps(json.loads(text) | fields)


def row(**fields):
    """A cell's text with other fields of its first row."""

    def changed(text):
        plain = json.loads(text)
        plain["rows"][0] |= fields
        return json.dumps(plain)

    return changed


def rows(do):
    """A cell's text with what this makes of its rows."""
    return lambda text: json.dumps(json.loads(text) | {"rows": do(json.loads(text)["rows"])})


DAMAGE = {
    "half": lambda text: text[: len(text) // 2],
    "deep": lambda _: "[" * 100_000,
    "no record": lambda _: "3",
    "no rows": cell(rows=[]),
    "row of none": cell(rows=[1]),
    "mean": cell(behaviour="x"),
    "row lost": rows(lambda those: those[1:]),
    "row twice": rows(lambda those: [those[0], *those]),
    "other estimator": row(estimator="x"),
    "other policy": row(policy="x"),
    "other seed": row(seed=7),
    "NaN": row(value=float("nan")),
    "beyond": row(value=10**400),
    "status": row(status="fine"),
    "warnings": row(warnings=[1]),
    "warnings as a word": row(warnings="abc"),
    "no value": row(value=None),
    "failed with a value": row(status="failed", reason="x"),
    "failed without a reason": row(status="failed", value=None),
    "interval": row(low=5.0, high=1.0),
    "seconds": row(seconds=-1e9),
    "a mean that is none": cell(behaviour=True),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cell_is_done_again_and_said(policies, out, damage):
    suite = benching.suite(policies, data=("noise",), seeds=(0,), estimators=("behaviour", "wis"))
    found = run_suite(suite, output=out)
    (path,) = out.glob("units/*/cells/wis*.json")
    path.write_text(DAMAGE[damage](path.read_text()))
    with pytest.warns(ope.DataWarning, match=r"wis-0-.*\.json is damaged .* done again"):
        again = run_suite(suite, output=out, resume=True)
    assert benching.table(again) == benching.table(found)


@pytest.mark.parametrize(
    "text",
    [
        *("", "3", '{"run": 3, "estimators": {}}', '{"run": {"policies": [["a", "b"]]}}'),
        '{"run": {"policies": {}, "made_with": 3}, "estimators": {}}',
    ],
)
def test_a_damaged_run_is_told_and_its_cells_are_gone_on_with_without_it(policies, out, text):
    suite = benching.suite(policies, data=("noise",), seeds=(0,))
    found = run_suite(suite, output=out)
    (path,) = out.glob("units/*/run.json")
    path.write_text(text)
    with pytest.raises(ope.ConfigError, match=r"is no stored run .*; remove it, and the cells"):
        run_suite(suite, output=out, resume=True)
    path.unlink()
    assert run_suite(suite, output=out, resume=True).rows == found.rows  # seconds and all


@pytest.mark.parametrize("resume", [False, True])
def test_results_whose_cells_are_not_there_are_not_replaced(policies, out, resume):
    out.mkdir()
    (out / "results.json").write_text("precious")
    suite = benching.suite(policies, data=("noise",), seeds=(0,), estimators=("behaviour",))
    with pytest.raises(ope.ConfigError, match=r"holds results\.json, and not the cells"):
        run_suite(suite, output=out, resume=resume)
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == [
        "results.json"
    ]
    assert (out / "results.json").read_text() == "precious"


class Wordless(Exception):  # noqa: N818
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (Wordless(), "The fit failed: Wordless"),
        (OSError("no \udc80.npz"), r"The fit failed: OSError: no \udc80.npz"),
    ],
)
def test_what_an_own_estimator_raises_can_be_told_and_written(
    policies, out, monkeypatch, raised, reason
):
    def fit(*_, **__):
        raise raised

    monkeypatch.setattr(benching.Mine, "fit", fit)
    names = ("behaviour", "benching:Mine")
    suite = benching.suite(policies, data=("noise",), seeds=(0,), estimators=names)
    found = run_suite(suite, output=out)
    assert {row.row.reason for row in found.rows if row.row.estimator == "Mine"} == {reason}
    assert BenchResults.read(out / "results.json") == found


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("value", 10**400, "OverflowError"),
        ("warnings", ("\udc80",), "UnicodeEncodeError"),
        ("intervals", (Interval("0.95", 1.0, 2.0, "t"),), "TypeError: the estimate's interval's l"),
        ("intervals", (Interval(0.95, 3.0, 2.0, "t"),), "ValueError: the estimate's interval 95%"),
    ],
)
def test_numbers_and_words_that_no_file_holds_are_a_failure(
    policies, out, monkeypatch, field, value, said
):
    monkeypatch.setattr(benching.Odd, "field", field)
    monkeypatch.setattr(benching.Odd, "content", value)
    names = ("benching:Odd", "behaviour")
    suite = benching.suite(policies, estimators=names, data=("noise",), seeds=(0,), policies=2)
    found = run_suite(suite, output=out)
    status = {row.row.estimator: row.row.status for row in found.rows}
    assert status == {"Odd": "failed", "behaviour": "ok"}
    assert found.rows[0].row.reason.startswith(said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plain: plain.update(rows=[1]), "no stored row of a benchmark"),
        (lambda plain: plain.update(without_log=5), "its without_log is 5"),
        (lambda plain: plain.update(trials="sixteen"), "its trials is 'sixteen'"),
        (lambda plain: plain["rows"][0].update(behaviour=float("nan")), "it holds NaN"),
        (lambda plain: plain["rows"][0].update(truth_error=1e999), "it holds Infinity"),
        (lambda plain: plain["rows"][0].update(purpose="toto"), "none of development, report"),
        (lambda plain: plain["rows"][0].update(status="fine"), "none of ok, failed, refused"),
    ],
)
def test_odd_results_are_told(policies, out, change, said):
    suite = benching.suite(policies, data=("noise",), seeds=(0,), estimators=("behaviour",))
    run_suite(suite, output=out)
    path = out / "results.json"
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(ope.DataError, match="holds no results of a benchmark") as told:
        BenchResults.read(path)
    assert said in str(told.value)
    path.write_text("[" * 100_000)
    with pytest.raises(ope.DataError, match="nested too deep"):
        BenchResults.read(path)

"""What `lfiw-ope compare` is given: files of policies, true values, estimators with options."""

import io
import json

import pytest
from rich.console import Console

from lfiw_ope import ConfigError, DataError, Estimand
from lfiw_ope.cli.inputs import policy_files, read_truth
from lfiw_ope.estimators import CATALOGUE, Options, estimators_named

ESTIMAND = Estimand(horizon=10)


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "patterns", "names"),
    [
        (["b.zip", "a.zip"], ["*.zip"], ["a", "b"]),
        (["b.zip", "a.zip", "c.onnx"], ["c.onnx", "*.zip"], ["a", "b", "c"]),
        (["a.zip"], ["a.zip", "*.zip", "./a.zip"], ["a"]),
        (["x/best.zip", "y/best.zip", "y/last.zip"], ["**/*.zip"], ["x/best", "y/best", "last"]),
        (["u/x/best.zip", "v/x/best.zip"], ["*/x/*"], ["u/x/best", "v/x/best"]),
        (["a.zip", "a.onnx", "b.onnx"], ["*"], ["a.onnx", "a.zip", "b"]),
        (["x/a.zip", "x/a.pt", "y/a.zip", "y/b.pt"], ["*/*"], ["x/a.pt", "x/a.zip", "y/a", "b"]),
        (["a.zip", "a.pt", "a.zip.onnx"], ["*"], ["a.pt", "a.zip", "a.zip.onnx"]),
        (["[1].zip", "1.zip"], ["[1].zip"], ["[1]"]),
    ],
)
def test_files_are_named_by_what_tells_them_apart(inside, files, patterns, names):
    make(inside, *files)
    found = policy_files(patterns)
    assert list(found) == names
    assert all(path.is_file() for path in found.values())


@pytest.mark.parametrize("pattern", ["none.zip", "*.onnx", "folder", "folder/**"])
def test_a_pattern_without_a_file_is_refused(inside, pattern):
    make(inside, "a.zip")
    (inside / "folder").mkdir()
    with pytest.raises(DataError) as refused:
        policy_files(["a.zip", pattern])
    assert str(refused.value) == f"There is no policy file {pattern}."


def truth(path, text, policies=("a", "b")):
    path.write_text(text)
    screen = io.StringIO()
    return read_truth(path, policies, Console(file=screen, width=500)), screen.getvalue()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", json.dumps({"a": 1.5, "b": -2})),
        ("t.json", json.dumps({"a": {"value": 1.5, "standard_error": 0.1}, "b": {"value": -2}})),
        ("t.csv", "policy,value\na,1.5\nb,-2\n"),
        ("t.CSV", "seed,value,policy\n1,1.5,a\n1,-2,b\n"),
        ("t.csv", "\ufeffpolicy,value\r\na,1.5\r\nb,-2\r\n"),
    ],
)
def test_true_values_are_read(tmp_path, name, text):
    assert truth(tmp_path / name, text) == ({"a": 1.5, "b": -2.0}, "")


def test_what_policies_and_true_values_do_not_share_is_said(tmp_path):
    found, said = truth(tmp_path / "t.json", '{"a": 1, "z": 2}')
    assert found == {"a": 1.0}
    assert "t.json has no true value of b." in said
    assert "There is no policy for the true value of z." in said


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("t.json", "{", DataError, "is neither JSON nor, by its name, CSV"),
        ("t.json", "[1]", DataError, "holds a list; expected"),
        ("t.json", '{"a": "x"}', DataError, "says that a is worth 'x'; expected a number"),
        ("t.json", '{"a": NaN}', DataError, "says that a is worth nan"),
        ("t.json", '{"a": true}', DataError, "says that a is worth True"),
        ("t.json", '{"a": {"mean": 1}}', DataError, "says that a is worth None"),
        ("t.json", '{"c": 1}', ConfigError, "has the true values of c, and the policies are a, b"),
        ("t.json", "{}", ConfigError, "has the true values of nothing"),
        ("t.csv", "name,value\na,1\n", DataError, "has the columns name, value; expected policy"),
        ("t.csv", "", DataError, "has the columns of an empty file"),
        ("t.csv", "policy,value\na,1\na,2\n", DataError, "has two true values of a"),
        ("t.csv", "policy,value\na\n", DataError, "says that a is worth None"),
    ],
)
def test_true_values_that_are_none_are_refused(tmp_path, name, text, error, message):
    with pytest.raises(error) as refused:
        truth(tmp_path / name, text)
    assert message in str(refused.value)


def test_a_missing_file_of_true_values_is_said(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        read_truth(tmp_path / "none.json", ["a"], Console())


def test_options_go_to_the_estimators_that_have_a_use_for_them():
    options = Options(rollouts=7, updates=50)
    found = estimators_named(["model", "fqe", "behaviour"], ESTIMAND, options)
    assert list(found) == ["model", "fqe", "behaviour"]
    assert found["model"].config.rollouts == 7
    assert found["model"].config.dynamics.fit.updates == 50
    assert found["fqe"].config.fit.updates == 50
    everything = estimators_named(list(CATALOGUE), ESTIMAND, options)
    assert list(everything) == list(CATALOGUE)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["fqe", "behaviour"], Options(rollouts=7), "rollouts is 7, and the estimator 'fqe' sim"),
        (["behaviour"], Options(updates=7), "updates is 7, and the behaviour's mean return is not"),
        (["fqe", "voodoo"], Options(), "estimator is 'voodoo'; it must be one of lfiw, model"),
    ],
)
def test_options_that_none_has_a_use_for_are_refused(names, options, message):
    with pytest.raises(ConfigError) as refused:
        estimators_named(names, ESTIMAND, options)
    assert message in str(refused.value)

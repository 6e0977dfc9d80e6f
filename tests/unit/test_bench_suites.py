"""What a suite is made of, in which order it is run, and who takes part."""

import json
import math
from dataclasses import replace

import benching
import numpy as np
import pytest
from lfiw_envs import LADDERS, Question

import lfiw_ope as ope
from lfiw_ope.benchmark import (
    SUITES,
    Known,
    Pace,
    estimator_entries,
    estimators_of,
    get_suite,
    ladders_named,
    trials_of,
)
from lfiw_ope.estimators import CATALOGUE, Options


@pytest.fixture
def quick(tmp_path):
    return benching.suite(tmp_path)


@pytest.mark.parametrize("name", list(SUITES))
def test_every_estimator_of_the_package_takes_part_in_every_suite(name):
    suite = SUITES[name]
    assert suite.estimators == tuple(CATALOGUE)
    assert set(suite.options) <= set(CATALOGUE)
    for trial in trials_of(suite)[:: max(1, len(trials_of(suite)) // 5)]:
        made = estimators_of(trial, estimator_entries(suite.estimators), suite.options)
        assert list(made) == list(CATALOGUE)
        assert {one.estimand for one in made.values()} == {trial.estimand}


def test_the_suite_of_a_night_has_four_tasks_and_two_questions():
    suite = SUITES["ladder-small"]
    assert len(trials_of(suite)) == 4 * 2 * 2
    assert {trial.question for trial in trials_of(suite)} == {"T100", "g0.99"}


def test_targets_are_chosen_by_their_places():
    ladder = LADDERS["half_cheetah"]
    six = SUITES["ladder-small"].targets(ladder)
    assert six == ("ppo_0", "ppo_0.1", "ppo_0.5", "ppo_1", "sac_0.25", "sac_1")
    assert SUITES["ladder"].targets(ladder) == ladder.targets
    most = replace(SUITES["smoke"], policies=99).targets(ladder)
    assert most == ladder.targets


def test_seeds_come_one_after_the_other_and_small_logs_first(quick):
    suite = replace(quick, transitions=(100, 200), questions={})
    order = [(t.seed, t.transitions, t.data, t.question) for t in trials_of(suite)]
    assert order == [
        (seed, size, data, question)
        for seed in (0, 1)
        for size in (100, 200)
        for data in ("noise", "mixed")
        for question in ("T10", "T20")
    ]
    names = [str(trial) for trial in trials_of(suite)]
    assert names[0] == "short_pole-noise-100-T10-0"
    assert len(set(names)) == len(names)


def test_rules_of_the_environment_are_known_and_settings_are_the_suite_s(quick):
    suite = replace(quick, options={"model": Options(updates=7, rollouts=9)})
    entries = estimator_entries(["model", "lfiw"])
    made = estimators_of(trials_of(suite)[0], entries, suite.options)
    assert made["model"].config.dynamics.fit.updates == 7
    assert made["model"].config.rollouts == 9
    # The defaults, but for a precision that does not depend on the processor.
    default = ope.LFIW(ope.Estimand(20)).config
    dynamics, ratio = (
        replace(part, fit=replace(part.fit, precision="float32"))
        for part in (default.dynamics, default.ratio)
    )
    assert made["lfiw"].config == replace(default, dynamics=dynamics, ratio=ratio)
    assert made["model"].reward is not None
    assert made["model"].termination is not None


@pytest.mark.parametrize(
    "change",
    [{"env_id": "Own-v0"}, {"env_id": "Swimmer-v5", "env_kwargs": {"xml_file": "own.xml"}}],
)
def test_rules_that_are_not_known_are_learned(change, quick):
    suite = replace(quick, ladders=(replace(quick.ladders[0], **change),))
    made = estimators_of(trials_of(suite)[0], estimator_entries(["model"]), {})["model"]
    assert (made.reward, made.termination) == (None, None)


def test_one_s_own_estimator_takes_part_by_its_import_path(quick):
    entries = estimator_entries(["wis", "benching:Mine"])
    assert [entry.name for entry in entries] == ["wis", "Mine"]
    made = estimators_of(trials_of(quick)[0], entries, {})
    assert isinstance(made["Mine"], benching.Mine)
    assert made["Mine"].estimand == ope.Estimand(20)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["voodoo"], "no estimator 'voodoo'; choose of lfiw, .* or name your own"),
        (["nowhere.at.all:Mine"], r"cannot be imported \(ModuleNotFoundError"),
        (["benching:Yours"], r"cannot be imported \(AttributeError"),
        (["benching:GAINS"], "benching:GAINS is a dict; expected a class or function"),
        (["benching:ladder"], r"makes no estimator of an estimand \(TypeError"),
        (["builtins:list"], r"makes no estimator of an estimand \(TypeError"),
        (["builtins:str"], "makes a str; expected an estimator"),
        (["benching:Blind"], r"The fit of benching:Blind cannot be called .*'progress'"),
        (["benching:Mine", "benching:Mine"], "Two estimators are called 'Mine'"),
    ],
)
def test_what_is_no_estimator_is_told(said, message):
    with pytest.raises(ope.ConfigError, match=message):
        estimator_entries(said)


def test_an_estimator_of_something_else_is_told(tmp_path, monkeypatch):
    text = "import lfiw_ope as ope\ndef make(estimand):\n    return ope.WIS(ope.Estimand(3))\n"
    (tmp_path / "of_three_steps.py").write_text(text)
    monkeypatch.chdir(tmp_path)  # modules of the working folder are found
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ope.ConfigError, match="it must estimate what it is given"):
        estimator_entries(["of_three_steps:make"])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["mars_rover"], "There is no ladder 'mars_rover'; choose one of .* Your own is named as"),
        (["benching:GAINS"], "benching:GAINS is a dict; expected an lfiw_envs.Ladder"),
    ],
)
def test_what_is_no_ladder_is_told(said, message):
    with pytest.raises(ope.ConfigError, match=message):
        ladders_named(said)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ("expert",)}, "data set of short_pole is 'expert'; it must be one of noise"),
        ({"questions": {"short_pole": ("T7",)}}, "question of short_pole is 'T7'"),
        ({"seeds": ()}, "The suite's seeds are none"),
        ({"estimators": ("wis", "wis")}, "estimators are wis, wis; name one or more, each once"),
        ({"transitions": (0,)}, "transitions is 0"),
        ({"policies": 1}, "policies is 1"),
        ({"questions": {"short_pole": ("T20", "T20")}}, "questions of short_pole are T20, T20"),
        ({"questions": {"short_pole": ()}}, "questions of short_pole are none"),
        ({"ladders": ("short_pole",)}, "ladders hold 'short_pole'; expected lfiw_envs.Ladder"),
        ({"ladders": LADDERS["swimmer"]}, "The suite's ladders are Ladder.*; expected a tuple"),
        ({"seeds": 0}, "The suite's seeds are 0; expected a tuple of one or more"),
        ({"data": (["noise"],)}, r"The suite's data hold \['noise'\]; expected names"),
        ({"estimators": (3,)}, "The suite's estimators hold 3; expected names"),
        ({"questions": ("T20",)}, "questions are .'T20',.; expected a dict, by name, of a tuple"),
        ({"questions": None}, "questions are None; expected a dict"),
        ({"options": {"wis": 3}}, "options are {'wis': 3}; expected a dict, by name, of Options"),
        ({"refuse": True}, "refuse is True; it must be Thresholds, or None"),
    ],
)
def test_a_suite_that_cannot_be_is_told(change, message, quick):
    with pytest.raises(ope.ConfigError, match=message):
        replace(quick, **change)


def test_numbers_of_an_array_are_whole_numbers_that_a_file_can_hold(quick):
    found = replace(quick, transitions=tuple(np.array([200])), seeds=tuple(np.arange(2)))
    assert json.dumps([found.transitions, found.seeds]) == "[[200], [0, 1]]"


def test_two_trials_of_one_name_are_told(quick):
    """They would have one folder, of which one could not go on."""
    one = replace(quick.ladders[0], name="pole", recipes={"x-noise": ("idles",)})
    other = replace(one, name="pole-x", recipes={"noise": ("idles",), **one.recipes})
    one = replace(one, recipes=other.recipes)
    suite = replace(quick, ladders=(one, other), data=("noise", "x-noise"), questions={})
    message = "'noise' of the ladder 'pole-x' and 'x-noise' of 'pole' make trials of one name"
    with pytest.raises(ope.ConfigError, match=message):
        trials_of(suite)


def test_what_is_said_of_a_suite_is_of_what_is_in_it():
    small = SUITES["ladder-small"]
    assert small.changed(seeds=small.seeds) is small
    assert "Four tasks" in small.in_words
    assert "FQE and what corrects it" in small.in_words
    other = small.changed(seeds=(0,), estimators=("fqe",))
    assert other.in_words == (f"Other seeds, estimators than its own. {small.about_options}")
    # ... and settings of estimators that are not in it are not told.
    assert small.changed(estimators=("lfiw",)).in_words == "Other estimators than its own."


def test_a_suite_that_is_not_there_is_told():
    with pytest.raises(ope.ConfigError, match="suite is 'dope'; it must be one of smoke"):
        get_suite("dope")


def test_the_scale_is_the_range_over_all_targets(quick):
    trial = trials_of(replace(quick, policies=2))[0]
    assert trial.names == ("falls", "holds")
    known = Known.of(trials_of(replace(quick, policies=3))[0])
    true = benching.TRUTHS.values()
    assert known.scale == max(true) - min(true)
    assert known.values["falls"].mean == benching.TRUTHS["falls"]


VALUE = {"mean": 3.0, "standard_error": 0.1, "spread": 1.0, "quantiles": {}, "episodes": 100}


def valued(of):
    """A file of values that says this of the first target."""
    return {"values": {"falls": {"stochastic": {"T20": of}}}}


@pytest.mark.parametrize(
    ("path", "stored", "message"),
    [
        ("values_path", None, "There is no .*measure it first"),
        ("values_path", {"values": {}}, "has no value of 'falls' for 'T20'"),
        ("values_path", {}, "has no value of 'falls' for 'T20'"),
        ("values_path", [], "has no value of 'falls' for 'T20'"),
        ("values_path", {"values": 3}, "has no value of 'falls' for 'T20'"),
        ("values_path", valued({"mean": 3.0}), "of 'falls' for 'T20' what is no value"),
        ("values_path", valued({**VALUE, "mean": "3"}), "of 'falls' for 'T20' what is no value"),
        ("values_path", valued({**VALUE, "mean": math.nan}), "is no JSON .it holds NaN"),
        (
            "values_path",
            valued({**VALUE, "mean": 10**400}),
            "of 'falls' for 'T20' what is no value",
        ),
        ("values_path", valued({**VALUE, "standard_error": None}), "what is no value"),
        ("values_path", valued({**VALUE, "standard_error": -0.1}), "what is no value"),
        ("values_path", valued({**VALUE, "quantiles": {"0.5": "x"}}), "what is no value"),
        ("values_path", valued({**VALUE, "episodes": 1.5}), "what is no value"),
        ("support_path", None, "There is no .*measure it first"),
        ("support_path", {"support": {"noise": {}}}, "does not say how 'noise' supports 'falls'"),
        ("support_path", {"support": {"noise": {"falls": "all"}}}, "by 'all', which is no share"),
        ("support_path", {"support": {"noise": {"falls": 7}}}, "by 7, which is no share"),
    ],
)
def test_what_was_not_measured_is_told(path, stored, message, quick):
    file = getattr(quick.ladders[0], path)
    file.unlink() if stored is None else file.write_text(json.dumps(stored))
    with pytest.raises(ope.ConfigError, match=message):
        Known.of(trials_of(quick)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env_kwargs": {"sutton_barto_reward": True}}, "values.json was .* another env_kwargs"),
        ({"episode": 25}, "values.json was measured with another episode than short_pole has"),
        ({"questions": {"T20": Question(20, 0.5)}}, "values.json was .* another questions"),
        ({"recipes": {"noise": ("holds",)}}, "support.json was .* another recipe of noise"),
        ({"recipes": {"noise": ("idles",)}}, None),  # the other data set is not asked for
    ],
)
def test_what_was_measured_of_another_ladder_is_not_taken_for_this_one(change, message, quick):
    (ladder,) = quick.ladders
    changed = replace(ladder, **change)
    trial = trials_of(replace(quick, ladders=(changed,), data=("noise",)))[0]
    if message is None:
        assert Known.of(trial).values["falls"].mean == benching.TRUTHS["falls"]
        return
    with pytest.raises(ope.ConfigError, match=message):
        Known.of(trial)


def test_values_of_a_policy_that_was_trained_anew_are_not_taken_for_its_own(quick):
    (ladder,) = quick.ladders
    path = ladder.policy_path("leans")
    ope.save_actor(ope.load_actor(ladder.policy_path("falls")), path)
    message = "values.json was measured with other files of leans than short_pole has now"
    with pytest.raises(ope.ConfigError, match=message):
        Known.of(trials_of(quick)[0])


def test_a_file_that_was_not_written_to_its_end_is_told(quick):
    quick.ladders[0].values_path.write_text('{"values": ')
    with pytest.raises(ope.ConfigError, match=r"values.json is no JSON .* measure it anew"):
        Known.of(trials_of(quick)[0])


def test_a_question_of_more_steps_than_an_episode_has_is_told(quick):
    """A policy that lasts would be told to be worth an episode's rewards."""
    with pytest.raises(ValueError, match="episodes of 19 steps, and its questions T20 are of more"):
        replace(quick.ladders[0], episode=19)


def test_a_ladder_without_an_entry_is_no_part_of_a_suite(quick):
    for what, entry in (("targets", ()), ("recipes", {})):
        bare = replace(quick.ladders[0], **{what: entry})
        with pytest.raises(ope.ConfigError, match="of short_pole are none; name one or more"):
            replace(quick, ladders=(bare,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../../evil"}, r"called '\.\./\.\./evil'; files are named by it"),
        ({"name": "my/task"}, "called 'my/task'"),
        ({"name": ".."}, "called"),
        ({"targets": ("falls", "falls")}, "are falls, falls; name each once"),
        ({"recipes": {"noise": ()}}, "names no policy that makes its data noise"),
        ({"recipes": {"noise": "idles"}}, "makers of 'noise' of short_pole are 'idles'; expected"),
        ({"recipes": {"../noise": ("idles",)}}, r"data set is called '\.\./noise'"),
        ({"questions": {"T/20": Question(20, 1.0)}}, "question is called 'T/20'"),
        ({"questions": {"T20": 20}}, r"question 'T20' of short_pole is 20; .* Question\(horizon"),
        ({"targets": "falls"}, "targets of short_pole are 'falls'; expected a tuple of names"),
        ({"name": 5}, "ladder is called 5"),
        ({"recipes": ("noise",)}, "recipes of short_pole are .'noise',.; expected a dict by name"),
        ({"questions": ["T20"]}, "questions of short_pole are .'T20'.; expected a dict by name"),
        (
            {"questions": {"T20": ("20", 1.0)}},
            r"'T20' of short_pole is \('20', 1.0\); expected one",
        ),
        ({"questions": {"T20": "ab"}}, "'T20' of short_pole is 'ab'; expected one"),
        ({"questions": {"T20": (0, 1.0)}}, "of 1 step or more and a discount from 0 to 1"),
        ({"questions": {"T20": (20, 7.0)}}, "of 1 step or more and a discount from 0 to 1"),
        ({"episode": "20"}, "The episode of short_pole is '20'; it must be a whole number"),
        ({"episode": 0}, "The episode of short_pole is 0"),
    ],
)
def test_a_record_that_names_no_files_or_nothing_is_told(quick, change, message):
    with pytest.raises(ValueError, match=message):
        replace(quick.ladders[0], **change)


def test_an_environment_that_no_file_can_tell_has_nothing_measured(quick):
    strange = replace(quick.ladders[0], env_kwargs={"reward": math.sin})
    with pytest.raises(ope.ConfigError, match=r"env_kwargs of short_pole cannot be written down"):
        Known.of(trials_of(replace(quick, ladders=(strange,)))[0])


def test_targets_that_are_all_worth_the_same_have_no_scale(quick):
    path = quick.ladders[0].values_path
    stored = json.loads(path.read_text())
    for policy in stored["values"].values():
        policy["stochastic"]["T20"]["mean"] = 3.0
    path.write_text(json.dumps(stored))
    with pytest.raises(ope.ConfigError, match="are all worth 3"):
        Known.of(trials_of(quick)[0])


def test_time_left_is_that_of_like_cells():
    """Half an hour each of two of a kind, an hour of another, side by side."""
    pace = Pace()
    assert pace.left([("fqe", "a")], jobs=1) == ""
    pace.add("wis", "a", 60.0)
    assert pace.expected("fqe", "a") == 60.0  # of nothing like it, all there is
    pace.add("fqe", "a", 1200.0)
    pace.add("fqe", "a", 2400.0)
    assert pace.expected("fqe", "a") == 1800.0
    assert pace.expected("fqe", "b") == 1800.0
    pace.add("fqe", "b", 3600.0)
    waiting = [("fqe", "a"), ("fqe", "a"), ("fqe", "b")]
    assert pace.left(waiting, jobs=2) == "about 1:00 h left"
    assert pace.left([("wis", "a")], jobs=4) == "less than a minute left"
    guessed = [("never seen", "a"), *waiting]
    assert pace.left(guessed, jobs=2) == "about 1:15 h left, if others take as long"
    assert pace.left([], jobs=1) == ""

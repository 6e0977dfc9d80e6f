"""The committed leaderboard is of the committed results, and these are of what is shipped."""

from pathlib import Path

import pytest
from lfiw_envs import LADDERS

from lfiw_ope.benchmark import MEASURES, BenchResults, Leaderboard, as_markdown, get_suite

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
SHOWN = {
    "LFIW": "lfiw",
    "model": "model",
    "DICE": "dice",
    "FQE": "fqe",
    "WDR": "wdr",
    "WPDIS": "wpdis",
    "corrected model": "corrected-model",
    "the log's mean return": "behaviour",
}


@pytest.fixture(scope="module")
def results():
    return BenchResults.read(RESULTS / "ladder_small" / "results.json")


@pytest.fixture(scope="module")
def board():
    return Leaderboard.from_json((RESULTS / "leaderboard.json").read_text(encoding="utf-8"))


def numbers(standing):
    """All that is measured, by name; what is not there is left out."""
    return {
        (name, kind): getattr(of, kind)
        for name, of in standing.measured.items()
        for kind in ("value", "low", "high")
        if getattr(of, kind) is not None
    }


def test_the_leaderboard_is_made_of_the_results(results, board):
    again = Leaderboard.of(results.rows, board.about)
    assert (
        again.estimators == board.estimators == tuple(sorted(get_suite("ladder-small").estimators))
    )
    for one, other in zip(again.headline.standings, board.headline.standings, strict=True):
        assert one.estimator == other.estimator
        # Another processor may round otherwise.
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-6), one.estimator
    assert as_markdown(board) == (RESULTS / "leaderboard.md").read_text(encoding="utf-8")
    assert board.about["trials"] == board.about["finished"] == results.trials == results.finished
    assert board.missing == 0


def test_results_are_of_the_shipped_ladders_and_the_suite_is_what_was_run(results):
    suite = get_suite("ladder-small")
    assert results.about["suite"] == suite.name
    # All four were report tasks when it was run; three of them are development tasks now.
    assert results.about["about"] == suite.in_words.replace("Four tasks", "Four report tasks")
    policies = {ladder.name: set(suite.targets(ladder)) for ladder in suite.ladders}
    for row in results.rows:
        ladder, policy = LADDERS[row.task], row.row.policy
        assert policy in policies[row.task]
        assert row.row.truth == ladder.value(policy, row.question).mean
        assert row.support == ladder.support(policy, row.data)
        assert row.purpose == "report"


def test_the_readme_tells_of_this_leaderboard(board):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    supported, unsupported = board.by("support", purpose="report")
    assert (supported.of["support"], unsupported.of["support"]) == ("supported", "unsupported")
    for label, name in SHOWN.items():
        cells = [
            " | ".join(MEASURES[what].text(of[what].value) for what in ("error", "near", "refused"))
            for of in (part.standing(name).measured for part in (supported, unsupported))
        ]
        assert f"| {label} | {' | '.join(cells)} |" in readme
    shown = f"{len(SHOWN)} of its {len(board.estimators)} estimators"
    assert f"all {board.about['trials']} trials, {shown}" in readme

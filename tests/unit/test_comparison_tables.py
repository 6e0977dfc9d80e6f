"""What the terminal shows of a comparison."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from lfiw_ope import Estimand
from lfiw_ope.cli.tables import estimates_tables, metrics_tables, warnings_of, without_value
from lfiw_ope.cli.terminal import digits
from lfiw_ope.estimators import BehaviourReturn
from lfiw_ope.evaluation import Comparison, Row

BEHAVIOUR = BehaviourReturn(1.25, 0.5, 40, 0, 10)


def row(estimator, policy, seed=0, value=1.0, **fields):
    status = "ok" if value is not None else fields.pop("status", "failed")
    return Row(estimator=estimator, policy=policy, seed=seed, status=status, value=value, **fields)


def comparison(*rows, truth=None):
    return Comparison(rows, Estimand(horizon=10), None, BEHAVIOUR).with_truth(truth)


def shown(tables, width=100):
    screen = io.StringIO()
    console = Console(file=screen, width=width, highlight=False, markup=False)
    found = tables(console)
    for part in found:
        console.print(part)
    return screen.getvalue(), sum(isinstance(part, Table) for part in found)


def test_a_cell_is_the_mean_over_seeds_and_its_spread():
    result = comparison(
        row("fqe", "a", 0, 1.0, low=0.0, high=3.0),
        row("fqe", "b", 0, None, reason="No."),
        row("fqe", "a", 1, 3.0, low=2.0, high=5.0),
        row("fqe", "b", 1, 7.0),
        row("wis", "a", 0, 4.0, standard_error=0.25),
        row("wis", "b", 0, None, status="refused", reason="Far."),
        row("wis", "a", 1, 4.0, standard_error=0.25),
        row("wis", "b", 1, None, status="refused", reason="Far."),
    )
    text, count = shown(lambda console: estimates_tables(result, console))
    assert count == 1
    lines = [line.split() for line in text.splitlines()]
    assert ["fqe", "wis"] in lines
    # (3 - 1) / √2 over seeds, the standard error where seeds agree; ends are averaged.
    assert ["a", "2", "±", "1.4", "4", "±", "0.25"] in lines
    assert ["[1,", "4]"] in lines
    assert ["b", "7", "(1/2)", "refused"] in lines
    assert "behaviour's mean return is 1.25 ± 0.5 (40 episodes)" in " ".join(text.split())


def test_true_values_stand_beside_the_estimates():
    result = comparison(row("fqe", "a"), row("fqe", "b"), truth={"b": 2.5})
    text, _ = shown(lambda console: estimates_tables(result, console))
    lines = [line.split() for line in text.splitlines()]
    assert ["truth", "fqe"] in lines
    assert ["a", "–", "1"] in lines
    assert ["b", "2.5", "1"] in lines


@pytest.mark.parametrize("width", [60, 100, 300])
def test_a_table_too_wide_is_several(width):
    rows = [row(f"estimator {i}", p, value=1000.0 + i) for i in range(9) for p in ("a", "b")]
    result = comparison(*rows, truth={"a": 1.0, "b": 2.0})
    for tables in (
        lambda console: estimates_tables(result, console),
        lambda console: metrics_tables(result, result.summary(), 1, console),
    ):
        text, count = shown(tables, width)
        assert (count == 1) == (width == 300)
        words = text.split()
        for i in range(9):
            assert " ".join(words).count(f"estimator {i}") == 1
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width


def test_metrics_say_how_many_policies_they_are_over():
    values = {"a": 1.0, "b": 3.0, "c": 2.0}
    result = comparison(
        *(row("fqe", policy, value=value + 0.5) for policy, value in values.items()),
        *(row("wis", policy, value=value if policy != "c" else None, reason="No.")
          for policy, value in values.items()),
        truth=values,
    )  # fmt: skip
    text, _ = shown(lambda console: metrics_tables(result, result.summary(k=2), 2, console))
    lines = [line.split() for line in text.splitlines()]
    assert ["policies", "3", "2"] in lines
    assert ["absolute", "error", "0.5", "0"] in lines
    assert ["Spearman", "1", "1"] in lines
    assert "regret@2" in text
    assert "coverage" not in text  # no estimate has an interval


def test_reasons_and_warnings_that_differ_in_numbers_are_told_once():
    result = comparison(
        row("wis", "a", 0, None, reason="ESS 1.5 of 20."),
        row("wis", "b", 0, None, reason="ESS 2.5 of 20."),
        row("wis", "c", 0, None, reason="It diverged."),
        row("fqe", "a", warnings=("Drift of 0.5.", "Few updates.")),
        row("fqe", "b", warnings=("Drift of 1e-05.",)),
        row("fqe", "c", warnings=tuple(f"Kind {letter}." for letter in "xyz")),
    )
    assert list(without_value(result)) == [
        "wis failed for a, b: ESS 1.5 of 20.",
        "wis failed for c: It diverged.",
    ]
    assert list(warnings_of(result)) == [
        "fqe, 2 of 3 estimates: Drift of 0.5.",
        "fqe, 1 of 3 estimates: Few updates.",
        "fqe, 1 of 3 estimates: Kind x.",
        "fqe: 2 more kinds; the JSON has all of them.",
    ]


def test_a_failure_at_some_seeds_says_which():
    result = comparison(
        row("fqe", "a", 0), row("fqe", "a", 1, None, reason="No."), row("fqe", "a", 2)
    )
    assert list(without_value(result)) == ["fqe failed for every policy, seed 1: No."]


@pytest.mark.parametrize(
    ("value", "count", "text"),
    [(11817.4, 4, "11817"), (-312.06, 4, "-312.1"), (152.0, 2, "152"), (0.0123, 2, "0.012")],
)
def test_numbers_have_so_many_digits_and_no_exponent(value, count, text):
    assert digits(value, count) == text

"""Committed results say what their stored cells say."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
TABLE = json.loads((RESULTS / "paper_table.json").read_text(encoding="utf-8"))["groups"]
CELLS = [
    json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((RESULTS / "paper_table").glob("*.json"))
]


def test_every_cell_is_in_the_table_and_nothing_else():
    told = {
        (group["task"], group["transitions"], seed) for group in TABLE for seed in group["seeds"]
    }
    stored = {(cell["task"], cell["transitions"], cell["seed"]) for cell in CELLS}
    assert told == stored
    assert len(CELLS) == len(stored)


@pytest.mark.parametrize("group", TABLE, ids=lambda g: f"{g['task']} {g['transitions']}")
def test_the_table_is_the_cells(group):
    own = [
        c for c in CELLS if (c["task"], c["transitions"]) == (group["task"], group["transitions"])
    ]
    for form, row in group["forms"].items():
        if form == "LFIW()'s form":
            continue
        values = np.array([cell["forms"][form]["value"] for cell in own])
        errors = np.abs(values - group["truth"]["mean"])
        model = np.abs(
            [cell["forms"]["model"]["value"] for cell in own] - np.float64(group["truth"]["mean"])
        )
        assert row["value"] == pytest.approx(values.mean())
        assert row["mean_absolute_error"] == pytest.approx(errors.mean())
        assert row["nearer_than_model"] == (errors < model).sum()
        assert row["error_over_models"] == pytest.approx(np.median(errors / model))


def test_the_default_was_chosen_on_no_task_of_the_table():
    chosen = json.loads((RESULTS / "default_weighting.json").read_text(encoding="utf-8"))
    words = json.dumps(chosen).lower()
    for group, name in itertools.product(TABLE, ("{}", "{}-v5")):
        assert name.format(group["task"].replace("_", "")) not in words

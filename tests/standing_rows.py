"""Rows of a benchmark that was never run: estimators of which it is known how they err."""

import numpy as np

from lfiw_ope.benchmark import BenchRow, Leaderboard
from lfiw_ope.evaluation import Row

POLICIES = ("a", "b", "c", "d", "e", "f")
OF_THE_ROW = ("seed", "status", "reason", "low", "high", "seconds")
UNIT = {
    "task": "swim",
    "purpose": "report",
    "data": "medium",
    "transitions": 1000,
    "question": "T100",
    "truth_error": 0.01,
    "scale": 10.0,
    "support": 0.8,
    "supported": True,
    "behaviour": 4.0,
}


def bench_row(estimator, policy, value, truth, **fields):
    """One answer, or none; fields are of the row or of the bench row."""
    mine = {name: fields.pop(name) for name in OF_THE_ROW if name in fields}
    mine = {"seed": 0, "status": "failed" if value is None else "ok", "seconds": 2.0} | mine
    row = Row(estimator=estimator, policy=policy, value=value, truth=truth, **mine)
    return BenchRow(row=row, **(UNIT | fields))


def rows_of(values, truths=(0.0, 5.0, 10.0), **fields):
    """One unit: each estimator's values, None where it has none."""
    return [
        bench_row(name, policy, value, truth, **fields)
        for name, of in values.items()
        for policy, value, truth in zip(POLICIES, of, truths, strict=False)
    ]


def noisy_rows(estimators, tasks, *, policies=6, seeds=(0, 1), data=("medium",), seed=0):
    """Normal errors: of each estimator its (bias, spread, half-width of intervals or None).

    All three are in units of the task's scale. The first two policies are not supported, and
    spreads are three times as large on them.
    """
    rng, rows = np.random.default_rng(seed), []
    for place, task in enumerate(tasks):
        scale = 10.0 ** (place + 1)
        truths = np.linspace(0.0, scale, policies)
        for name in data:
            for one in seeds:
                unit = {"task": task, "data": name, "seed": one, "scale": scale}
                unit["behaviour"] = 0.4 * scale
                for estimator, (bias, spread, half) in estimators.items():
                    for index, truth in enumerate(truths.tolist()):
                        error = bias + spread * rng.normal() * (3 if index < 2 else 1)
                        value = truth + scale * float(error)
                        ends = {"supported": index >= 2}
                        if half is not None:
                            ends |= {"low": value - half * scale, "high": value + half * scale}
                        made = bench_row(estimator, f"p{index:02}", value, truth, **unit, **ends)
                        rows.append(made)
    return rows


RIGHT, TURNED = (1.0, 6.0, 11.0), (10.0, 5.0, 0.0)
"""Answers of two estimators to the truths of `rows_of`: off by one each; the order turned round."""


def board(rows, resamples=50, **settings):
    return Leaderboard.of(rows, resamples=resamples, **settings)


def measured(found, estimator, part=None):
    """Values by the names of their measures."""
    standing = (part or found.headline).standing(estimator)
    return {name: of.value for name, of in standing.measured.items()}


def order(found):
    return [one.estimator for one in found.headline.standings]

"""Rows of a benchmark that was never run: estimators of which it is known how they err."""

import numpy as np

from lfiw_ope.bench.rows import BenchRow
from lfiw_ope.comparison.rows import Row

POLICIES = ("a", "b", "c", "d", "e", "f")


def bench_row(estimator, policy, value, truth, **fields):
    """One answer, or none; fields are of the row or of the bench row."""
    status = "ok" if value is not None else "failed"
    mine = {"seed": 0, "status": status, "seconds": 2.0} | {
        name: fields.pop(name)
        for name in ("seed", "status", "reason", "low", "high", "seconds")
        if name in fields
    }
    row = Row(estimator=estimator, policy=policy, value=value, truth=truth, **mine)
    about = {
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
    return BenchRow(row=row, **(about | fields))


def noisy_rows(estimators, tasks, *, policies=POLICIES, seeds=(0, 1), data=("medium",), seed=0):
    """Answers with normal errors: of each estimator (bias, spread, half-width of intervals).

    Spread is in units of the task's scale; the first two policies of each log are unsupported, and
    all err three times as much on them.
    """
    rng, rows = np.random.default_rng(seed), []
    for place, task in enumerate(tasks):
        scale = 10.0 ** (place + 1)
        truths = np.linspace(0.0, scale, len(policies))
        for name in data:
            for one in seeds:
                for index, policy in enumerate(policies):
                    far = index < 2
                    for estimator, (bias, spread, half) in estimators.items():
                        error = bias + spread * rng.normal() * (3 if far else 1)
                        value = float(truths[index] + scale * error)
                        ends = (
                            {}
                            if half is None
                            else {
                                "low": value - half * scale,
                                "high": value + half * scale,
                            }
                        )
                        rows.append(
                            bench_row(
                                estimator,
                                policy,
                                value,
                                float(truths[index]),
                                seed=one,
                                task=task,
                                data=name,
                                scale=scale,
                                supported=not far,
                                behaviour=0.4 * scale,
                                **ends,
                            )
                        )
    return rows

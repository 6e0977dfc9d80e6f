"""A comparison as plain text."""

from collections import Counter
from collections.abc import Sequence

from lfiw_ope.comparison.rows import Row
from lfiw_ope.comparison.summary import Score
from lfiw_ope.wording import counted

TRUE = ("absolute error", "RMSE", "Spearman", "regret@k", "coverage")
UNTRUE = ("mean value", "seed spread", "interval width")


def as_text(rows: Sequence[Row], scores: Sequence[Score]) -> str:
    """A line an estimator, then each reason for which there was no value, with its count."""
    found = {(score.estimator, score.metric): score.value for score in scores}
    told = {metric for _, metric in found}
    shown = [metric for metric in (TRUE if "Spearman" in told else UNTRUE) if metric in told]
    table = [["", "answered", *(name.replace("@k", "@1") for name in shown), "seconds"]]
    for name in dict.fromkeys(row.estimator for row in rows):
        mine = [row for row in rows if row.estimator == name]
        answered = sum(row.status == "ok" for row in mine)
        values = [_number(found[name, metric]) for metric in shown]
        seconds = f"{sum(row.seconds for row in mine):.1f}"
        table.append([name, f"{answered}/{len(mine)}", *values, seconds])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in table
    ]
    without = Counter((row.estimator, row.status, row.reason) for row in rows if row.status != "ok")
    lines += [
        f"{name}, {status} {counted(count, 'time')}: {reason}"
        for (name, status, reason), count in without.items()
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
